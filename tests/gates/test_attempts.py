"""Trying again is paid for: later attempts of a lever may err less often, and all together no oftener than one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from evidence_rows import POLICY, RUN, arm_row, good_evidence, samples, suite_row, trial

from assets.attempts import numbered
from steelyard.gates.comparing import Comparing
from steelyard.gates.evaluate import evaluate
from steelyard.gates.policy import Gate, Policy
from steelyard.gates.verdict import verdicts
from steelyard.records import ArmRow, VerdictRow
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
        assert any("attempt 2 of lever cache at chat@c8" in reason for reason in row.reasons) is told


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "warehouse.duckdb") as opened:
        yield opened


def judged_before(store: Store, run: str, verdict: str, *, status: str = "served", **values: Any) -> None:
    arm = dataclasses.replace(arm_row("other", **values), run_id=run, status=status)
    told = VerdictRow(
        run_id=run, arm="other", role="candidate", verdict=verdict, reasons=["r"], deployment_digest="d",
        baseline_digest=values.get("baseline", "digest-baseline"), policy_digest="p", decided_at=NOW,
    )  # fmt: skip
    store.write([arm], [told])


def numbers(store: Store, *rows: ArmRow) -> dict[str, int | None]:
    return {row.arm: row.attempt for row in numbered(store, [arm_row("baseline", "baseline"), *rows])}


def test_only_earlier_verdicts_on_the_same_lever_claim_and_baseline_count(store: Store) -> None:
    assert numbers(store, arm_row("fast")) == {"baseline": None, "fast": 1}
    judged_before(store, "night-1", "inconclusive")
    judged_before(store, "night-2", "reject")
    judged_before(store, "night-3", "promote")
    judged_before(store, "night-4", "void")
    judged_before(store, "night-5", "inconclusive", status="failed")
    judged_before(store, "night-6", "reject", claim="chat@r4")
    judged_before(store, "night-7", "reject", lever="attention")
    assert numbers(store, arm_row("fast"), arm_row("again", "identity")) == {"baseline": None, "fast": 3, "again": None}


def test_arms_of_one_run_are_attempts_too_and_numbers_stay(store: Store) -> None:
    found = numbers(
        store, arm_row("one"), arm_row("down", status="failed"), arm_row("two"), arm_row("far", claim="chat@r4")
    )
    assert found == {"baseline": None, "one": 1, "down": 2, "two": 2, "far": 1}
    assert numbers(store, arm_row("one", attempt=4), arm_row("two")) == {"baseline": None, "one": 4, "two": 2}
