"""GuideLLM reports: schema version 2, several load points, warm-up, failures."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import InputError
from steelyard.importers import read_foreign

Write = Callable[..., Path]
Report = dict[str, Any]


def successful(report: Report, n: int = 0) -> list[Report]:
    return list(report["benchmarks"][n]["requests"]["successful"])


def test_each_benchmark_is_a_load_point(fixtures: Path) -> None:
    imported = read_foreign(fixtures / "guidellm_v2.json")
    assert [trial.load_point for trial in imported.trials] == ["guidellm@r20", "guidellm@c4"]
    assert [(trial.requests, trial.failed) for trial in imported.trials] == [(12, 2), (11, 0)]
    assert imported.arms[0].arm == "llama-3-2-1b-instruct-fp8"
    assert imported.study.seed == 42
    assert imported.study.python_version == "3.12.8"
    assert imported.trials[0].cached_tokens == 0


def test_inter_token_latency_is_theirs_and_time_per_output_token_is_not(fixtures: Path, guidellm: Report) -> None:
    trial = read_foreign(fixtures / "guidellm_v2.json").trials[0]
    own = statistics.median(each["inter_token_latency_ms"] for each in successful(guidellm))
    with_first = statistics.median(each["time_per_output_token_ms"] for each in successful(guidellm))
    assert trial.itl_p50_s == pytest.approx(own / 1000)
    assert trial.itl_p50_s != pytest.approx(with_first / 1000, rel=0.1)


def test_latency_counts_from_the_schedule_in_an_open_loop_and_from_sending_in_a_closed_one(
    fixtures: Path, guidellm: Report
) -> None:
    open_loop, closed = read_foreign(fixtures / "guidellm_v2.json").trials
    scheduled = statistics.median(each["request_scheduled_latency"] for each in successful(guidellm))
    sent = statistics.median(each["request_latency"] for each in successful(guidellm))
    assert scheduled > sent + 0.002
    assert open_loop.e2e_p50_s == pytest.approx(scheduled)
    assert open_loop.lateness_p95_s is not None
    assert open_loop.lateness_p95_s > 0.003
    assert closed.lateness_p95_s is None
    measured = [each for each in successful(guidellm, 1) if each["request_end_time"] >= measure_start(guidellm)]
    assert closed.e2e_p50_s == pytest.approx(statistics.median(each["request_latency"] for each in measured))


def measure_start(report: Report) -> float:
    return float(report["benchmarks"][1]["scheduler_metrics"]["measure_start_time"])


def test_warm_up_is_left_out_and_said(fixtures: Path) -> None:
    trial = read_foreign(fixtures / "guidellm_v2.json").trials[1]
    assert any("1 request outside" in reason for reason in trial.invalid_reasons)


def test_errors_and_requests_cut_off_are_failures(fixtures: Path) -> None:
    failed = [row for row in read_foreign(fixtures / "guidellm_v2.json").requests if row.status != "ok"]
    assert {row.status for row in failed} == {"http_error", "broken_stream"}
    assert all(row.error for row in failed)
    assert all(row.output_tokens is None for row in failed)


def test_secrets_are_not_stored(fixtures: Path) -> None:
    imported = read_foreign(fixtures / "guidellm_v2.json")
    assert "sk-not-for-others" not in imported.study.study_json + imported.arms[0].args_json
    assert "http://localhost:8000" in imported.study.study_json


def test_version_1_with_args_is_read(written: Write, guidellm: Report) -> None:
    guidellm["metadata"]["version"] = 1
    guidellm["args"] = {"model": "org/Small-Model", "target": "http://localhost:8000"}
    del guidellm["config"], guidellm["conclusions"]
    for benchmark in guidellm["benchmarks"]:
        del benchmark["config"]["backend"]
    assert read_foreign(written(guidellm)).arms[0].arm == "small-model"


def test_an_unknown_schema_version_is_refused(written: Write, guidellm: Report) -> None:
    guidellm["metadata"]["version"] = 3
    with pytest.raises(InputError, match="schema versions 1, 2 are known") as error:
        read_foreign(written(guidellm))
    assert (error.value.line, error.value.field) == (3, "metadata.version")


@pytest.mark.parametrize("group", ["successful", "incomplete", "errored"])
def test_samples_cut_away_are_refused(written: Write, guidellm: Report, group: str) -> None:
    guidellm["benchmarks"][0]["requests"][group].pop()
    with pytest.raises(InputError, match="--sample-requests") as error:
        read_foreign(written(guidellm))
    assert error.value.field == "benchmarks[0].requests"


def test_without_totals_the_scheduler_says_how_many_there_were(written: Write, guidellm: Report) -> None:
    for benchmark in guidellm["benchmarks"]:
        del benchmark["metrics"]
        benchmark["requests"]["successful"] = benchmark["requests"]["successful"][:3]
    with pytest.raises(InputError, match="holds 3 of 10"):
        read_foreign(written(guidellm))


def test_a_token_known_only_as_first_gives_no_inter_token_latency(written: Write, guidellm: Report) -> None:
    for each in successful(guidellm):
        each["info"]["timings"]["last_token_iteration"] = None
    trial = read_foreign(written(guidellm)).trials[0]
    assert trial.itl_p50_s is None
    assert trial.ttft_p50_s is not None


DAMAGE: list[tuple[str, Any, str]] = [
    ("info.timings.request_start", -1.0, "less than 0"),
    ("info.timings.request_start", "now", "a number"),
    ("info.timings.first_token_iteration", 5.0, "before request_start: times out of order"),
    ("info.timings.last_token_iteration", 5.0, "before first_token_iteration"),
    ("info.timings.request_end", 5.0, "before"),
    ("info.timings.targeted_start", 1.9e9, "after request_start"),
    ("info.timings", [], "an object"),
    ("info.error", 17, "a text"),
    ("output_metrics.total_tokens", -4, "outside of 0"),
    ("output_metrics", 3, "an object"),
]


@pytest.mark.parametrize(("field", "value", "says"), DAMAGE, ids=[f"{field}-{says}" for field, _, says in DAMAGE])
def test_damage_is_named_with_its_field(written: Write, guidellm: Report, field: str, value: Any, says: str) -> None:
    # Without totals, so that the time window does not hide the request first.
    guidellm["benchmarks"][0]["scheduler_metrics"] = None
    guidellm["benchmarks"][0]["metrics"] = None
    here = successful(guidellm)[3]
    *way, last = field.split(".")
    for name in way:
        here = here[name]
    here[last] = value
    path = written(guidellm)
    with pytest.raises(InputError, match=says) as error:
        read_foreign(path)
    assert error.value.field == f"benchmarks[0].requests.successful[3].{field}"
    line = path.read_text().splitlines()[(error.value.line or 0) - 1]
    assert f'"{last}"' in line


def test_a_request_twice_is_refused(written: Write, guidellm: Report) -> None:
    requests = guidellm["benchmarks"][0]["requests"]["successful"]
    requests[1]["request_id"] = requests[0]["request_id"]
    with pytest.raises(InputError, match="stands twice") as error:
        read_foreign(written(guidellm))
    assert error.value.field == "benchmarks[0].requests.successful[1].request_id"
