"""Canaries: each must hold; nothing makes up for a broken one, and one that was not asked does not count as held."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from evidence_rows import POLICY, RUN, samples, suite_row

from steelyard.gates.evaluate import evaluate
from steelyard.gates.policy import Gate, Policy
from steelyard.quality_comparisons import compare_quality
from steelyard.records import ComparisonRow, GateRow

CANARY = Gate(name="canaries", category="canary", metric="broken_canaries", at_most=0)


def compared(
    baseline: Sequence[float | None], arm: Sequence[float | None], *, declared: int | None = None, early: bool = True
) -> ComparisonRow:
    rows = [
        dataclasses.replace(row, position=at)
        for side, scores in (("baseline", baseline), ("fast", arm))
        for at, row in enumerate(samples(side, scores, "canaries"))
    ]
    suites = [
        suite_row("baseline", "canaries", "canary", len(baseline), declared=len(baseline)),
        suite_row("fast", "canaries", "canary", len(arm), declared=len(baseline) if declared is None else declared),
    ]
    (row,) = compare_quality(RUN, rows, suites, arms=["fast"], confidence=0.95, stop_early=early)
    return row


def judged(row: ComparisonRow | None) -> GateRow:
    policy = Policy(policy="p", gates=(*POLICY.gates, CANARY))
    rows = evaluate(
        policy, [] if row is None else [row], run_id=RUN, arm="fast", claim="chat@c8", load_points=["chat@c8"],
        suites=[("canaries", "canary")],
    )  # fmt: skip
    (found,) = (each for each in rows if each.gate == "canaries")
    return found


def test_all_held_passes_and_needs_no_confidence() -> None:
    found = judged(compared([1.0] * 5, [1.0] * 5))
    assert found.outcome == "pass"
    assert found.reason == (
        "canaries of suite canaries that held at the baseline and do not now: 0 of 5; at most 0 was allowed"
    )


def test_one_broken_fails_whatever_was_mended() -> None:
    found = judged(compared([1.0, 0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0, 1.0]))
    assert (found.outcome, found.low, found.high) == ("fail", 1.0, 1.0)


def test_what_the_baseline_fails_is_not_broken_by_the_arm() -> None:
    assert judged(compared([0.0, 1.0], [0.0, 1.0])).outcome == "pass"


@pytest.mark.parametrize("lost", [None, -1.0])
def test_no_answer_is_no_held_canary(lost: float | None) -> None:
    found = judged(compared([1.0, 1.0, 1.0], [1.0, 1.0, lost]))
    assert found.outcome == "fail"
    assert "1 of 3, 1 of them for want of an answer" in found.reason


def test_a_beginning_leaves_the_gate_open_until_one_breaks() -> None:
    found = judged(compared([1.0] * 10, [1.0] * 4))
    assert (found.outcome, found.low, found.high) == ("inconclusive", 0.0, 6.0)
    assert "0 of 4, 6 more not known yet" in found.reason
    assert judged(compared([1.0] * 10, [0.0] * 4)).outcome == "fail"


def test_dropping_documents_never_passes() -> None:
    for kept in range(9):
        assert judged(compared([1.0] * 10, [1.0] * kept, early=False)).outcome != "pass", kept


def test_one_that_neither_side_answered_is_not_known_to_hold() -> None:
    found = judged(compared([1.0, 1.0, None], [1.0, 1.0, None]))
    assert (found.outcome, found.low, found.high) == ("inconclusive", 0.0, 1.0)


def test_no_evidence_is_inconclusive() -> None:
    assert judged(None).outcome == "inconclusive"
    assert judged(compared([None, None], [1.0, 1.0])).outcome == "inconclusive"
