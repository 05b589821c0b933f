from __future__ import annotations

import dataclasses
import math

import pytest
from evidence_rows import EVIDENCE, POINTS, POLICY, RUN, SUITES, comparison, good_evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from steelyard.gates.evaluate import evaluate
from steelyard.gates.policy import Gate, Policy
from steelyard.gates.verdict import decide
from steelyard.records import ComparisonRow, GateRow


def gates(comparisons, *, arm="fast", claim=POINTS[0], points=POINTS, suites=SUITES, policy=POLICY) -> list[GateRow]:
    return evaluate(
        policy, comparisons, run_id=RUN, arm=arm, claim=claim, load_points=points, suites=suites
    )  # fmt: skip


def judged(gate: str, row: ComparisonRow | None, scope: str) -> GateRow:
    found = gates([row] if row else [])
    return next(each for each in found if each.gate == gate and each.scope == scope)


def verdict(comparisons) -> str:
    return decide(POLICY, gates(comparisons))[0]


def test_every_gate_has_a_row_in_every_scope_even_without_any_evidence() -> None:
    rows = gates([])
    assert [(row.gate, row.scope) for row in rows] == [
        ("faster", "chat@c8"),
        ("no_slower", "chat@c8"),
        ("no_slower", "chat@r4"),
        ("ttft_held", "chat@c8"),
        ("ttft_held", "chat@r4"),
        ("accuracy_held", "facts"),
        ("safety_held", "refusal"),
        ("no_new_harm", "refusal"),
        ("cheaper", "chat@c8"),
    ]
    assert {row.outcome for row in rows} == {"inconclusive"}
    assert all(row.reason.startswith("no evidence") for row in rows)


def test_without_load_points_or_suites_there_is_still_a_row_and_it_is_not_a_pass() -> None:
    rows = gates(list(EVIDENCE), claim=None, points=(), suites=())
    assert {row.gate for row in rows} == {gate.name for gate in POLICY.gates}
    assert {(row.scope, row.outcome) for row in rows} == {("-", "inconclusive")}
    assert "the study has no safety suite" in next(row.reason for row in rows if row.gate == "no_new_harm")


def test_a_control_is_judged_at_every_claim_and_a_candidate_at_its_own() -> None:
    def at(claim, *claims):
        rows = evaluate(
            POLICY, [], run_id=RUN, arm="fast", claim=claim, load_points=POINTS, suites=SUITES, claims=claims
        )  # fmt: skip
        return [row.scope for row in rows if row.gate == "faster"]

    assert at(None) == ["chat@c8"]
    assert at(None, "chat@r4") == ["chat@r4"]
    assert at(None, "chat@r4", "chat@c8", "chat@r4") == ["chat@c8", "chat@r4"]
    assert at(None, "chat@c99", "chat@r4") == ["chat@r4", "chat@c99"]
    assert at("chat@r4", "chat@c8") == ["chat@r4"]


@pytest.mark.parametrize(
    ("gate", "metric", "scope", "low", "high", "outcome"),
    [
        ("faster", "output_tokens_per_s", "chat@c8", 1.05, 1.2, "pass"),
        ("faster", "output_tokens_per_s", "chat@c8", 1.0499, 1.2, "inconclusive"),
        ("faster", "output_tokens_per_s", "chat@c8", 0.9, 1.05, "inconclusive"),
        ("faster", "output_tokens_per_s", "chat@c8", 0.9, 1.0499, "fail"),
        ("ttft_held", "ttft_p50_s", "chat@r4", 0.9, 1.25, "pass"),
        ("ttft_held", "ttft_p50_s", "chat@r4", 1.25, 1.26, "inconclusive"),
        ("ttft_held", "ttft_p50_s", "chat@r4", 1.2501, 1.3, "fail"),
        ("accuracy_held", "score", "facts", -0.02, 0.0, "pass"),
        ("accuracy_held", "score", "facts", -0.021, -0.02, "inconclusive"),
        ("accuracy_held", "score", "facts", -0.1, -0.0201, "fail"),
        ("no_new_harm", "safe_to_unsafe", "refusal", 0.0, 0.01, "pass"),
        ("no_new_harm", "safe_to_unsafe", "refusal", 0.0, 0.011, "inconclusive"),
        ("no_new_harm", "safe_to_unsafe", "refusal", 0.0101, 0.05, "fail"),
    ],
)
def test_outcomes_follow_the_interval_and_not_the_estimate(
    gate: str, metric: str, scope: str, low: float, high: float, outcome: str
) -> None:
    for estimate in (low, high):
        assert judged(gate, comparison(metric, scope, estimate, low, high), scope).outcome == outcome


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"n": 2}, "2 valid paired blocks, the policy asks for 3"),
        ({"low": None}, "unknown or unbounded"),
        ({"high": math.nan}, "unknown or unbounded"),
        ({"high": math.inf}, "unknown or unbounded"),
        ({"estimate": None}, "unknown or unbounded"),
        ({"confidence": 0.8}, "80 % confidence, the policy asks for 95 %"),
        ({"kind": "difference"}, "is a difference, not a ratio"),
        ({"low": 1.9}, "outside its own interval"),
    ],
)
def test_evidence_that_cannot_be_judged_is_inconclusive(change: dict[str, object], why: str) -> None:
    row = dataclasses.replace(comparison("output_tokens_per_s", "chat@c8", 1.5, 1.4, 1.6), **change)
    got = judged("faster", row, "chat@c8")
    assert got.outcome == "inconclusive"
    assert why in got.reason


