"""Trying again is paid for: later attempts of a lever may err less often, and all together no oftener than one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from evidence_rows import POLICY, RUN, arm_row, good_evidence, samples, suite_row, trial
from recorded_run import SETTINGS

from assets.attempts import attempt_problems, numbered
from steelyard.gates.comparing import Comparing
from steelyard.gates.evaluate import evaluate
from steelyard.gates.policy import Gate, Policy
from steelyard.gates.verdict import verdicts
from steelyard.records import ArmRow, StudyRow, VerdictRow
from warehouse.store import Store

SPENDING = POLICY.model_copy(update={"attempts": "spend"})
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def test_all_attempts_together_spend_what_one_may() -> None:
    spent = sum(SPENDING.share(attempt) for attempt in range(1, 100_000))
    assert spent == pytest.approx(1, abs=1e-4)
    assert spent < 1
    assert POLICY.share(7) == 1


def test_a_gate_may_ask_for_more_and_its_metric_is_compared_so() -> None:
    strict = Gate(name="strict", category="safety", metric="score", margin=0.02, confidence=0.99)
    policy = Policy(policy="p", gates=(*(gate for gate in POLICY.gates if gate.category != "safety"), strict))
    assert policy.confidence_of("score") == 0.99
    assert policy.confidence_of("output_tokens_per_s") == 0.95
    rows = Comparing(RUN, policy, 3, [arm_row("fast")]).speed([trial(arm, 0) for arm in ("fast", "baseline")])
    assert {row.confidence for row in rows} == {0.95}
    scores = [*samples("baseline", [1.0] * 400), *samples("fast", [1.0] * 400)]
    suites = [suite_row(arm, documents=400) for arm in ("baseline", "fast")]
    (compared,) = Comparing(RUN, policy, 3, [arm_row("fast")]).quality(scores, suites)
    assert compared.confidence == 0.99


def test_intervals_grow_with_attempts_and_what_was_made_for_an_earlier_one_is_no_evidence() -> None:
    scores = [*samples("baseline", [1.0] * 400), *samples("fast", [1.0] * 400)]
    suites = [suite_row(arm, documents=400) for arm in ("baseline", "fast")]
    lows = []
    for attempt in (1, 2, 5):
        (row,) = Comparing(RUN, SPENDING, 3, [arm_row("fast", attempt=attempt)]).quality(scores, suites)
        assert row.confidence == pytest.approx(1 - 0.05 * 6 / (math.pi * attempt) ** 2)
        lows.append(row.low or 0.0)
    assert lows == sorted(lows, reverse=True)
    (first,) = Comparing(RUN, SPENDING, 3, [arm_row("fast")]).quality(scores, suites)
    asked: dict[str, Any] = {
        "run_id": RUN,
        "arm": "fast",
        "claim": None,
        "load_points": [],
        "suites": [("facts", "accuracy")],
    }
    judged = {
        attempt: next(row for row in evaluate(SPENDING, [first], attempt=attempt, **asked) if row.scope == "facts")
        for attempt in (1, 2)
    }
    assert judged[1].outcome == "pass"
    assert judged[2].outcome == "inconclusive"
    assert "the policy asks for 99.24" in judged[2].reason


def test_the_verdict_says_what_was_spent() -> None:
    arms = [arm_row("baseline", "baseline"), arm_row("fast", attempt=2)]
    gates = evaluate(
        POLICY, good_evidence(), run_id=RUN, arm="fast", claim="chat@c8", load_points=["chat@c8"], suites=()
    )
    for policy, told in ((SPENDING, True), (POLICY, False)):
        (row,) = verdicts(RUN, policy, "p", arms, gates, NOW)
        assert any("attempt 2 of this candidate on this baseline" in reason for reason in row.reasons) is told


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "warehouse.duckdb") as opened:
        yield opened


TONIGHT = NOW + timedelta(days=9)


def run_row(run: str, started: datetime, status: str = "complete") -> StudyRow:
    return StudyRow(**{**SETTINGS, "run_id": run, "started_at": started, "status": status})


def tried(
    store: Store, run: str, verdict: str | None, *, status: str = "served", run_status: str = "complete",
    measured: bool = True, baseline: str = "digest-baseline", started: datetime = NOW, **values: Any,
) -> None:  # fmt: skip
    """A night with one candidate; `values` change its arm."""
    arm = dataclasses.replace(arm_row(values.pop("arm", "fast"), **values), run_id=run, status=status)
    reference = dataclasses.replace(arm_row("baseline", "baseline"), run_id=run, deployment_digest=baseline)
    store.write([run_row(run, started, run_status)], [arm, reference])
    if measured:
        store.write([dataclasses.replace(suite_row(arm.arm), run_id=run)])
    if verdict is not None:
        told = VerdictRow(
            run_id=run, arm=arm.arm, role="candidate", verdict=verdict, reasons=["r"], deployment_digest="d",
            baseline_digest=baseline, policy_digest="p", decided_at=NOW,
        )  # fmt: skip
        store.write([told])


def numbers(store: Store, *rows: ArmRow) -> dict[str, int | None]:
    store.write([run_row(RUN, TONIGHT)])
    return {row.arm: row.attempt for row in numbered(store, [arm_row("baseline", "baseline"), *rows])}


def test_the_first_try_is_the_first_and_controls_have_none(store: Store) -> None:
    found = numbers(store, arm_row("fast"), arm_row("again", "identity"), arm_row("down", status="failed"))
    assert found == {"baseline": None, "fast": 1, "again": None, "down": None}


@pytest.mark.parametrize(
    ("night", "counts"),
    [
        ({"verdict": "inconclusive"}, True),
        ({"verdict": "reject"}, True),
        ({"verdict": "reject", "arm": "renamed", "deployment_digest": "digest-fast"}, True),
        ({"verdict": "reject", "lever": "attention", "claim": "chat@r4"}, True),
        # Whoever stops a night that looks bad has seen it all the same.
        ({"verdict": None, "run_status": "failed"}, True),
        ({"verdict": None, "run_status": "running"}, True),
        ({"verdict": None, "run_status": "running", "measured": False}, False),
        ({"verdict": "promote"}, False),
        ({"verdict": "void", "run_status": "void"}, False),
        ({"verdict": "inconclusive", "status": "failed"}, False),
        ({"verdict": "reject", "baseline": "another"}, False),
        ({"verdict": "reject", "arm": "another"}, False),
        ({"verdict": "reject", "started": TONIGHT + timedelta(days=1)}, False),
    ],
)
def test_what_counts_as_an_earlier_try(store: Store, night: dict[str, Any], counts: bool) -> None:
    tried(store, "night-1", **night)
    assert numbers(store, arm_row("fast"))["fast"] == 1 + counts


def test_tries_add_up_and_a_number_stays(store: Store) -> None:
    for night in range(3):
        tried(store, f"night-{night}", "inconclusive")
    assert numbers(store, arm_row("fast"), arm_row("other"))["fast"] == 4
    assert numbers(store, arm_row("fast", attempt=2))["fast"] == 2
    assert attempt_problems(store, [arm_row("baseline", "baseline"), arm_row("fast", attempt=4)]) == []
    (problem,) = attempt_problems(store, [arm_row("baseline", "baseline"), arm_row("fast", attempt=1)])
    assert problem == "fast is stored as attempt 1, and the warehouse holds 4"
