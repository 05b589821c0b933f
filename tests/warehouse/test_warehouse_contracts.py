from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from profile_damages import PROFILE_DAMAGES
from search_rows import SEARCH_DAMAGES

from steelyard.errors import InputError
from warehouse.contracts import CONTRACTS, frame_of, validate
from warehouse.store import Store

BAD_DIGEST = "F" * 64


@pytest.mark.parametrize("table", CONTRACTS)
def test_a_sound_table_passes_from_the_warehouse_and_from_rows(filled: Store, rows: Any, table: str) -> None:
    for frame in (filled.query(f"SELECT * FROM {table}"), frame_of(rows.of(CONTRACTS[table].row_class))):
        result = validate(table, frame)
        assert result.failures == []
        assert result.success
        assert (result.table, result.checked) == (table, len(CONTRACTS[table].rules))


@pytest.mark.parametrize("table", CONTRACTS)
def test_an_empty_table_fails(store: Store, table: str) -> None:
    result = validate(table, store.query(f"SELECT * FROM {table}"))
    assert not result.success
    assert result.failures == [f"{table}: it has no row."]


Damage = tuple[str, dict[str, Any], str]

# Each damages one row of a sound table and says what must be complained about. Together they break every rule.
DAMAGES: list[Damage] = [
    ("arms", {"role": "boss"}, "arms.role: expected one of baseline"),
    ("arms", {"lever": "magic"}, "arms.lever: expected one of"),
    ("arms", {"engine": "steam"}, "arms.engine: expected one of"),
    ("arms", {"status": "resting"}, "arms.status: expected one of"),
    *(("arms", {f"{name}_digest": BAD_DIGEST}, f"arms.{name}_digest: expected 64 hex")
      for name in ("deployment", "weights", "tokenizer", "template")),
    ("arms", {"attempt": 0}, "arms.attempt: expected at least 1"),
    ("arms", {"start_s": 0.0}, "arms.start_s: expected more than 0"),
    ("arms", {"deployment_digest": None}, "arms.deployment_digest: expected a deployment digest for an arm that"),
    ("arms", {"resolved_json": None}, "arms.resolved_json: expected the resolved"),
    ("arms", {"status": "failed"}, "arms.error: expected the reason"),
    ("arms", {"role": "candidate"}, "arms.lever: expected a lever"),
    ("arms", {"role": "candidate"}, "arms.claim: expected a claimed"),
    ("trials", {"deployment_digest": "abc"}, "trials.deployment_digest: expected 64 hex"),
    ("trials", {"load_point": "chat at 8"}, "trials.load_point: expected a load point"),
    *(("trials", {name: -1}, f"trials.{name}: expected at least 0") for name in (
        "block", "position", "completed", "failed", "input_tokens", "output_tokens", "cached_tokens",
        "output_tokens_per_s", "requests_per_s", "goodput_per_s", "slo_tokens_per_s", "client_cpu_share",
        "engine_output_tokens", "itl_p50_s")),
    ("trials", {"requests": 0}, "trials.requests: expected at least 1"),
    *(("trials", {name: 0.0}, f"trials.{name}: expected more than 0")
      for name in ("duration_s", "ttft_p50_s", "e2e_p50_s")),
    ("trials", {"slo_share": 1.5}, "trials.slo_share: expected a value from 0 to 1"),
    ("trials", {"itl_drift_p": 1.5}, "trials.itl_drift_p: expected a value from 0 to 1"),
    ("trials", {"lateness_p95_s": -0.5}, "trials.lateness_p95_s: expected no sending before its time"),
    *(("trials", {f"{name}_p95_s": 1e-9}, f"trials.{name}_p95_s: expected it not to be less than {name}_p50_s")
      for name in ("ttft", "itl", "e2e")),
    *(("trials", {f"{name}_p95_s": 1.0, f"{name}_p95_low_s": 2.0},
       f"trials.{name}_p95_s: expected it not to be less than {name}_p95_low_s") for name in ("ttft", "itl", "e2e")),
    *(("trials", {f"{name}_p95_s": 2.0, f"{name}_p95_high_s": 1.0},
       f"trials.{name}_p95_high_s: expected it not to be less than {name}_p95_s") for name in ("ttft", "itl", "e2e")),
    ("trials", {"e2e_p50_s": 1e-9}, "trials.e2e_p50_s: expected it not to be less than ttft_p50_s"),
    ("trials", {"goodput_per_s": 1e9}, "trials.requests_per_s: expected it not to be less than goodput_per_s"),
    ("trials", {"slo_tokens_per_s": 1e9}, "trials.output_tokens_per_s: expected it not to be less than slo_tok"),
    *(("trials", {f"{name}_p95_s": 9.0}, f"trials.{name}_p95_s: expected no 95th percentile of fewer than 72")
      for name in ("ttft", "itl", "e2e")),
    ("trials", {"failed": 3}, "completed and failed to add up to requests"),
    ("trials", {"valid": False}, "reasons where a trial is not valid"),
    ("trials", {"invalid_reasons": ["late"]}, "reasons where a trial is not valid"),
    ("requests", {"deployment_digest": "abc"}, "requests.deployment_digest: expected 64 hex"),
    ("requests", {"prompt_hash": "abc"}, "requests.prompt_hash: expected 64 hex"),
    *(("requests", {name: -1}, f"requests.{name}: expected at least 0") for name in (
        "request_index", "scheduled_s", "sent_s", "first_token_s", "end_s", "input_tokens", "output_tokens")),
    ("requests", {"prompt_tokens": 0}, "requests.prompt_tokens: expected at least 1"),
    ("requests", {"sent_s": 99.0}, "requests.first_token_s: expected it not to be less than sent_s"),
    ("requests", {"first_token_s": 99.0}, "requests.end_s: expected it not to be less than first_token_s"),
    ("requests", {"sent_s": 99.0}, "requests.end_s: expected it not to be less than sent_s"),
    ("requests", {"status": "lost"}, "requests.status: expected one of ok"),
    *(("requests", {name: None}, f"requests.{name}: expected a value for a request that ended well")
      for name in ("sent_s", "first_token_s", "end_s", "output_tokens")),
    ("requests", {"error": "oh"}, "requests.error: expected no error for a request that ended well"),
    ("requests", {"status": "timeout"}, "requests.error: expected what went wrong"),
    ("requests", {"status": "timeout"}, "expected no met SLO for a request that did not end well"),
    ("requests", {"token_times_s": [1.0, 0.5]}, "token times in order"),
    ("requests", {"token_times_s": [0.0, 0.1]}, "token times in order"),
    ("requests", {"token_times_s": [0.2, 99.0]}, "token times in order"),
    ("engine_metrics", {"deployment_digest": ""}, "engine_metrics.deployment_digest: expected 64 hex"),
    ("engine_metrics", {"metric": 'a{b="c"}'}, "engine_metrics.metric: expected a Prometheus name"),
    ("engine_metrics", {"kind": "histogram"}, "engine_metrics.kind: expected one of counter, gauge"),
    ("engine_metrics", {"value": -1.0}, "engine_metrics.value: expected a counter that never runs backwards"),
    ("probes", {"deployment_digest": "abc"}, "probes.deployment_digest: expected 64 hex"),
    ("probes", {"scope": "chat@c8"}, "probes.scope: expected a capacity such as chat@slo"),
    *(("probes", {name: -1}, f"probes.{name}: expected at least 0") for name in (
        "block", "number", "position", "failed", "met", "output_tokens_per_s", "client_cpu_share")),
    ("probes", {"requests": 0}, "probes.requests: expected at least 1"),
    *(("probes", {name: 0.0}, f"probes.{name}: expected more than 0") for name in ("rate", "duration_s")),
    ("probes", {"lateness_p95_s": -0.5}, "probes.lateness_p95_s: expected no sending before its time"),
    ("probes", {"met": 9999}, "probes.requests: expected it not to be less than met"),
    ("probes", {"e2e_s": [0.1]}, "expected a due time, a TTFT, an ITL and a latency for each request"),
    ("probes", {"valid": False}, "expected reasons where a probe is not valid"),
    ("probes", {"number": 7}, "expected probes of a search numbered from 0"),
    ("suites", {"deployment_digest": "abc"}, "suites.deployment_digest: expected 64 hex"),
    ("suites", {"documents_digest": "abc"}, "suites.documents_digest: expected 64 hex"),
    ("suites", {"documents_digest": "0" * 64}, "the same documents in every arm that was asked so many"),
    *(("suites", {name: -1}, f"suites.{name}: expected at least 0") for name in ("reused", "rechecked", "changed")),
    ("suites", {"reused": 99}, "suites.documents: expected it not to be less than reused"),
    ("suites", {"rechecked": 1, "changed": 2}, "suites.rechecked: expected it not to be less than changed"),
    ("suites", {"declared": 0}, "suites.declared: expected at least 1"),
    ("suites", {"declared": 1}, "suites.declared: expected it not to be less than documents"),
    ("samples", {"doc_hash": "0" * 64}, "the same document at the same place in every arm of a run"),
    ("samples", {"position": -1}, "samples.position: expected at least 0"),
    ("suites", {"category": "fun"}, "suites.category: expected one of accuracy"),
    ("suites", {"route": "telepathy"}, "suites.route: expected one of chat, loglikelihood, mixed"),
    ("suites", {"route": "completions"}, "suites.route: expected one of chat, loglikelihood, mixed"),
    ("suites", {"documents": 0}, "suites.documents: expected at least 1"),
    ("suites", {"answered": -1}, "suites.answered: expected at least 0"),
    ("suites", {"duration_s": -1.0}, "suites.duration_s: expected at least 0"),
    ("suites", {"mean_score": 1.1}, "suites.mean_score: expected a value from 0 to 1"),
    ("suites", {"answered": 99}, "suites.documents: expected it not to be less than answered"),
    ("suites", {"mean_score": None}, "suites.mean_score: expected a mean score where documents"),
    ("suites", {"answered": 0}, "suites.mean_score: expected no mean score where nothing"),
    *(("suites", {name: -1}, f"suites.{name}: expected at least 0") for name in ("empty", "truncated", "duplicates")),
    *(("suites", {name: 99}, f"suites.documents: expected it not to be less than {name}")
      for name in ("empty", "truncated")),
    *(("samples", {name: "abc"}, f"samples.{name}: expected 64 hex")
      for name in ("deployment_digest", "doc_hash", "prompt_hash")),
    ("samples", {"score": 1.5}, "samples.score: expected a value from 0 to 1"),
    ("samples", {"score": -0.1}, "samples.score: expected a value from 0 to 1"),
    ("samples", {"score": None}, "samples.error: expected a reason where there is no score"),
    ("samples", {"error": "oh"}, "samples.error: expected no error where there is a score"),
    ("samples", {"judge_safe": 1.5}, "samples.judge_safe: expected a value from 0 to 1"),
    ("samples", {"judge_answer": "x" * 201}, "samples.judge_answer: expected at most"),
    *(("samples", {name: "x" * 2001}, f"samples.{name}: expected at most") for name in ("prompt", "target", "answer")),
    *(("divergences", {name: "abc"}, f"divergences.{name}: expected 64 hex")
      for name in ("deployment_digest", "baseline_digest", "doc_hash", "prompt_hash", "answer_hash")),
    *(("divergences", {name: -1}, f"divergences.{name}: expected at least 0")
      for name in ("tokens", "bounded", "kl_nats", "first_divergent_token")),
    ("divergences", {"top_k": 0}, "divergences.top_k: expected at least 1"),
    *(("divergences", {name: 1.5}, f"divergences.{name}: expected a value from 0 to 1")
      for name in ("covered", "top1_agreement")),
    ("divergences", {"kl_nats": 9.0}, "expected a mean divergence that is not above the largest"),
    ("divergences", {"top1_agreement": None}, "expected divergence, agreement and coverage known together"),
    ("divergences", {"first_divergent_token": 0}, "expected a first divergent token only where answers differ"),
    ("divergences", {"same_answer": None}, "divergences.error: expected a reason where something is unknown"),
    ("divergences", {"error": "oh"}, "divergences.error: expected no error where everything is known"),
    *PROFILE_DAMAGES,
    *SEARCH_DAMAGES,
]  # fmt: skip


