"""The bench of the search: what the sweep is asked, how its files are read, and what the page shows."""

import json
from pathlib import Path

import pytest

from benchmarks.search import GRID, LAPTOP, POINTS
from benchmarks.search_parts.report import page
from benchmarks.search_parts.sweep import RUNS, Swept, asked_of, combinations, read
from steelyard.errors import InfrastructureError
from steelyard.study_file import load_study

POINT = {point.name: point for point in load_study(LAPTOP).study.load_points}


def write(folder: Path, config: dict[str, object], point: str, values: list[float]) -> None:
    place = folder / f"SERVE-{'-'.join(map(str, config.values()))}-BENCH-{point}"
    place.mkdir(parents=True)
    for number, value in enumerate(values):
        told = {**config, "_benchmark_name": point, "output_throughput": value, "duration": 2.0, "run_number": number}
        (place / f"run={number}.json").write_text(json.dumps(told))
    (place / "summary.json").write_text("[]")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for number, config in enumerate(combinations(GRID)):
        for point in POINTS:
            write(tmp_path, config, point, [100.0 + 10 * number] * RUNS)
    return tmp_path


def test_a_load_point_in_the_words_of_the_tool() -> None:
    assert asked_of(POINT["chat@c8"])["random_input_len"] == 64
    assert asked_of(POINT["chat@c8"])["max_concurrency"] == 8
    shared = asked_of(POINT["shared-prefix@c8"])
    assert shared["prefix_repetition_prefix_len"] + shared["prefix_repetition_suffix_len"] == 512
    assert asked_of(POINT["arrivals@r24"])["request_rate"] == 24


def test_its_files_are_read(results: Path) -> None:
    found = read(results, GRID, [POINT[name] for name in POINTS], 60.0)
    assert len(found.speeds) == len(combinations(GRID))
    assert found.best == combinations(GRID)[-1]
    assert found.requests_s == 2.0 * RUNS * len(POINTS) * len(found.speeds)


def test_a_sweep_that_lacks_a_combination_is_no_result(results: Path) -> None:
    place = sorted(results.iterdir())[0]
    for path in place.glob("run=*.json"):
        path.unlink()
    with pytest.raises(InfrastructureError, match=r"measured 23 of 24"):
        read(results, GRID, [POINT[name] for name in POINTS], 60.0)


def test_the_page_has_both_and_the_grid(results: Path) -> None:
    swept: Swept = read(results, GRID, [POINT[name] for name in POINTS], 60.0)
    summed = {
        "ours": {"dtype": "bfloat16"}, "grid": swept.best, "ours_s": 20.0, "combinations": 12, "ours_stacks": 6,
    }  # fmt: skip
    text = page(summed, swept, [], None, where="a machine")
    assert "Both found the same configuration." in text
    assert "| vllm bench sweep serve |" in text
    assert text.count("bfloat16") >= 6
