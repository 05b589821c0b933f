"""What may be pulled: single levers of the study and the catalogue, each once, and who excludes whom."""

from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import InputError
from steelyard.study import Study
from steelyard.study_file import load_study
from steelyard.tuning.levers import chosen, clash, gravest, pulls_of, together
from steelyard.tuning.stack import Stack, stack_of
from tests.tuning.bench import pull

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def laptop() -> Study:
    return load_study(ROOT / "studies" / "laptop").study


def test_candidates_made_of_others_changes_are_no_levers(laptop: Study) -> None:
    names = [each.name for each in pulls_of(laptop)]
    assert {"bf16", "batching", "prefix-cache", "kv-fp8", "int8-w8a8", "compile"} <= set(names)
    assert not {"combined", "combined-compiled", "kv-int8-per-token-head", "identity", "damaged-2bit"} & set(names)


def test_the_catalogue_adds_what_the_study_does_not_try(laptop: Study) -> None:
    found = {each.name: each for each in pulls_of(laptop)}
    assert found["kv-int8"].risk == "damage"
    # The study's own names for the same changes.
    assert not {"bfloat16", "prefix-caching"} & set(found)
    assert "transformers" not in found
    assert "tcmalloc" not in found


def test_a_lever_the_baseline_has_already_is_none(laptop: Study) -> None:
    data = laptop.model_dump(mode="json")
    data["baseline"]["args"]["block_size"] = 64
    names = [each.name for each in pulls_of(Study.model_validate(data))]
    assert "block-size" not in names


def test_two_values_of_one_argument_exclude_each_other() -> None:
    assert clash(pull("x", dtype="bfloat16"), pull("y", dtype="float16")) == "both set dtype"
    assert clash(pull("x", dtype="bfloat16"), pull("y", dtype="bfloat16", seqs=4)) is None
    assert clash(pull("x"), pull("y")) is None


@pytest.mark.parametrize(("names", "said"), [(["x", "nosuch"], "there is no lever nosuch"), (["X"], "no lever X")])
def test_an_unknown_lever_is_named_with_those_there_are(names: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said) as told:
        chosen([pull("x"), pull("y")], names, "--levers")
    assert "x, y" in told.value.remedy


def test_levers_of_one_stack_that_exclude_each_other_are_an_error() -> None:
    with pytest.raises(InputError, match=r"--start: x and y exclude each other: both set dtype"):
        together([pull("x", dtype="bfloat16"), pull("y", dtype="float16")], "--start")


def test_the_gravest_risk_counts() -> None:
    assert gravest(["rounding", "unknown", "none"]) == "unknown"
    assert gravest([]) == "none"


def test_of_two_that_exclude_each_other_the_first_stays() -> None:
    assert stack_of([pull("x", dtype="a"), pull("y", dtype="b"), pull("z")]).levers == ("x", "z")


def test_a_stack_is_the_arm_it_serves(laptop: Study) -> None:
    levers = {each.name: each for each in pulls_of(laptop)}
    made = Stack(name="stack-1", pulls=(levers["bf16"], levers["int8-w8a8"]), knobs={"max_num_seqs": 32})
    arm = made.arm(laptop.arms[0])
    assert (arm.name, arm.role, arm.lever) == ("stack-1", "candidate", "combined")
    assert arm.args["dtype"] == "bfloat16"
    assert arm.args["max_num_seqs"] == 32
    assert arm.args["max_model_len"] == laptop.baseline.args["max_model_len"]
    change: dict[str, Any] = made.change()
    assert change["weights"] == [{"method": "int8_w8a8"}]
    assert made.risk == "approximation"
    assert made.said() == "bf16 + int8-w8a8 + max_num_seqs 32"


def test_stacks_that_serve_the_same_are_one(laptop: Study) -> None:
    levers = {each.name: each for each in pulls_of(laptop)}
    one = Stack(name="x", pulls=(levers["bf16"], levers["batching"]))
    other = Stack(name="y", pulls=(levers["batching"], levers["bf16"]))
    assert one.identity == other.identity
    # A number over a lever's own is what is served.
    assert (
        one.set({"max_num_seqs": 8}).identity
        == Stack(name="", pulls=(levers["bf16"],), knobs={"max_num_seqs": 8}).identity
    )


def test_the_baseline_is_itself(laptop: Study) -> None:
    assert Stack(name="baseline").arm(laptop.arms[0]) == laptop.arms[0]
    assert Stack(name="baseline").said() == "baseline"
