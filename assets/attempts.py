"""Which attempt of a candidate an arm is: who tries often enough is promoted by noise, unless tries are counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from steelyard.records import ArmRow
from warehouse.store import Store

# Measured is what has a trial or a suite. Runs that were given up count too: whoever does not like what he sees could
# otherwise stop the night and begin anew. Searches do not: nothing that they measured is used by a verdict.
EARLIER = """
    SELECT count(*) FROM arms AS tried
    JOIN studies USING (run_id)
    JOIN arms AS reference ON reference.run_id = tried.run_id AND reference.role = 'baseline'
    LEFT JOIN verdicts ON verdicts.run_id = tried.run_id AND verdicts.arm = tried.arm
    WHERE reference.deployment_digest = ? AND (tried.arm = ? OR tried.deployment_digest = ?)
        AND tried.role = 'candidate' AND tried.status = 'served'
        AND studies.started_at < (SELECT started_at FROM studies WHERE run_id = ?)
        AND NOT EXISTS (SELECT 1 FROM searches WHERE searches.run_id = tried.run_id)
        AND studies.status <> 'void' AND coalesce(verdicts.verdict, 'none') NOT IN ('promote', 'void')
        AND (
            EXISTS (SELECT 1 FROM suites WHERE suites.run_id = tried.run_id AND suites.arm = tried.arm)
            OR EXISTS (SELECT 1 FROM trials WHERE trials.run_id = tried.run_id AND trials.arm = tried.arm)
        )
"""


def numbered(store: Store, rows: Sequence[ArmRow]) -> list[ArmRow]:
    """The arms of a run with their attempts, in the order given; only candidates that serve have one.

    An attempt is an earlier run that measured the same candidate, by name or by what it served, against the same
    baseline deployment, and did not promote it: who was promoted is validated again, not tried again. A void run judged
    nothing. An arm that has its number keeps it, so that a resumed run goes on as it began.
    """
    baseline = next((row.deployment_digest for row in rows if row.role == "baseline"), None)
    return [
        dataclasses.replace(row, attempt=1 + _earlier(store, row, baseline))
        if row.role == "candidate" and row.status == "served" and row.attempt is None
        else row
        for row in rows
    ]


def attempt_problems(store: Store, rows: Sequence[ArmRow]) -> list[str]:
    """Candidates whose stored attempt is less than the warehouse's earlier runs give. A promotion asks."""
    afresh = numbered(store, [dataclasses.replace(row, attempt=None) for row in rows])
    counted = {row.arm: row.attempt for row in afresh}
    return [
        f"{row.arm} is stored as attempt {row.attempt}, and the warehouse holds {counted[row.arm]}"
        for row in rows
        if (counted[row.arm] or 1) > (row.attempt or 1)
    ]


def _earlier(store: Store, row: ArmRow, baseline: str | None) -> int:
    return int(store.scalar(EARLIER, [baseline, row.arm, row.deployment_digest, row.run_id]))
