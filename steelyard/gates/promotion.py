"""Whether a stored verdict may be acted on: everything that can be recomputed from stored rows is, and must agree."""

from __future__ import annotations

from collections.abc import Sequence

from steelyard.gates.evaluate import claims_of, evaluate
from steelyard.gates.policy import Policy
from steelyard.gates.verdict import study_validity, verdicts, void
from steelyard.records import ArmRow, ComparisonRow, GateRow, VerdictRow
from steelyard.records_quality import SuiteRow


def evaluate_run(
    policy: Policy,
    comparisons: Sequence[ComparisonRow],
    *,
    run_id: str,
    arms: Sequence[ArmRow],
    load_points: Sequence[str],
    suites: Sequence[tuple[str, str]],
    capacities: Sequence[str] = (),
) -> list[GateRow]:
    """The gates of every arm of the run but the baseline: candidates at their own claim, controls at everybody's.

    An arm that never served gets its rows too: they say that there is no evidence.
    """
    claims = claims_of(run_id, arms)
    return [
        row
        for arm in arms
        if arm.run_id == run_id and arm.role != "baseline"
        for row in evaluate(
            policy,
            comparisons,
            run_id=run_id,
            arm=arm.arm,
            claim=arm.claim,
            load_points=load_points,
            suites=suites,
            capacities=capacities,
            claims=claims,
            attempt=arm.attempt or 1,
        )
    ]


def promotion_refusals(
    policy: Policy,
    policy_digest: str,
    *,
    run_id: str,
    arm: str,
    arms: Sequence[ArmRow],
    load_points: Sequence[str],
    suites: Sequence[tuple[str, str]],
    comparisons: Sequence[ComparisonRow],
    gates: Sequence[GateRow],
    verdict_rows: Sequence[VerdictRow],
    capacities: Sequence[str] = (),
    suite_rows: Sequence[SuiteRow] = (),
    problems: Sequence[str] = (),
) -> list[str]:
    """Why the arm must not be promoted; empty if and only if it may be.

    `policy_digest` is that of `policy` as it stands now. Gates, verdicts and the validity of the whole study are
    computed again from the stored comparisons; `problems` are further reasons for VOID that the caller knows, such as
    `deployment_problems` and `recompute_problems`, which hold the comparisons against the measurements below them. Any
    row that is missing, stale or different refuses: a forged, edited or half-written warehouse promotes nothing.
    """
    mine = [row for row in arms if row.run_id == run_id]
    stored = [row for row in verdict_rows if row.run_id == run_id and row.arm == arm]
    subject = [row for row in mine if row.arm == arm]
    baseline = [row for row in mine if row.role == "baseline"]
    if len(stored) != 1 or len(subject) != 1 or len(baseline) != 1:
        return [
            f"run {run_id} holds {len(stored)} verdicts on {arm}, {len(subject)} such arms and {len(baseline)} "
            "baselines; one of each is needed"
        ]
    verdict = stored[0]
    refusals: list[str] = []
    if subject[0].role != "candidate":
        refusals.append(f"{arm} is a control ({subject[0].role}); only candidates are promoted")
    if verdict.verdict != "promote":
        refusals.append(f"the stored verdict is {verdict.verdict}")
    if verdict.policy_digest != policy_digest:
        refusals.append(
            f"the verdict was made under policy {verdict.policy_digest[:12]}, now it is {policy_digest[:12]}"
        )
    for what, then, now in (
        (arm, verdict.deployment_digest, subject[0].deployment_digest),
        ("the baseline", verdict.baseline_digest, baseline[0].deployment_digest),
    ):
        if then is None or then != now:
            refusals.append(f"{what} is not the deployment that was judged")
    again = evaluate_run(
        policy, comparisons, run_id=run_id, arms=mine, load_points=load_points, suites=suites, capacities=capacities
    )
    refusals += _differences(again, [row for row in gates if row.run_id == run_id])
    decided = verdicts(run_id, policy, policy_digest, mine, again, verdict.decided_at)
    run_suites = [row for row in suite_rows if row.run_id == run_id]
    problems = [*problems, *study_validity(decided, again, mine, suites=run_suites)]
    fresh = next((row for row in void(decided, problems) if row.arm == arm), None)
    if fresh is None or fresh.verdict != "promote":
        why = fresh.reasons[0] if fresh else "no verdict"
        refusals.append(f"evaluated again from the stored comparisons, {arm} is not promoted: {why}")
    elif list(verdict.reasons) != fresh.reasons:
        refusals.append("the stored reasons are not those that the stored comparisons give")
    return refusals


def _differences(again: Sequence[GateRow], stored: Sequence[GateRow]) -> list[str]:
    fresh = {(row.arm, row.gate, row.scope): row for row in again}
    kept = {(row.arm, row.gate, row.scope): row for row in stored}
    found = [f"{arm}: gate {gate} at {scope} is not stored" for arm, gate, scope in sorted(fresh.keys() - kept.keys())]
    found += [
        f"{arm}: gate {gate} at {scope} is stored without evidence"
        for arm, gate, scope in sorted(kept.keys() - fresh.keys())
    ]
    found += [
        f"{arm}: gate {gate} at {scope} is stored as {kept[arm, gate, scope].outcome}, its comparison gives "
        f"{fresh[arm, gate, scope].outcome} or other figures"
        for arm, gate, scope in sorted(fresh.keys() & kept.keys())
        if fresh[arm, gate, scope] != kept[arm, gate, scope]
    ]
    if len(kept) != len(stored):
        found.append("a gate is stored twice")
    return found