def damaged(rows: Any, table: str, change: dict[str, Any]) -> pd.DataFrame:
    """A sound table with its first row changed."""
    frame = frame_of(rows.of(CONTRACTS[table].row_class))
    for name, value in change.items():
        frame.at[0, name] = value
    return frame


@pytest.mark.parametrize("table", CONTRACTS)
def test_every_damage_is_found_and_named(rows_of: Callable[..., Any], table: str) -> None:
    """Each damage hits a run of its own, all in one frame: the complaints about that run's rows must hold it."""
    mine = [(change, complaint) for of, change, complaint in DAMAGES if of == table]
    sound = [
        row
        for row in rows_of().of(CONTRACTS[table].row_class)
        if getattr(row, "arm", "baseline") in ("baseline", "again")
    ]
    one = frame_of([row for index, row in enumerate(sound) if index < 3 or getattr(row, "arm", None) == "again"][:6])
    frames = []
    for number, (change, _) in enumerate(mine):
        run = one.assign(run_id=f"run-{number}")
        if "trial_id" in run:
            run["trial_id"] = f"{number}-" + run["trial_id"]
        for name, value in change.items():
            run.at[0, name] = value
        frames.append(run)
    failures = validate(table, pd.concat(frames, ignore_index=True)).failures
    for number, (change, complaint) in enumerate(mine):
        assert any(complaint in failure for failure in failures), (number, change, complaint, failures)


