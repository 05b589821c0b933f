"""`vllm bench serve`: files that vLLM 0.32 itself wrote against the fake engine, and older and damaged ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import InputError
from steelyard.importers import Asked, read_foreign

Write = Callable[..., Path]


def test_figures_are_those_vllm_printed(fixtures: Path, vllm: dict[str, Any]) -> None:
    imported = read_foreign(fixtures / "vllm_rate.json")
    [trial] = imported.trials
    assert (trial.requests, trial.completed, trial.failed) == (6, 6, 0)
    assert trial.load_point == "vllm-bench@r40"
    assert trial.output_tokens == vllm["total_output_tokens"]
    assert trial.input_tokens == vllm["total_input_tokens"]
    # vLLM's TPOT leaves the first token out, as our ITL does, and its TTFT starts when it sent.
    assert trial.itl_p50_s == pytest.approx(vllm["median_tpot_ms"] / 1000, rel=1e-6)
    queue = max(vllm["queue_times"])
    assert 0 < (trial.ttft_p50_s or 0) - vllm["median_ttft_ms"] / 1000 <= queue
    assert trial.lateness_p95_s == pytest.approx(queue)
    assert trial.ttft_p95_s is None, "six requests carry no 95th percentile"
    assert trial.duration_s < vllm["duration"], "from the first request to the last end, not the whole benchmark"


def test_requests_are_placed_in_the_trial(fixtures: Path, vllm: dict[str, Any]) -> None:
    requests = read_foreign(fixtures / "vllm_rate.json").requests
    for n, row in enumerate(requests):
        assert row.request_index == n
        assert row.sent_s is not None
        assert row.first_token_s is not None
        assert row.end_s is not None
        assert row.first_token_s - row.sent_s == pytest.approx(vllm["ttfts"][n])
        assert row.end_s - row.sent_s == pytest.approx(vllm["latencies"][n])
        assert row.sent_s - row.scheduled_s == pytest.approx(vllm["queue_times"][n], abs=1e-9)
        assert len(row.token_times_s) == 1 + len(vllm["itls"][n])
    assert requests[0].scheduled_s == 0


def test_waiting_for_a_slot_is_no_latency_in_a_closed_loop(fixtures: Path) -> None:
    first = read_foreign(fixtures / "vllm_appended.json").trials[0]
    assert first.load_point == "vllm-bench@c2"
    assert first.lateness_p95_s is None
    assert (first.e2e_p50_s or 1) < 0.02, "0.025 s in the queue would show"


def test_appended_results_are_trials_and_a_lost_request_is_failed(fixtures: Path) -> None:
    imported = read_foreign(fixtures / "vllm_appended.json")
    assert [trial.load_point for trial in imported.trials] == ["vllm-bench@c2", "vllm-bench@c3"]
    assert [trial.failed for trial in imported.trials] == [0, 1]
    [lost] = [row for row in imported.requests if row.status != "ok"]
    assert lost.status == "broken_stream"
    assert lost.error is not None
    assert lost.error.startswith("aiohttp.client_exceptions.ClientPayloadError")
    assert lost.end_s is None
    assert lost.output_tokens is None
    assert len(imported.arms) == 1


def test_the_same_load_twice_is_two_trials(written: Write, vllm: dict[str, Any]) -> None:
    text = json.dumps(vllm) + "\n" + json.dumps({**vllm, "date": "20261122-030000"})
    trials = read_foreign(written(text)).trials
    assert [trial.block for trial in trials] == [0, 1]
    assert len({trial.trial_id for trial in trials}) == 2


def test_labels_are_arms(written: Write, vllm: dict[str, Any]) -> None:
    path = written(json.dumps({**vllm, "label": "bf16"}) + "\n" + json.dumps({**vllm, "label": "fp8"}))
    assert [row.arm for row in read_foreign(path).arms] == ["bf16", "fp8"]
    other = written(json.dumps(vllm) + "\n" + json.dumps({**vllm, "model_id": "other"}))
    with pytest.raises(InputError, match="each model by itself") as error:
        read_foreign(other, Asked(arm="mine"))
    assert (error.value.line, error.value.field) == (2, "model_id")


def test_an_older_file_without_start_times_keeps_its_figures(written: Write, vllm: dict[str, Any]) -> None:
    for name in ("start_times", "latencies", "queue_times", "failed"):
        del vllm[name]
    imported = read_foreign(written(vllm))
    [trial] = imported.trials
    assert trial.requests == 6
    assert imported.requests == []
    assert any("start_times" in reason for reason in trial.invalid_reasons)
    assert trial.duration_s == vllm["duration"]
    assert trial.ttft_p50_s == pytest.approx(vllm["median_ttft_ms"] / 1000)
    assert trial.lateness_p95_s is None


@pytest.mark.parametrize(("missing", "unknown"), [("itls", "itl_p50_s"), ("queue_times", "lateness_p95_s")])
def test_what_the_file_does_not_give_is_unknown(
    written: Write, vllm: dict[str, Any], missing: str, unknown: str
) -> None:
    del vllm[missing]
    [trial] = read_foreign(written(vllm)).trials
    assert getattr(trial, unknown) is None
    assert any(missing in reason for reason in trial.invalid_reasons)


def test_without_latencies_and_gaps_the_end_is_unknown(written: Write, vllm: dict[str, Any]) -> None:
    del vllm["latencies"], vllm["itls"]
    imported = read_foreign(written(vllm))
    assert {row.end_s for row in imported.requests} == {None}
    assert imported.trials[0].e2e_p50_s is None
    assert imported.trials[0].duration_s == pytest.approx(vllm["duration"])


def test_an_empty_answer_is_a_failed_request(written: Write, vllm: dict[str, Any]) -> None:
    vllm["output_lens"][2] = 0
    vllm["total_output_tokens"] -= 6
    vllm["ttfts"][2] = 0.0
    vllm["itls"][2] = []
    imported = read_foreign(written(vllm))
    assert imported.trials[0].failed == 1
    assert imported.requests[2].status == "no_tokens"
    assert any("brought no token" in reason for reason in imported.trials[0].invalid_reasons)


def test_a_rate_of_inf_without_a_limit_is_the_number_of_requests(written: Write, vllm: dict[str, Any]) -> None:
    [trial] = read_foreign(written({**vllm, "request_rate": "inf"})).trials
    assert trial.load_point == "vllm-bench@c6"


DAMAGE: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("ttfts[2]", lambda run: run["ttfts"].__setitem__(2, float("nan")), "NaN"),
    ("ttfts[2]", lambda run: run["ttfts"].__setitem__(2, float("inf")), "infinite"),
    ("ttfts[1]", lambda run: run["ttfts"].__setitem__(1, -0.5), "less than 0"),
    ("ttfts[1]", lambda run: run["ttfts"].__setitem__(1, "0.5"), 'the text "0.5"'),
    ("ttfts[1]", lambda run: run["ttfts"].__setitem__(1, None), "is null"),
    ("itls[3][1]", lambda run: run["itls"][3].__setitem__(1, True), "is true"),
    ("itls[3]", lambda run: run["itls"].__setitem__(3, 0.1), "a list"),
    ("output_lens[0]", lambda run: run["output_lens"].__setitem__(0, 6.5), "whole number"),
    ("output_lens[0]", lambda run: run["output_lens"].__setitem__(0, 10**400), "infinite"),
    ("latencies[4]", lambda run: run["latencies"].__setitem__(4, 0.0001), "out of order"),
    ("start_times[5]", lambda run: run["start_times"].__setitem__(5, {}), "an object"),
    ("errors[0]", lambda run: run["errors"].__setitem__(0, 503), "a text"),
    ("ttfts", lambda run: run["ttfts"].pop(), "5 entries, output_lens has 6"),
    ("errors", lambda run: run["errors"].append(""), "7 entries"),
    ("completed", lambda run: run.update(completed=5), "say 5 requests"),
    ("total_output_tokens", lambda run: run.update(total_output_tokens=35), "sum up to 36"),
    ("request_rate", lambda run: run.update(request_rate=0), "is 0"),
    ("request_rate", lambda run: run.update(request_rate="fast"), "a number"),
    ("max_concurrency", lambda run: run.update(max_concurrency=0), "outside of 1"),
    ("date", lambda run: run.update(date="yesterday"), "no date"),
    ("input_lens", lambda run: run.update(input_lens={}), "a list"),
]


@pytest.mark.parametrize(("field", "damage", "says"), DAMAGE, ids=[f"{field}-{says}" for field, _, says in DAMAGE])
def test_damage_is_named_with_line_and_field(
    written: Write, vllm: dict[str, Any], field: str, damage: Callable[[dict[str, Any]], Any], says: str
) -> None:
    run = copy.deepcopy(vllm)
    damage(run)
    path = written(run)
    with pytest.raises(InputError) as error:
        read_foreign(path)
    assert error.value.field == field
    assert says in error.value.message
    assert error.value.line == line_of(path.read_text(), field)


def line_of(text: str, field: str) -> int:
    """By counting, for a file with one value a line."""
    name, *indices = field.replace("]", "").split("[")
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(f' "{name}"'))
    for depth, index in enumerate(map(int, indices), start=2):
        # An entry of a list is indented one more than the list; what lies deeper is part of it.
        entries = [
            n for n in range(at + 1, len(lines)) if lines[n].startswith(" " * depth) and lines[n][depth] not in " ]}"
        ]
        at = entries[index]
    return at + 1


def test_second_result_broken_names_its_own_line(written: Write, vllm: dict[str, Any]) -> None:
    broken = copy.deepcopy(vllm)
    broken["ttfts"][0] = -1
    with pytest.raises(InputError) as error:
        read_foreign(written(json.dumps(vllm) + "\n" + json.dumps(broken)))
    assert (error.value.line, error.value.field) == (2, "ttfts[0]")


def test_a_summary_alone_is_refused_with_the_flag_to_pass(fixtures: Path) -> None:
    with pytest.raises(InputError, match="--save-detailed"):
        read_foreign(fixtures / "vllm_summary_only.json")


def test_embeddings_are_refused(written: Write, vllm: dict[str, Any]) -> None:
    kept = {name: vllm[name] for name in ("duration", "completed", "request_throughput", "input_lens", "latencies")}
    with pytest.raises(InputError, match="embeddings"):
        read_foreign(written({**kept, "total_input_sequences": 6}))


def test_what_is_no_seed_is_not_one(fixtures: Path) -> None:
    study = read_foreign(fixtures / "vllm_rate.json").study
    assert study.seed is None
    assert study.cpu_count is None
    assert study.cpu_model is None


def test_a_ramp_is_an_open_loop_and_no_steady_load(written: Write, vllm: dict[str, Any]) -> None:
    ramp = {"ramp_up_strategy": "linear", "ramp_up_start_rps": 1, "ramp_up_end_rps": 20}
    imported = read_foreign(written({**vllm, "request_rate": "inf", **ramp}))
    (trial,) = imported.trials
    assert trial.load_point == "vllm-bench@ramp1-20"
    assert trial.lateness_p95_s == pytest.approx(max(vllm["queue_times"]))
    assert "ramped up" in trial.invalid_reasons[0] + " ".join(imported.notes) + " ".join(trial.invalid_reasons)


def test_the_last_line_of_a_traceback_says_how_a_request_failed(written: Write, vllm: dict[str, Any]) -> None:
    frames = "Traceback:\n  await self._create_connection(req, traces, timeout)\n"
    for said, status in (
        ("ClientConnectorError: Cannot connect to host 127.0.0.1:8000", "refused"),
        ("Never received a valid chunk to calculate TTFT.", "no_tokens"),
        ("TimeoutError", "timeout"),
    ):
        lost = copy.deepcopy(vllm)
        lost["errors"][0], lost["output_lens"][0], lost["ttfts"][0], lost["itls"][0] = frames + said, 0, 0.0, []
        lost["completed"], lost["failed"] = lost["completed"] - 1, 1
        lost["total_output_tokens"] -= vllm["output_lens"][0]
        (row,) = [row for row in read_foreign(written(lost)).requests if row.status != "ok"]
        assert (row.status, row.error) == (status, said)
