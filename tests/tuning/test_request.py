"""What a user may ask of a search, and the errors of everything else."""

from pathlib import Path

import pytest

from steelyard.errors import InputError
from steelyard.study import Study
from steelyard.study_file import load_study
from steelyard.tuning.request import Request, names, numbers, points_of, pulls_asked, seconds

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def laptop() -> Study:
    return load_study(ROOT / "studies" / "laptop").study


@pytest.mark.parametrize(("text", "found"), [("30m", 1800), ("1h30m", 5400), ("90s", 90), ("90", 90), ("1.5h", 5400)])
def test_times(text: str, found: float) -> None:
    assert seconds(text) == found


@pytest.mark.parametrize("text", ["", "m", "0", "-5m", "30 minutes", "nan", "1e9", "9999h", "m30"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InputError, match="--budget"):
        seconds(text)


def test_numbers_by_name() -> None:
    assert numbers([]) is None
    assert numbers(["none"]) == {}
    assert numbers(["max_num_seqs=8,16,8", "block_size"]) == {"max_num_seqs": (8, 16), "block_size": ()}


@pytest.mark.parametrize("text", ["max_num_seqs=0", "max_num_seqs=a", "=4", "Max=4", "unusual", "max_num_seqs=-1"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(InputError, match="--number"):
        numbers([text])


def test_a_number_named_twice_is_refused() -> None:
    with pytest.raises(InputError, match="--number"):
        numbers(["block_size=16", "block_size=32"])


def test_names_between_commas() -> None:
    assert names(" a, b,,a ") == ("a", "b")


def test_load_points(laptop: Study) -> None:
    assert [each.name for each in points_of(Request(budget_s=1, at=("chat@c8",)), laptop)] == ["chat@c8"]
    assert len(points_of(Request(budget_s=1), laptop)) == len(laptop.load_points)
    with pytest.raises(InputError, match=r"no load point chat@c9\. There are chat@c8"):
        points_of(Request(budget_s=1, at=("chat@c9",)), laptop)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"goal": "fastest"}, "--goal: there is no goal fastest"),
        ({"levers": ("bf17",)}, "--levers: there is no lever bf17"),
        ({"without": ("nosuch",)}, "--without: there is no lever nosuch"),
        ({"start": ("bf16", "float16")}, "--start: bf16 and float16 exclude each other: both set dtype"),
        ({"start": ("bf16",), "without": ("bf16",)}, "--without: bf16 is asked for as well"),
        ({"levers": (), "numbers": {}}, "There is nothing to search"),
    ],
)
def test_what_cannot_be_meant(laptop: Study, asked: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        pulls_asked(Request(budget_s=60, **asked), laptop)  # type: ignore[arg-type]


def test_levers_that_exclude_the_start_are_not_searched(laptop: Study) -> None:
    found = [each.name for each in pulls_asked(Request(budget_s=60, start=("bf16",)), laptop)]
    assert found[0] == "bf16"
    assert "float16" not in found


def test_somebody_elses_engine_cannot_be_searched(laptop: Study) -> None:
    attached = laptop.model_copy(update={"baseline": laptop.baseline.model_copy(update={"engine": "attach"})})
    with pytest.raises(InputError, match="run by somebody else"):
        pulls_asked(Request(budget_s=60), attached)


def test_another_question_is_another_search() -> None:
    assert Request(budget_s=60).digest("x") == Request(budget_s=60).digest("x")
    assert Request(budget_s=60).digest("x") != Request(budget_s=900).digest("x")
    assert Request(budget_s=60).digest("x") != Request(budget_s=60, start=("bf16",)).digest("x")