@pytest.mark.parametrize("route", ["chat", "loglikelihood", "mixed"])
def test_every_route_that_suites_are_asked_by_is_sound(rows: Any, route: str) -> None:
    frame = frame_of(rows.suites).assign(route=route)
    assert validate("suites", frame).failures == []


@pytest.mark.parametrize("table", CONTRACTS)
def test_no_rule_goes_untested(table: str) -> None:
    """Every rule of `contract_rules` is broken by a damage above; the general ones are broken below."""
    complaints = [complaint for of, _, complaint in DAMAGES if of == table]
    untested = [
        rule
        for rule in CONTRACTS[table].rules
        if rule.expectation not in ("ExpectTableRowCountToBeBetween", "ExpectColumnValuesToBeInTypeList")
        and not rule.says.startswith(
            ("a value in every row", "each key", "each arm once", "one baseline", "a baseline and")
        )
        and not any(
            re.sub(r"^.*?expected ", "", complaint)[:20] in rule.says
            and (
                "." not in complaint.split(":")[0]
                or complaint.split(":")[0].split(".")[1]
                in (rule.arguments.get("column"), rule.arguments.get("column_A"))
            )
            for complaint in complaints
        )
    ]
    assert untested == []


@pytest.mark.parametrize("table", CONTRACTS)
def test_a_required_value_that_is_missing_is_found(rows: Any, table: str) -> None:
    required = [rule.arguments["column"] for rule in CONTRACTS[table].rules if rule.says == "a value in every row"]
    frame = frame_of(rows.of(CONTRACTS[table].row_class))
    for name in required:
        frame.at[1, name] = None
    found = "\n".join(validate(table, frame).failures)
    for name in required:
        assert f"{table}.{name}: expected a value in every row; 1 of {len(frame)} rows differ" in found


