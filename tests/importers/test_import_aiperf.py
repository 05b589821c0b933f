"""AIPerf's records: nanoseconds, units of their own, phases, conversations, cancelled requests."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import InputError
from steelyard.importers import read_foreign

Records = list[dict[str, Any]]


def lines(records: Records, folder: Path, *, summary: dict[str, Any] | None = None) -> Path:
    path = folder / "profile_export.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    if summary is not None:
        (folder / "profile_export_aiperf.json").write_text(json.dumps(summary))
    return path


def summary_of(fixtures: Path) -> dict[str, Any]:
    return dict(json.loads((fixtures / "aiperf" / "profile_export_aiperf.json").read_text()))


def test_records_of_the_measured_phase_are_requests(fixtures: Path, aiperf: Records) -> None:
    imported = read_foreign(fixtures / "aiperf" / "profile_export.jsonl")
    [trial] = imported.trials
    assert (trial.load_point, trial.requests, trial.failed) == ("aiperf@c3", 10, 1)
    assert imported.arms[0].arm == "qwen3-0-6b"
    assert imported.study.seed == 42
    assert any("1 record of other phases" in note for note in imported.notes)
    good = [each for each in aiperf if each["metadata"]["benchmark_phase"] == "profiling" and "error" not in each]
    ttft = statistics.median(each["metrics"]["time_to_first_token"]["value"] for each in good)
    itl = statistics.median(each["metrics"]["inter_token_latency"]["value"] for each in good)
    assert trial.ttft_p50_s == pytest.approx(ttft / 1000)
    assert trial.itl_p50_s == pytest.approx(itl / 1000)
    assert trial.output_tokens == 72
    assert [row.sent_s for row in imported.requests] == sorted(row.sent_s or 0 for row in imported.requests)


def test_a_cancelled_request_failed(fixtures: Path) -> None:
    [lost] = [row for row in read_foreign(fixtures / "aiperf" / "profile_export.jsonl").requests if row.status != "ok"]
    assert lost.error == "RequestCancellationError: Request was cancelled after 0.001 seconds"
    assert lost.prompt_tokens == 100
    assert lost.output_tokens is None


def test_secrets_are_not_stored(fixtures: Path) -> None:
    imported = read_foreign(fixtures / "aiperf" / "profile_export.jsonl")
    assert "sk-not-for-others" not in imported.study.study_json + imported.arms[0].args_json


def test_without_the_summary_the_load_is_inferred_and_said(tmp_path: Path, aiperf: Records) -> None:
    imported = read_foreign(lines(aiperf, tmp_path))
    [trial] = imported.trials
    assert trial.load_point == "aiperf@c3"
    assert any("load is not known" in reason for reason in trial.invalid_reasons)
    assert any("No summary" in note for note in imported.notes)


def test_at_a_rate_latency_counts_from_the_credit(tmp_path: Path, fixtures: Path, aiperf: Records) -> None:
    summary = summary_of(fixtures)
    summary["input_config"]["loadgen"] = {"request_rate": 25.0}
    closed = read_foreign(fixtures / "aiperf" / "profile_export.jsonl").trials[0]
    [trial] = read_foreign(lines(aiperf, tmp_path, summary=summary)).trials
    assert trial.load_point == "aiperf@r25"
    assert trial.ttft_p50_s == pytest.approx((closed.ttft_p50_s or 0) + 0.0004)
    assert trial.lateness_p95_s == pytest.approx(0.0004)


@pytest.mark.parametrize(("unit", "factor"), [("s", 1e-3), ("us", 1e3), ("ns", 1e6)])
def test_units_are_read_and_not_assumed(tmp_path: Path, aiperf: Records, unit: str, factor: float) -> None:
    before = read_foreign(lines(aiperf, tmp_path)).trials[0]
    for record in aiperf:
        for name in ("time_to_first_token", "request_latency"):
            if (metric := record["metrics"].get(name)) is not None:
                metric.update(value=metric["value"] * factor, unit=unit)
        if (metric := record["metrics"].get("inter_chunk_latency")) is not None:
            metric.update(value=[value * factor for value in metric["value"]], unit=unit)
    after = read_foreign(lines(aiperf, tmp_path)).trials[0]
    assert after.ttft_p50_s == pytest.approx(before.ttft_p50_s)
    assert after.itl_p50_s == pytest.approx(before.itl_p50_s)


def test_without_chunks_the_span_to_the_last_token_is_used(tmp_path: Path, aiperf: Records) -> None:
    for record in aiperf:
        record["metrics"].pop("inter_chunk_latency", None)
    trial = read_foreign(lines(aiperf, tmp_path)).trials[0]
    assert 0.005 < (trial.itl_p50_s or 0) < 0.006
    for record in aiperf:
        record["metrics"].pop("request_latency", None)
    trial = read_foreign(lines(aiperf, tmp_path)).trials[0]
    assert trial.itl_p50_s is None
    assert trial.ttft_p50_s is not None


def test_unknown_token_counts_stay_unknown(tmp_path: Path, aiperf: Records) -> None:
    for record in aiperf:
        for name in ("output_sequence_length", "output_token_count", "input_sequence_length"):
            record["metrics"].pop(name, None)
    imported = read_foreign(lines(aiperf, tmp_path))
    [trial] = imported.trials
    assert trial.output_tokens == trial.input_tokens is None
    assert trial.output_tokens_per_s is None
    assert trial.itl_p50_s is None
    assert trial.completed == 9


def test_a_lost_line_shows_against_the_summary_and_in_the_numbers(
    tmp_path: Path, fixtures: Path, aiperf: Records
) -> None:
    kept = [each for each in aiperf if each["metadata"].get("request_num") != 4]
    with pytest.raises(InputError, match="holds 9 requests, the summary beside it counts 10"):
        read_foreign(lines(kept, tmp_path, summary=summary_of(fixtures)))
    (tmp_path / "profile_export_aiperf.json").unlink()
    [trial] = read_foreign(lines(kept, tmp_path)).trials
    assert any("1 request number" in reason for reason in trial.invalid_reasons)


def test_the_summary_alone_is_refused(fixtures: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(fixtures / "aiperf" / "profile_export_aiperf.json", tmp_path))
    for given in (path, tmp_path):
        with pytest.raises(InputError, match=r"profile_export\.jsonl"):
            read_foreign(given)


def test_an_unknown_schema_of_the_summary_is_refused(tmp_path: Path, fixtures: Path, aiperf: Records) -> None:
    with pytest.raises(InputError, match=r"1\.x is known") as error:
        read_foreign(lines(aiperf, tmp_path, summary={**summary_of(fixtures), "schema_version": "2.0"}))
    assert error.value.field == "schema_version"


DAMAGE: list[tuple[str, Any, str]] = [
    ("metadata.request_start_ns", None, "missing"),
    ("metadata.request_start_ns", -5, "outside of 0"),
    ("metadata.request_end_ns", 1_759_813_206_000_000_000, "times out of order"),
    ("metadata.request_end_ns", "soon", "a number"),
    ("metadata.was_cancelled", "no", "true or false"),
    ("metadata.benchmark_phase", 7, "a text"),
    ("metrics.time_to_first_token.value", float("nan"), "NaN"),
    ("metrics.time_to_first_token.unit", "fortnights", "no unit of time"),
    ("metrics.time_to_first_token", 3, "an object"),
    ("metrics.inter_chunk_latency.value[2]", -1.0, "less than 0"),
    ("metrics.inter_chunk_latency", {"value": [900.0], "unit": "ms"}, "after request_end_ns"),
    ("metrics.output_sequence_length.value", 8.5, "whole number"),
    ("error", 12, "an object"),
]


@pytest.mark.parametrize(("field", "value", "says"), DAMAGE, ids=[f"{field}-{says}" for field, _, says in DAMAGE])
def test_damage_is_named_with_line_and_field(
    tmp_path: Path, aiperf: Records, field: str, value: Any, says: str
) -> None:
    here: Any = aiperf[5]
    *way, last = field.replace("[2]", ".2").split(".")
    for name in way:
        here = here[name]
    here[int(last) if last.isdigit() else last] = value
    with pytest.raises(InputError, match=says) as error:
        read_foreign(lines(aiperf, tmp_path))
    assert (error.value.line, error.value.field) == (6, field)


def test_a_request_twice_is_refused(tmp_path: Path, aiperf: Records) -> None:
    with pytest.raises(InputError, match="also that of line 3") as error:
        read_foreign(lines([*aiperf, aiperf[2]], tmp_path))
    assert (error.value.line, error.value.field) == (12, "metadata.x_request_id")


def test_a_line_cut_in_the_middle_is_named(tmp_path: Path, aiperf: Records) -> None:
    path = lines(aiperf, tmp_path)
    text = path.read_text().splitlines()
    text[4] = text[4][:200]
    path.write_text("\n".join(text))
    with pytest.raises(InputError) as error:
        read_foreign(path)
    assert error.value.line == 5
    path.write_text("\n".join(text[:4])[:-30])
    with pytest.raises(InputError, match="ends in the middle") as error:
        read_foreign(path)
    assert error.value.line == 4


def test_a_configuration_of_phases_tells_rate_and_model(tmp_path: Path, fixtures: Path, aiperf: Records) -> None:
    summary = summary_of(fixtures)
    for name in ("input_config", "config", "run_info"):
        summary.pop(name, None)
    summary["input_config"] = {
        "models": {"items": [{"name": "org/tiny-1b"}]},
        "phases": [{"name": "warmup", "concurrency": 1}, {"name": "profiling", "type": "poisson", "rate": 25}],
    }
    imported = read_foreign(lines(aiperf, tmp_path, summary=summary))
    assert imported.trials[0].load_point == "aiperf@r25"
    assert imported.arms[0].arm == "tiny-1b"
