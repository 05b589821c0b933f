"""Promotions that their signatures no longer carry: a key left the registry, or the evidence is not what was signed.

A decision settles the promotions of its run at once (`signing.record`); what changes without one is found here.
"""

from __future__ import annotations

from collections.abc import Callable

from assets.promoting import Signing, settle_promotions
from steelyard.environment import describe
from steelyard.errors import SteelyardError
from steelyard.gates.recompute_study import asked_of
from steelyard.records import PriceRow, PromotionRow, StudyRow
from steelyard.review.reviewers import registered
from warehouse.store import Store

SIGNED_IN_FORCE = """
    SELECT DISTINCT run_id FROM promotions_in_force JOIN promotions USING (run_id, arm)
    WHERE state = 'in force' AND promotions.valid_until IS NOT NULL ORDER BY run_id
"""


def withdraw_unsupported(store: Store, failed: Callable[[str], None] = lambda _: None) -> list[PromotionRow]:
    """Take back every promotion in force that lacks an approval it rested on; who signs again promotes again.

    Those of runs that were measured here: another machine's reviewers stand in its own registry. Where there is none,
    nothing is taken back. Raises InputError if the registry cannot be read; of a run that cannot be asked again
    `failed` is told, and its promotions stay.
    """
    gone: list[PromotionRow] = []
    if registered() is None:
        return gone
    here, seen = describe()["hostname_digest"], set[str]()
    # What is taken back may uncover an older promotion of the same arm.
    while runs := [each["run_id"] for each in store.rows(SIGNED_IN_FORCE) if each["run_id"] not in seen]:
        seen.update(runs)
        for run_id in runs:
            [run] = store.read(StudyRow, run_id=run_id)
            if run.hostname_digest == here:
                try:
                    gone += _withdrawn(store, run)
                except (SteelyardError, ValueError, TypeError, KeyError) as error:
                    failed(f"run {run_id}: {error}")
    return gone


def _withdrawn(store: Store, run: StudyRow) -> list[PromotionRow]:
    asked = asked_of(run, store.read(PriceRow, run_id=run.run_id))
    signing = Signing(store, asked.policy, run)
    before = store.read(PromotionRow, run_id=run.run_id)
    if not any(signing.lacking(row.arm) or signing.until(row.arm) != row.valid_until for row in before):
        return []
    after, _ = settle_promotions(store, asked, run)
    kept = {row.arm for row in after}
    return [row for row in before if row.arm not in kept]