@pytest.mark.parametrize("table", CONTRACTS)
def test_a_value_of_another_type_is_found(rows: Any, table: str) -> None:
    frame = frame_of(rows.of(CONTRACTS[table].row_class))
    names = list(frame)
    for name in names:
        frame.at[1, name] = b"bytes"
    found = "\n".join(validate(table, frame).failures)
    for name in names:
        assert f"{table}.{name}: expected only " in found


@pytest.mark.parametrize("table", CONTRACTS)
def test_a_key_that_stands_twice_is_found(rows: Any, table: str) -> None:
    frame = frame_of(rows.of(CONTRACTS[table].row_class))
    failures = validate(table, pd.concat([frame, frame.head(1)])).failures
    assert any("expected each key" in failure and "2 of" in failure for failure in failures), failures


def test_a_run_without_its_baseline_or_identity_control_is_found(rows: Any) -> None:
    for arm, role in (("baseline", "baseline"), ("again", "identity")):
        frame = frame_of([row for row in rows.arms if row.arm != arm])
        (failure,) = validate("arms", frame).failures
        assert failure == f"arms.role: expected a baseline and an identity control; found none of {role}."


def test_uniqueness_beyond_the_key(rows: Any) -> None:
    failures = validate("trials", damaged(rows, "trials", {"block": 1})).failures
    assert any("each arm once in a block" in failure for failure in failures), failures
    two = frame_of(rows.arms)
    two.at[1, "role"] = "baseline"
    assert any("one baseline in a run" in failure for failure in validate("arms", two).failures)


