"""From gates to verdicts, and from verdicts to whether the study may be believed.

All required gates must pass: an intersection-union test, so the chance of promoting an arm that is really harmful or
useless stays at one gate's error and needs no correction across gates (Berger 1982). Any required gate that is
refuted rejects. Everything else is inconclusive, and inconclusive never promotes.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from steelyard.comparisons import deployment_problems
from steelyard.divergence_comparisons import divergence_problems
from steelyard.gates.policy import CATEGORIES, OVER_BLOCKS, SCORED, Gate, Policy
from steelyard.gates.reasons import NOT_COMPARED, bound_of
from steelyard.records import ArmRow, GateRow, UnitCostRow, VerdictRow
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.records_trials import ProbeRow, TrialRow

BASELINE_MISSING = 0.02
"""Share of a suite the baseline may fail to answer; above it the reference itself is not known."""


def _guards_first(row: GateRow) -> tuple[bool, int]:
    return row.benefit, CATEGORIES.index(row.category)


def _gains_first(row: GateRow) -> tuple[bool, int]:
    return not row.benefit, CATEGORIES.index(row.category)


def decide(policy: Policy, gates: Sequence[GateRow]) -> tuple[str, list[str]]:
    """The verdict of one arm's gate rows, and its reasons: the deciding ones first, every other row after them.

    Rows that are not the policy's decide nothing. They, a gate without a row, and a row that stands twice are gaps: a
    refuted gate still rejects, but "inconclusive" is the best verdict there can be.
    """
    asked = {gate.name: gate for gate in policy.gates}
    current = [row for row in gates if row.gate in asked and _is_of(row, asked[row.gate])]
    required = [row for row in current if row.required]
    failed = sorted((row for row in required if row.outcome == "fail"), key=_guards_first)
    held = sorted((row for row in required if row.outcome == "pass"), key=_gains_first)
    unsure = sorted((row for row in required if row.outcome not in ("pass", "fail")), key=_guards_first)
    gaps = [f"no evidence: {gap}" for gap in _gaps(asked, gates, current)]
    refuted, missing, proven = ([row.reason for row in rows] for rows in (failed, unsure, held))
    aside = [f"for information: {row.reason}" for row in current if not row.required]
    not_shown, kept = [f"not shown: {reason}" for reason in missing], [f"held: {reason}" for reason in proven]
    if refuted:
        untried = [row for row in unsure if row.reason.endswith(NOT_COMPARED)]
        if policy.stop_early and untried:
            not_shown = [f"not shown: {row.reason}" for row in unsure if row not in untried]
            names = ", ".join(f"{row.gate} at {row.scope}" for row in untried)
            not_shown.append(f"not measured once the arm was rejected: {names}")
        return "reject", _headed("rejected", refuted, gaps, not_shown, kept, aside)
    if gaps or missing:
        return "inconclusive", _headed("inconclusive", [*gaps, *missing], kept, aside)
    if not proven:
        return "inconclusive", _headed("inconclusive", ["no evidence: no required gate was evaluated"], aside)
    return "promote", _headed("promoted", proven, aside)


def _headed(head: str, deciding: Sequence[str], *others: Sequence[str]) -> list[str]:
    return [f"{head}: {deciding[0]}", *deciding[1:], *(reason for group in others for reason in group)]


def _is_of(row: GateRow, gate: Gate) -> bool:
    stored = (row.category, row.metric, row.bound_kind, row.bound, row.benefit, row.required)
    return stored == (gate.category, gate.metric, *bound_of(gate), gate.benefit, gate.required)


def _gaps(asked: Mapping[str, Gate], gates: Sequence[GateRow], current: Sequence[GateRow]) -> list[str]:
    evaluated = {row.gate for row in current}
    gaps = [f"gate {name} was not evaluated" for name in asked if name not in evaluated]
    stale = [row for row in gates if row not in current]
    gaps += [f"gate {row.gate} at {row.scope} was evaluated under another policy" for row in stale]
    places = Counter((row.gate, row.scope) for row in current)
    return gaps + [f"gate {gate} at {scope} stands twice" for (gate, scope), times in places.items() if times > 1]


def verdicts(
    run_id: str,
    policy: Policy,
    policy_digest: str,
    arms: Sequence[ArmRow],
    gates: Sequence[GateRow],
    decided_at: datetime,
) -> list[VerdictRow]:
    """A verdict for every arm of the run but the baseline, in the order of `arms`.

    An arm that did not serve, or whose baseline did not, is inconclusive with the named failure: a crash is no
    evidence about an optimization. `decided_at` is UTC.
    """
    mine = [arm for arm in arms if arm.run_id == run_id]
    baseline = next((arm for arm in mine if arm.role == "baseline"), None)
    rows: list[VerdictRow] = []
    for arm in mine:
        if arm.role == "baseline":
            continue
        own = [row for row in gates if row.run_id == run_id and row.arm == arm.arm]
        trouble = _unserved(arm) or (_unserved(baseline) if baseline else "the run has no baseline")
        if trouble:
            verdict, reasons = "inconclusive", [f"inconclusive: no evidence: {trouble}"]
        elif not own:
            verdict, reasons = "inconclusive", ["inconclusive: no evidence: no gate was evaluated"]
        else:
            verdict, reasons = decide(policy, own)
            reasons += _attempted(policy, arm)
        rows.append(
            VerdictRow(
                run_id=run_id, arm=arm.arm, role=arm.role, verdict=verdict, reasons=reasons,
                deployment_digest=arm.deployment_digest,
                baseline_digest=baseline.deployment_digest if baseline else None,
                policy_digest=policy_digest, decided_at=decided_at,
            )
        )  # fmt: skip
    return rows


def _attempted(policy: Policy, arm: ArmRow) -> list[str]:
    """What earlier attempts cost this one."""
    if policy.attempts == "free" or (arm.attempt or 1) == 1:
        return []
    return [
        f"for information: attempt {arm.attempt} of this candidate on this baseline, so each gate but a screen may err "
        f"{policy.share(arm.attempt or 1):.2g} times as often as a single attempt could"
    ]


def _unserved(arm: ArmRow) -> str | None:
    if arm.status != "served":
        first = ((arm.error or "").strip() or "no reason was recorded").splitlines()[0]
        return f"{arm.arm} did not serve: {first}"
    if arm.deployment_digest is None:
        return f"{arm.arm} has no deployment digest"
    return None


def study_validity(
    verdict_rows: Sequence[VerdictRow],
    gates: Sequence[GateRow],
    arms: Sequence[ArmRow],
    *,
    suites: Sequence[SuiteRow] = (),
) -> list[str]:
    """Why no verdict of the study may be believed; empty if the controls behaved. Rows of one run.

    VOID if the baseline did not serve or (where `suites` are given) left more than 2 % of a suite unanswered; if no
    identity control served, or it is another deployment than the baseline, or it was promoted, or any required gain
    was proven for it at any load point (then noise measures as gain, also where a guard kept it from promotion), or it
    failed a required guard (then noise measures as harm); or if a known-bad control was not rejected by a required
    guard that must see its harm (`harm_shows_in`).
    """
    baseline = next((arm for arm in arms if arm.role == "baseline"), None)
    if baseline is None:
        return ["the run has no baseline"]
    problems = [trouble] if (trouble := _unserved(baseline)) else []
    problems += [
        f"the baseline answered {row.answered} of {row.documents} documents of suite {row.suite}"
        for row in suites
        if row.arm == baseline.arm and row.answered < (1 - BASELINE_MISSING) * row.documents
    ]
    verdict_of = {row.arm: row.verdict for row in verdict_rows}
    identities = [arm for arm in arms if arm.role == "identity"]
    if not identities:
        problems.append("no identity control ran, so the noise of the study is not known")
    for arm in identities:
        if trouble := _unserved(arm):
            problems.append(f"the noise of the study is not known: {trouble}")
            continue
        if arm.deployment_digest != baseline.deployment_digest and baseline.deployment_digest is not None:
            problems.append(f"identity control {arm.arm} is not the deployment the baseline is")
        if verdict_of.get(arm.arm) == "promote":
            problems.append(f"identity control {arm.arm} was promoted: the baseline against itself shows a gain")
        problems += [
            f"identity control {arm.arm} passed {row.gate}: the baseline against itself measures as gain: {row.reason}"
            for row in gates
            if row.arm == arm.arm and row.required and row.benefit and row.outcome == "pass"
        ]
        problems += [
            f"identity control {arm.arm} failed {row.gate}: the baseline against itself measures as harm: {row.reason}"
            for row in gates
            if row.arm == arm.arm and row.required and not row.benefit and row.outcome == "fail"
        ]
    for arm in arms:
        if arm.role != "known_bad":
            continue
        where = harm_shows_in(arm, baseline)
        # That no gain was proven is no harm seen: the baseline itself shows none.
        seen = any(
            row.arm == arm.arm and row.required and not row.benefit and row.category in where and row.outcome == "fail"
            for row in gates
        )
        if verdict_of.get(arm.arm) == "promote":
            problems.append(f"known-bad control {arm.arm} was promoted")
        elif trouble := _unserved(arm):
            problems.append(f"whether the suites can see harm is not known: {trouble}")
        elif not seen or verdict_of.get(arm.arm) != "reject":
            by, blind = (
                ("a gate of speed, capacity or cost", "trials") if where == OVER_BLOCKS
                else ("an accuracy or safety gate", "suites")
            )  # fmt: skip
            problems.append(
                f"known-bad control {arm.arm} was not rejected by {by}: the {blind} could not see known harm"
            )
    return problems


def harm_shows_in(arm: ArmRow, baseline: ArmRow) -> tuple[str, ...]:
    """Categories of guards of which one must refuse a known-bad control: of suites, or, where it is the baseline with a
    delay and nothing else, of speed, capacity or cost.
    """
    faults = json.loads(arm.resolved_json or "{}").get("faults") or {}
    same = all(
        getattr(arm, name) == getattr(baseline, name)
        for name in ("engine", "weights_digest", "template_digest", "args_json", "env_json")
    )
    return OVER_BLOCKS if same and set(faults) == {"delay_s"} else SCORED


def void_reasons(
    arms: Sequence[ArmRow],
    verdict_rows: Sequence[VerdictRow],
    gates: Sequence[GateRow],
    *,
    suites: Sequence[SuiteRow],
    trials: Sequence[TrialRow],
    samples: Sequence[SampleRow],
    costs: Sequence[UnitCostRow],
    divergences: Sequence[DivergenceRow],
    probes: Sequence[ProbeRow] = (),
) -> list[str]:
    """Why no verdict of a run may be believed: controls that misbehaved, or rows of another deployment."""
    return [
        *study_validity(verdict_rows, gates, arms, suites=suites),
        *deployment_problems(arms, trials, suites, samples, costs, probes),
        *divergence_problems(arms, divergences),
    ]


def void(verdict_rows: Sequence[VerdictRow], problems: Sequence[str]) -> list[VerdictRow]:
    """The same verdicts if there are no problems; otherwise each one void, with the problems before its own reasons.

    Doing it twice with the same problems changes nothing more.
    """
    if not problems:
        return list(verdict_rows)
    first = [f"void: {problems[0]}", *problems[1:]]
    return [
        dataclasses.replace(row, verdict="void", reasons=[*first, *(each for each in row.reasons if each not in first)])
        for row in verdict_rows
    ]
