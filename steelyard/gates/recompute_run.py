"""A whole run once more, from its stored rows alone: what a sceptic runs before believing a verdict.

Layer by layer, each from the one recomputed before it: trials from requests, suites from samples, unit costs, then
comparisons, gates, verdicts with the validity of the study, promotions. So a value that was changed differs where it
stands, and wherever it mattered above. Study and policy are those stored with the run; no file is opened.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TypeVar

from steelyard.confirmation import awaits_confirmation, promoted_study
from steelyard.finops.unit_cost import unit_costs
from steelyard.gates.comparing import Comparing
from steelyard.gates.evaluate import scopes_in
from steelyard.gates.policy import Policy
from steelyard.gates.promotion import evaluate_run
from steelyard.gates.recompute_diff import ABSENT, PRESENT, Difference, Recomputed
from steelyard.gates.recompute_measured import rebuild_arms, rebuild_suites, rebuild_trials
from steelyard.gates.recompute_probes import rebuild_probes
from steelyard.gates.recompute_study import MAX_ORDERS, asked, price_of, study_digests
from steelyard.gates.verdict import verdicts, void, void_reasons
from steelyard.records import (
    ArmRow,
    ComparisonRow,
    GateRow,
    PriceRow,
    PromotionRow,
    Row,
    StudyRow,
    UnitCostRow,
    VerdictRow,
)
from steelyard.records_trials import TrialRow
from steelyard.reports.facts import Facts
from steelyard.study import Study

CONTRACT = "data contract of "
"""How the reason of a run begins that its data contracts made void; no control had a say then."""

R = TypeVar("R", bound=Row)


def recompute_run(facts: Facts) -> Recomputed:
    """Every figure of a run that its other stored rows determine, computed again and compared bit for bit.

    `facts` are all rows of the run, in any order. A run that is not complete (nor void by its own controls) may lack
    derived rows; those it has must still agree. Raises InputError if the stored study or policy cannot be read.
    """
    run = facts.study
    study, policy = asked(run)
    found = Recomputed(run_id=run.run_id)
    whole = run.status == "complete" or (run.status == "void" and not (run.reason or "").startswith(CONTRACT))
    if not whole:
        why = f": {run.reason}" if run.reason else ""
        found.notes.append(f"The run is {run.status}{why}. Rows it never came to are not missed.")
    # Sorted as the store reads them, because the order of reasons follows the order of rows.
    arms = by_key(rebuild_arms(found, study, facts.arms, whole=whole))
    trials = _trials(found, facts, study, arms, whole=whole)
    suites = by_key(rebuild_suites(found, study, facts.suites, facts.samples))
    samples, divergences = by_key(facts.samples), by_key(facts.divergences)
    found.once(divergences)
    found.rows["divergences"] = len(divergences)
    probes = by_key(rebuild_probes(found, study, arms, facts.probes, whole=whole))
    costs = _costs(found, facts, study, policy, arms, trials, whole=whole)
    gated = {arm.name for arm in study.arms if arm.gated}
    judged = [arm for arm in arms if arm.arm in gated]
    comparing = Comparing(run.run_id, policy, study.blocks, judged)
    comparisons = [
        *comparing.speed(trials),
        *comparing.quality(samples, suites),
        *comparing.cost(costs, trials),
        *comparing.divergence(divergences),
        *comparing.capacity(probes, study.capacity),
    ]
    found.compare(ComparisonRow, comparisons, facts.comparisons, whole=whole)
    gates = evaluate_run(
        policy, comparisons, run_id=run.run_id, arms=arms, **scopes_in(study)
    )  # fmt: skip
    found.compare(GateRow, gates, facts.gates, whole=whole)
    decided = by_key(verdicts(run.run_id, policy, run.policy_digest, arms, gates, run.started_at))
    problems = void_reasons(
        arms,
        decided,
        by_key(gates),
        suites=suites,
        trials=trials,
        samples=samples,
        costs=costs,
        divergences=divergences,
        probes=probes,
    )
    # A run that was killed between its verdicts and its validity has verdicts that nobody has made void yet.
    if whole or any(row.verdict == "void" for row in facts.verdicts):
        decided = void(decided, problems)
    found.compare(VerdictRow, decided, facts.verdicts, skip={"decided_at"}, whole=whole)
    _study(found, facts, study, problems if whole else None)
    revoked = {row.arm for row in facts.revocations}
    promoting = [] if awaits_confirmation(study, policy) else [row for row in decided if row.arm not in revoked]
    if policy.sign_offs:
        # Who signed is no figure: `steelyard verify` holds signatures and promotions against the ledger.
        there = {row.arm for row in facts.promotions}
        promoting = [row for row in promoting if row.arm in there]
        found.notes.append("Promotions wait for sign-offs, which `steelyard verify` holds against the ledger.")
    name, signed = promoted_study(study), bool(policy.sign_offs)
    _promotions(found, run, name, promoting, facts.promotions, whole=whole, signed=signed)
    return found


def _trials(found: Recomputed, facts: Facts, study: Study, arms: Sequence[ArmRow], *, whole: bool) -> list[TrialRow]:
    """Trials from their requests; as stored where retention has thinned these."""
    if not facts.thinnings:
        again = rebuild_trials(found, study, arms, facts.trials, facts.requests, facts.engine_metrics, whole=whole)
        return by_key(again)
    trials, [thinned] = by_key(facts.trials), facts.thinnings
    found.once(trials)
    found.rows["trials"] = len(trials)
    found.notes.append(
        f"Retention thinned its requests on {thinned.thinned_at:%Y-%m-%d} ({thinned.requests_kept:,} of "
        f"{thinned.requests_before:,} are left), so its trials are taken as stored."
    )
    return trials


def by_key(rows: Iterable[R]) -> list[R]:
    """Rows in the order in which the store reads them."""
    return sorted(rows, key=lambda row: tuple(getattr(row, name) for name in row.KEY))


def _costs(
    found: Recomputed, facts: Facts, study: Study, policy: Policy, arms: Sequence[ArmRow],
    trials: Sequence[TrialRow], *, whole: bool,
) -> list[UnitCostRow]:  # fmt: skip
    """Unit costs at the stored price; the stored ones where that price is not stored."""
    again = [dataclasses.replace(row, used=row.price == study.hardware.price) for row in facts.prices]
    found.compare(PriceRow, again, facts.prices, skip={"usd_per_hour", "source", "dated", "note", "place"})
    price = price_of(facts.prices, study.hardware.price)
    if price is None:
        key = f"price {study.hardware.price}"
        found.differences.append(Difference(table="prices", key=key, column=None, stored=ABSENT, recomputed=PRESENT))
        found.notes.append(f"unit_costs: {key} is not stored, so they are taken as stored.")
        return by_key(facts.unit_costs)
    costs = unit_costs(facts.study.run_id, arms, trials, price, policy.confidence)
    found.compare(UnitCostRow, costs, facts.unit_costs, whole=whole)
    return by_key(costs)


def _study(found: Recomputed, facts: Facts, study: Study, problems: Sequence[str] | None) -> None:
    """The run's own row: digests, what the study says in columns of their own, and whether the run is void.

    `problems` are None for a run that did not come to its end: how it ended is then as stored.
    """
    run = facts.study
    of_study, of_policy = study_digests(run, facts.prices)
    if of_study is None:
        found.notes.append(
            f"studies: study_digest is not compared. It depends on the order of the {len(facts.prices)} prices in the "
            f"price book, which this run did not store, and at most {MAX_ORDERS} are tried in every order."
        )
    again = dataclasses.replace(
        run, study=study.study, owner=study.owner, seed=study.seed, blocks=study.blocks,
        study_digest=of_study or run.study_digest, policy_digest=of_policy,
    )  # fmt: skip
    compared = {"study", "owner", "seed", "blocks", "study_digest", "policy_digest"}
    if problems is not None:
        said = "; ".join(problems)
        # Contracts that broke too are named after the controls.
        reason = run.reason if said and (run.reason or "").startswith(said) else said or None
        again = dataclasses.replace(again, status="void" if problems else "complete", reason=reason)
        compared |= {"status", "reason"}
    others = {each.name for each in dataclasses.fields(StudyRow)} - compared - {"run_id"}
    found.compare(StudyRow, [again], [run], skip=others)


def _promotions(
    found: Recomputed,
    run: StudyRow,
    study: str,
    decided: Sequence[VerdictRow],
    stored: Sequence[PromotionRow],
    *,
    whole: bool,
    signed: bool,
) -> None:
    """Every candidate with the verdict promote and no revocation against it, and nobody else. When is as stored."""
    again = [
        PromotionRow(
            run_id=run.run_id, arm=row.arm, study=study, deployment_digest=row.deployment_digest,
            baseline_digest=row.baseline_digest, policy_digest=run.policy_digest, promoted_at=row.decided_at,
        )
        for row in decided
        if row.verdict == "promote" and row.role == "candidate" and row.deployment_digest and row.baseline_digest
    ]  # fmt: skip
    skip = {"promoted_at", "packet_digest", "valid_until"} if signed else {"promoted_at"}
    found.compare(PromotionRow, again, stored, skip=skip, whole=whole)