def test_two_runs_in_one_frame_are_two_runs(rows: Any, rows_of: Callable[..., Any]) -> None:
    other = rows_of("run-2")
    for table in ("arms", "trials", "suites"):
        both = rows.of(CONTRACTS[table].row_class) + other.of(CONTRACTS[table].row_class)
        assert validate(table, frame_of(both)).failures == []


def test_a_failure_is_a_sentence_with_column_expectation_count_and_row(rows: Any) -> None:
    (failure,) = validate("requests", damaged(rows, "requests", {"prompt_tokens": 0})).failures
    first = rows.requests[0]
    assert failure == (
        f"requests.prompt_tokens: expected at least 1; 1 of {len(rows.requests)} rows differ, "
        f"such as trial_id={first.trial_id}, request_index=0 has prompt_tokens 0."
    )


def test_long_percentiles_are_allowed_where_they_are_known(rows: Any) -> None:
    change = {"requests": 72, "completed": 72, "ttft_p95_s": 1.0, "itl_p95_s": 1.0, "e2e_p95_s": 1.0}
    assert validate("trials", damaged(rows, "trials", change)).failures == []


def test_missing_and_unknown_columns_are_named(rows: Any) -> None:
    frame = frame_of(rows.trials).drop(columns="duration_s").assign(extra=1)
    (failure,) = validate("trials", frame).failures
    assert failure.startswith("trials: the frame lacks duration_s and has unknown extra")


def test_only_measured_tables_have_contracts() -> None:
    assert list(CONTRACTS) == [
        "arms", "profiles", "profile_steps", "operators", "ceilings", "rooflines", "opportunities", "trials",
        "requests",
        "engine_metrics", "probes", "suites", "samples", "divergences", "stacks",
    ]  # fmt: skip
    with pytest.raises(InputError, match="verdicts has no contract"):
        validate("verdicts", pd.DataFrame())


def test_a_second_validation_is_fast(filled: Store) -> None:
    frame = pd.concat([filled.query("SELECT * FROM requests")] * 20, ignore_index=True)
    frame["request_index"] = range(len(frame))
    validate("requests", frame)
    started = time.process_time()
    assert validate("requests", frame).success
    assert time.process_time() - started < 3


def test_the_context_sends_nothing(rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    validate("engine_metrics", frame_of(rows.engine_metrics))