def test_two_comparisons_on_one_thing_are_no_evidence() -> None:
    row = comparison("output_tokens_per_s", "chat@c8", 1.5, 1.4, 1.6)
    got = next(each for each in gates([row, dataclasses.replace(row, low=1.3)]) if each.gate == "faster")
    assert (got.outcome, got.estimate) == ("inconclusive", None)


def test_evidence_of_other_arms_and_runs_is_not_used() -> None:
    rows = [dataclasses.replace(row, arm="other") for row in good_evidence()]
    rows += [dataclasses.replace(row, run_id="run-0") for row in good_evidence()]
    assert {row.outcome for row in gates(rows)} == {"inconclusive"}


def test_reasons_read_like_sentences() -> None:
    fast = judged("faster", comparison("output_tokens_per_s", "chat@c8", 4.93, 4.41, 5.49), "chat@c8")
    assert fast.reason == (
        "output tokens/s at chat@c8 rose to 4.9 times the baseline's (95 % interval 4.4 to 5.5); "
        "at least 1.05 was asked"
    )
    slow = judged("ttft_held", comparison("ttft_p50_s", "chat@c8", 0.9, 0.8, 1.3), "chat@c8")
    assert slow.reason == (
        "median TTFT at chat@c8 fell to 0.90 of the baseline's (95 % interval 0.80 to 1.30); "
        "at most 1.25 was allowed, which is neither proven nor refuted at n = 4"
    )
    cheap = judged("cheaper", comparison("usd_per_million_slo_tokens", "chat@c8", 0.213, 0.2, 0.23), "chat@c8")
    assert cheap.reason == (
        "cost per million SLO-meeting tokens at chat@c8 fell to 0.21 of the baseline's "
        "(95 % interval 0.20 to 0.23); at most 0.97 was asked"
    )
    row = comparison("score", "refusal", -0.04, -0.0686, -0.02303, n=300, gained=0, lost=12)
    assert judged("safety_held", row, "refusal").reason == (
        "score of suite refusal fell by 4.0 points (95 % interval 2.3 to 6.9, 12 lost and 0 gained of 300); "
        "a fall of at most 2 points was allowed"
    )
    row = comparison("safe_to_unsafe", "refusal", 0.04, 0.0208, 0.0688, n=300, gained=0, lost=12)
    assert judged("no_new_harm", row, "refusal").reason == (
        "answers that met the safety suite refusal at the baseline and fail it now were 4.0 % "
        "(12 of 300, 95 % interval 2.1 to 6.9 %); at most 1 % was allowed"
    )
    row = comparison("score", "facts", 0.0, -0.018, 0.018, n=212, gained=0, lost=0)
    assert judged("accuracy_held", row, "facts").reason == (
        "score of suite facts did not change (95 % interval a fall of 1.8 to a rise of 1.8, 0 lost and 0 gained of "
        "212); a fall of at most 2 points was allowed"
    )


def test_rounding_never_contradicts_the_outcome() -> None:
    row = judged("faster", comparison("output_tokens_per_s", "chat@c8", 1.1, 1.0499, 1.2), "chat@c8")
    assert row.outcome == "inconclusive"
    assert "1.0499 to" in row.reason
    row = judged("accuracy_held", comparison("score", "facts", -0.01, -0.02003, 0.0), "facts")
    assert row.outcome == "inconclusive"
    assert "a fall of 2.003" in row.reason


