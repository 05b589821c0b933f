"""Gates over comparisons: a pure function of recorded evidence and a frozen policy, closed wherever evidence is not.

A gate passes only if its interval proves what was asked, fails only if the interval refutes it, and is inconclusive
otherwise - also when the comparison is missing, was made at less confidence, twice, or from too few blocks. With
two-sided confidence c each one-sided statement errs with probability (1 - c) / 2 at most.

Divergence gates are the exception, and only downwards: they are a screen, so whatever does not refute them passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

from steelyard.gates.policy import DIVERGENCE_SCOPE, KINDS, OVER_BLOCKS, QUALITY, Gate, Policy
from steelyard.gates.reasons import NOT_COMPARED, bound_of, explain, subject
from steelyard.records import ArmRow, ComparisonRow, GateRow
from steelyard.study import Study
from steelyard.study_capacity import capacity_scope

NOWHERE = "-"
PROMPTS_MISSING = 0.02
"""Share of the prompts that may be missing; above it the ones left are no evidence of a divergence screen."""


class Scopes(TypedDict):
    """What the gates of a study may hold on, in its order; suites with their categories."""

    load_points: list[str]
    capacities: list[str]
    suites: list[tuple[str, str]]


def scopes_in(study: Study) -> Scopes:
    """Those of a study."""
    return Scopes(
        load_points=[point.name for point in study.load_points],
        capacities=[search.scope for search in study.capacity],
        suites=[(suite.name, suite.category) for suite in study.suites],
    )


def evaluate(
    policy: Policy,
    comparisons: Sequence[ComparisonRow],
    *,
    run_id: str,
    arm: str,
    claim: str | None,
    load_points: Sequence[str],
    suites: Sequence[tuple[str, str]],
    capacities: Sequence[str] = (),
    claims: Sequence[str] = (),
    attempt: int = 1,
) -> list[GateRow]:
    """Every gate of the policy over each scope it holds on, in the policy's order; never an empty list.

    `claim` is the arm's declared load point. Controls have none (None): they are judged wherever a candidate of the run
    claims its gain, which is what `claims` lists (see `claims_of`), or at the first of `load_points` if no one does.
    `load_points` are the study's in its order, `capacities` those it searches, `suites` its (name, category) pairs.
    They come from the study and not from the comparisons, so that evidence which was never made shows as an
    inconclusive row instead of as nothing.
    `attempt` is the arm's (`Policy.asked`).
    """
    found: dict[tuple[str, str, str], list[ComparisonRow]] = {}
    for row in comparisons:
        if row.run_id == run_id and row.arm == arm:
            found.setdefault((row.category, row.metric, row.scope), []).append(row)
    rows: list[GateRow] = []
    for gate in policy.gates:
        at = capacities if gate.category == "capacity" else load_points
        scopes = scopes_of(gate, claim=claim, load_points=at, suites=suites, claims=claims)
        if not scopes:
            what = f"{gate.category} suite" if gate.category in QUALITY else f"{gate.category} load point"
            if gate.category == "capacity":
                what = "search for a capacity"
            reason = f"no evidence for gate {gate.name}: the study has no {what}"
            rows.append(_row(gate, run_id, arm, NOWHERE, None, "inconclusive", reason))
        for scope in scopes:
            evidence = found.get((gate.category, gate.metric, scope), [])
            rows.append(_judge(policy, gate, run_id, arm, scope, evidence, attempt))
    return rows


def claims_of(run_id: str, arms: Sequence[ArmRow]) -> list[str]:
    """The load points at which candidates of the run declared a gain, served or not, each once."""
    rows = [arm for arm in arms if arm.run_id == run_id and arm.role == "candidate"]
    return list(dict.fromkeys(arm.claim for arm in rows if arm.claim is not None))


def scopes_of(
    gate: Gate,
    *,
    claim: str | None,
    load_points: Sequence[str],
    suites: Sequence[tuple[str, str]],
    claims: Sequence[str] = (),
) -> list[str]:
    """The load points, capacities or suites a gate holds on; `claims` in the study's order, unknown ones last.

    Of a capacity gate `load_points` are the capacities; a claim at a load point is one on its workload's.
    """
    if gate.category == "divergence":
        return [DIVERGENCE_SCOPE]
    if gate.category in QUALITY:
        return [name for name, category in suites if category == gate.category]
    if gate.category == "capacity":
        claim = None if claim is None else capacity_scope(claim.partition("@")[0])
        claims = [capacity_scope(each.partition("@")[0]) for each in claims]
    if gate.on == "claimed":
        if claim is not None:
            return [claim]
        known = [point for point in load_points if point in claims]
        return list(dict.fromkeys([*known, *claims])) or list(load_points[:1])
    return list(load_points)


def outcome_of(gate: Gate, low: float, high: float) -> str:
    """pass, fail or inconclusive of an interval; the wrong side of a bound must be excluded to pass or to fail.

    A divergence gate passes unless the bound is proven broken: it may reject, never prove.
    """
    kind, bound = bound_of(gate)
    if gate.category == "divergence":
        return "fail" if (low > bound if kind == "at_most" else high < bound) else "pass"
    if kind == "at_most":
        return "pass" if high <= bound else "fail" if low > bound else "inconclusive"
    limit = -bound if kind == "margin" else bound
    return "pass" if low >= limit else "fail" if high < limit else "inconclusive"


def _judge(
    policy: Policy, gate: Gate, run_id: str, arm: str, scope: str, found: Sequence[ComparisonRow], attempt: int
) -> GateRow:
    what = subject(gate, scope)
    if len(found) != 1:
        why = NOT_COMPARED if not found else f"{len(found)} comparisons contradict each other"
        return _row(gate, run_id, arm, scope, None, "inconclusive", f"no evidence on {what}: {why}")
    row = found[0]
    refusal = _refusal(policy, gate, row, attempt)
    if refusal:
        return _row(gate, run_id, arm, scope, row, "inconclusive", f"no evidence on {what}: {refusal}")
    assert row.low is not None
    # Only a divergence or a capacity may lack its upper bound, which then refutes nothing.
    outcome = outcome_of(gate, row.low, math.inf if row.high is None else row.high)
    return _row(gate, run_id, arm, scope, row, outcome, explain(gate, row, outcome))


def _refusal(policy: Policy, gate: Gate, row: ComparisonRow, attempt: int) -> str | None:
    """Why a comparison cannot be judged, or None."""
    kind = KINDS.get(gate.metric, "ratio")
    if row.kind != kind:
        return f"the comparison is a {row.kind}, not a {kind}"
    asked = policy.asked(gate, attempt)
    if row.confidence < asked - 1e-12:
        return f"its interval holds with {100 * row.confidence:g} % confidence, the policy asks for {100 * asked:g} %"
    if gate.category == "capacity" and row.estimate is None and row.n:
        return row.method
    blocks = gate.category in OVER_BLOCKS
    if blocks and row.n < policy.min_blocks:
        return f"{row.n} valid paired blocks, the policy asks for {policy.min_blocks}"
    screen = gate.category == "divergence"
    if screen and (row.n < 1 or row.n_missing > PROMPTS_MISSING * (row.n + row.n_missing)):
        return f"{row.n_missing} of {row.n + row.n_missing} prompts could not be compared"
    if row.n < 1:
        return "no sample was scored by the baseline"
    # No upper bound of a mean of nats holds for every distribution; the screen asks for the lower one alone.
    # Nor does one of an arm that holds every rate tried: it may prove a gain, and refute none.
    open_above = row.high is None and ((screen and row.kind == "nats") or gate.category == "capacity")
    numbers = (row.estimate, row.low) if open_above else (row.estimate, row.low, row.high)
    if any(value is None or not math.isfinite(value) for value in numbers):
        return "the interval is unknown or unbounded" + (" (a block gave zero)" if blocks else "")
    if not row.low <= row.estimate <= (math.inf if open_above else row.high):  # type: ignore[operator]
        return "the estimate lies outside its own interval"
    return None


def _row(
    gate: Gate, run_id: str, arm: str, scope: str, row: ComparisonRow | None, outcome: str, reason: str
) -> GateRow:
    kind, bound = bound_of(gate)
    return GateRow(
        run_id=run_id, arm=arm, gate=gate.name, category=gate.category, metric=gate.metric, scope=scope,
        bound_kind=kind, bound=bound, benefit=gate.benefit, required=gate.required,
        estimate=row.estimate if row else None, low=row.low if row else None, high=row.high if row else None,
        n=row.n if row else 0, outcome=outcome, reason=reason,
    )  # fmt: skip
