"""Phase times: means over requests, unknown where the engine is silent."""

import pytest

from steelyard.profiling.phases import phase_seconds, plain_name, profile
from steelyard.records_trials import EngineMetricRow, TrialRow
from steelyard.reports.markdown import profile_table


def metric(trial: str, name: str, value: float) -> EngineMetricRow:
    return EngineMetricRow(
        trial_id=trial, metric=name, run_id="r", arm="baseline", deployment_digest="d", kind="counter", value=value
    )


def trial(name: str, point: str, completed: int, valid: bool = True) -> TrialRow:
    row = dict.fromkeys(TrialRow.__dataclass_fields__)
    row.update(trial_id=name, load_point=point, completed=completed, valid=valid, invalid_reasons=[])
    return TrialRow(**row)  # type: ignore[arg-type]


def test_names_lose_prefix_and_total() -> None:
    assert plain_name("vllm:generation_tokens_total") == "generation_tokens"
    assert plain_name("request_queue_time_seconds_sum") == "request_queue_time_seconds_sum"


def test_means_are_over_completed_requests_of_valid_trials() -> None:
    rows = [
        metric("a", "vllm:request_queue_time_seconds_sum", 3.0),
        metric("b", "vllm:request_queue_time_seconds_sum", 1.0),
        metric("b", "vllm:request_decode_time_seconds_sum", 8.0),
        metric("c", "vllm:request_queue_time_seconds_sum", 100.0),
    ]
    found = profile(rows, [trial("a", "chat@c8", 6), trial("b", "chat@c8", 2), trial("c", "chat@c8", 9, valid=False)])
    assert found == {"chat@c8": {"queue": pytest.approx(0.5), "prefill": None, "decode": pytest.approx(1.0)}}


def test_nothing_measured_is_nothing_not_zero() -> None:
    assert profile([], [trial("a", "chat@c8", 4)]) == {}
    assert phase_seconds({}, 3) == {"queue": None, "prefill": None, "decode": None}


def test_table_shows_shares_and_unknowns() -> None:
    text = profile_table({"chat@c8": {"queue": 0.3, "prefill": None, "decode": 0.1}})
    assert "300 ms (75.0 %)" in " ".join(text.split())
    assert "n/a" in text