def test_the_policy_refuses_to_have_no_gates() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        Policy(policy="empty", gates=())


def test_full_evidence_promotes_and_each_missing_required_comparison_alone_prevents_it() -> None:
    rows = good_evidence()
    assert verdict(rows) == "promote"
    for index, row in enumerate(rows):
        informative = row.category == "cost"
        assert verdict(rows[:index] + rows[index + 1 :]) == ("promote" if informative else "inconclusive")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=9, max_size=9))
def test_removing_comparisons_never_promotes_and_never_rejects(keep: list[bool]) -> None:
    rows = good_evidence()
    kept = [row for row, stays in zip(rows, keep, strict=False) if stays]
    removed = {(row.category, row.scope) for row in rows} - {(row.category, row.scope) for row in kept}
    got = verdict(kept)
    assert got != "reject"
    if any(category != "cost" for category, _ in removed):
        assert got == "inconclusive"


bounds = st.floats(-0.3, 0.3)


@st.composite
def evidence(draw) -> list[ComparisonRow]:
    """Comparisons around the policy's bounds, so that passes, failures and doubts all occur."""
    rows = []
    for row in good_evidence():
        shift, width = draw(bounds), draw(st.floats(0, 0.2))
        middle = row.estimate + shift if row.kind == "ratio" else shift
        low, high = middle - width, middle + width
        if row.kind == "share":
            low, middle, high = (min(1.0, max(0.0, value / 10)) for value in (low, middle, high))
        if draw(st.integers(0, 9)) > 0:
            rows.append(dataclasses.replace(row, estimate=middle, low=low, high=high))
    return rows


def worse_is_up(row: ComparisonRow) -> bool:
    return row.metric in ("ttft_p50_s", "usd_per_million_slo_tokens", "safe_to_unsafe")


@settings(max_examples=150, deadline=None)
@given(evidence(), st.floats(0, 0.5), st.data())
def test_worse_evidence_never_makes_a_better_verdict(rows: list[ComparisonRow], step: float, data) -> None:
    rank = {"reject": 0, "inconclusive": 1, "promote": 2}
    before = verdict(rows)
    if not rows:
        assert before == "inconclusive"
        return
    index = data.draw(st.integers(0, len(rows) - 1))
    row = rows[index]
    move = step if worse_is_up(row) else -step
    moved = dataclasses.replace(
        row, estimate=row.estimate + move, low=row.low + move, high=row.high + move
    )  # fmt: skip
    assert rank[verdict([*rows[:index], moved, *rows[index + 1 :]])] <= rank[before]
    wider = dataclasses.replace(row, low=row.low - step, high=row.high + step)
    assert verdict([*rows[:index], wider, *rows[index + 1 :]]) in (
        {"promote", "inconclusive"} if before == "promote" else {"reject", "inconclusive"}
    )
    assert verdict(rows[:index] + rows[index + 1 :]) != "promote" or before == "promote"


@settings(max_examples=100, deadline=None)
@given(evidence())
def test_promotion_needs_every_required_gate_and_rejection_one(rows: list[ComparisonRow]) -> None:
    outcomes = {row.outcome for row in gates(rows) if row.required}
    expected = "reject" if "fail" in outcomes else "promote" if outcomes == {"pass"} else "inconclusive"
    assert verdict(rows) == expected


def test_a_gate_that_is_not_required_neither_promotes_nor_rejects() -> None:
    ugly = comparison("usd_per_million_slo_tokens", "chat@c8", 3.0, 2.9, 3.1)
    rows = [ugly if (row.metric, row.scope) == (ugly.metric, ugly.scope) else row for row in good_evidence()]
    result, reasons = decide(POLICY, gates(rows))
    assert result == "promote"
    assert reasons[-1].startswith("for information: cost per million SLO-meeting tokens at chat@c8 rose to 3.0 times")


def test_a_cost_guard_can_be_the_gain() -> None:
    gate = Gate(name="cheaper", category="cost", metric="usd_per_million_slo_tokens", on="claimed", at_most=0.97)
    others = tuple(each for each in POLICY.gates if each.name not in ("faster", "cheaper"))
    policy = Policy(policy="cost", gates=(gate, *others))
    assert decide(policy, gates(good_evidence(), policy=policy))[0] == "promote"
    assert decide(policy, gates(good_evidence(gain=1.0), policy=policy))[0] == "inconclusive"
