"""Who is promoted: every gate evaluated again from stored rows, revocations and sign-offs asked for once more."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from assets.attempts import attempt_problems
from assets.incidents import carried
from assets.sealing import promotion_draft
from steelyard.confirmation import awaits_confirmation, promoted_study
from steelyard.finops.price_book import PriceBook
from steelyard.gates.evaluate import scopes_in
from steelyard.gates.policy import Policy
from steelyard.gates.promotion import promotion_refusals
from steelyard.gates.recompute import recompute_problems
from steelyard.home import reviewers_path
from steelyard.records import ArmRow, ComparisonRow, GateRow, PromotionRow, StudyRow, UnitCostRow, VerdictRow
from steelyard.records_incidents import RevocationRow
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.records_review import SignOffRow
from steelyard.records_trials import ProbeRow, TrialRow
from steelyard.review.chain import WITHDRAWAL, Draft
from steelyard.review.reviewers import load_reviewers
from steelyard.review.standing import counting, lacking, until
from steelyard.study import Study
from warehouse.evidence import digest_now, sealed
from warehouse.ledger import recorded
from warehouse.store import Store
from warehouse.writing import insert


class Asked(Protocol):
    """What a run was asked: as a file says it now (`LoadedStudy`), or as the run froze it (`recompute_study.Asked`)."""

    @property
    def study(self) -> Study: ...
    @property
    def policy(self) -> Policy: ...
    @property
    def prices(self) -> PriceBook: ...
    @property
    def policy_digest(self) -> str: ...


def promote(store: Store, asked: Asked, run: StudyRow) -> tuple[list[PromotionRow], dict[str, list[str]]]:
    """Promotions that stored evidence supports, and why the others whose verdict claims one are refused.

    The run is `releasable`: the reasons that would void it as a whole were asked for there.
    """
    rows: list[PromotionRow] = []
    refused: dict[str, list[str]] = {}
    verdicts = store.read(VerdictRow, run_id=run.run_id)
    if awaits_confirmation(asked.study, asked.policy):
        waits = "the policy promotes a campaign's winner only once it is confirmed: steelyard confirm"
        return rows, {row.arm: [waits] for row in verdicts if row.verdict == "promote"}
    # What earlier runs revoked is asked again: an asset materialized alone would pass `incidents` by.
    stands = [*carried(store, run, promoted_study(asked.study)), *store.read(RevocationRow, run_id=run.run_id)]
    revoked = {row.arm: row for row in stands}
    refuse = partial(
        promotion_refusals,
        asked.policy,
        asked.policy_digest,
        run_id=run.run_id,
        **scopes_in(asked.study),
        arms=store.read(ArmRow, run_id=run.run_id),
        comparisons=store.read(ComparisonRow, run_id=run.run_id),
        gates=store.read(GateRow, run_id=run.run_id),
        verdict_rows=verdicts,
        suite_rows=store.read(SuiteRow, run_id=run.run_id),
        problems=[*changed_evidence(store, asked, run), *miscounted(store, asked, run)],
    )
    signing = Signing(store, asked.policy, run)
    for verdict in verdicts:
        if verdict.verdict != "promote":
            continue
        why = refuse(arm=verdict.arm)
        if taken := revoked.get(verdict.arm):
            why = [*why, f"run {taken.confirmed_by} took its promotion back: {taken.reason}"]
        why = [*why, *signing.lacking(verdict.arm)]
        if why or verdict.deployment_digest is None or verdict.baseline_digest is None:
            refused[verdict.arm] = why or ["a deployment digest is missing"]
            continue
        rows.append(
            PromotionRow(
                run_id=run.run_id,
                arm=verdict.arm,
                study=promoted_study(asked.study),
                deployment_digest=verdict.deployment_digest,
                baseline_digest=verdict.baseline_digest,
                policy_digest=run.policy_digest,
                promoted_at=datetime.now(UTC),
                packet_digest=signing.packet_digest,
                valid_until=signing.until(verdict.arm),
            )
        )
    return rows, refused


def miscounted(store: Store, asked: Asked, run: StudyRow) -> list[str]:
    """Attempts that are stored as less than they are, where the policy makes them cost something."""
    if asked.policy.attempts == "free":
        return []
    return attempt_problems(store, store.read(ArmRow, run_id=run.run_id))


def changed_evidence(store: Store, asked: Asked, run: StudyRow) -> list[str]:
    """Stored comparisons that the stored trials and samples no longer give."""
    return recompute_problems(
        run.run_id,
        asked.policy,
        blocks=asked.study.blocks,
        arms=store.read(ArmRow, run_id=run.run_id),
        trials=store.read(TrialRow, run_id=run.run_id),
        suites=store.read(SuiteRow, run_id=run.run_id),
        samples=store.read(SampleRow, run_id=run.run_id),
        costs=store.read(UnitCostRow, run_id=run.run_id),
        comparisons=store.read(ComparisonRow, run_id=run.run_id),
        price=asked.prices.price(asked.study.hardware.price),
        divergences=store.read(DivergenceRow, run_id=run.run_id),
        probes=store.read(ProbeRow, run_id=run.run_id),
        searches=asked.study.capacity,
    )


class Signing:
    """The sign-offs of a run as they count now, where its policy asks for any."""

    def __init__(self, store: Store, policy: Policy, run: StudyRow) -> None:
        self.roles = policy.sign_offs
        self.packet_digest: str | None = None
        self._run = run
        if self.roles:
            self._rows = store.read(SignOffRow, run_id=run.run_id)
            self._registry = load_reviewers(reviewers_path())
            # Of the rows as they are now, not as they were sealed: what was changed since was not signed.
            self.packet_digest = digest_now(store, run.run_id)

    def lacking(self, arm: str) -> list[str]:
        """Why the arm must not be promoted (any more)."""
        if not self.roles:
            return []
        found = lacking(self.roles, self._counting(arm))
        signed = sorted({row.packet_digest for row in self._rows} - {self.packet_digest})
        if found and signed:
            return [f"the evidence is not what was signed (packet {', '.join(each[:12] for each in signed)})", *found]
        return found

    def until(self, arm: str) -> datetime | None:
        """Until when the approvals last, of an arm that lacks none."""
        return until(self.roles, self._counting(arm)) if self.roles else None

    def _counting(self, arm: str) -> list[SignOffRow]:
        assert self.packet_digest is not None
        return counting(self._rows, arm, self._run, self.packet_digest, self._registry, datetime.now(UTC))


def settle_promotions(store: Store, asked: Asked, run: StudyRow) -> tuple[list[PromotionRow], dict[str, list[str]]]:
    """Make the stored promotions of a run those that its evidence and its sign-offs support now; with who is refused.

    Of a run whose evidence is sealed each change is an entry of the ledger; before that its seal names them.
    """
    before = {row.arm: row for row in store.read(PromotionRow, run_id=run.run_id)}
    rows, refused = promote(store, asked, run)
    rows = [_since(before.get(row.arm), row) for row in rows]
    after = {row.arm: row for row in rows}
    changes = [
        *(promotion_draft(row) for arm, row in after.items() if before.get(arm) != row),
        *(
            Draft(kind=WITHDRAWAL, run_id=run.run_id, payload={"arm": arm, "why": refused.get(arm, [])})
            for arm in before
            if arm not in after
        ),
    ]
    if sealed(store, run.run_id) is None:
        store.replace_run(run.run_id, PromotionRow, rows)
    elif changes:
        with recorded(store, changes) as connection:
            connection.execute("DELETE FROM promotions WHERE run_id = ?", [run.run_id])
            if rows:
                insert(connection, PromotionRow, rows)
    return rows, refused


def _since(before: PromotionRow | None, row: PromotionRow) -> PromotionRow:
    """The same promotion asked for again is as old as it was."""
    again = before is not None and dataclasses.replace(row, promoted_at=before.promoted_at, valid_until=None)
    return (
        row
        if before is None or again != dataclasses.replace(before, valid_until=None)
        else dataclasses.replace(row, promoted_at=before.promoted_at)
    )
