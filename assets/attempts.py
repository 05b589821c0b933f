"""Which attempt of a lever an arm is: who tries often enough is promoted by noise once, unless tries are counted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from steelyard.records import ArmRow
from warehouse.store import Store

EARLIER = """
    SELECT count(*) FROM verdicts JOIN arms USING (run_id, arm)
    WHERE verdicts.baseline_digest = ? AND arms.lever = ? AND arms.claim = ? AND verdicts.run_id <> ?
        AND verdicts.verdict IN ('reject', 'inconclusive') AND arms.status = 'served'
"""


def numbered(store: Store, rows: Sequence[ArmRow]) -> list[ArmRow]:
    """The arms of a run with their attempts, in the order given.

    Counted are earlier verdicts on the same lever at the same claim against the same baseline deployment, other than
    promotions: who was promoted is validated again, not tried again. A void run judged nothing, and of an arm that did
    not serve nothing was seen. Arms of the same run count in the study's order. An arm that has its number keeps it, so
    that a resumed run goes on as it began.
    """
    baseline = next((row.deployment_digest for row in rows if row.role == "baseline"), None)
    before: Counter[tuple[str | None, str | None]] = Counter()
    found = []
    for row in rows:
        key = (row.lever, row.claim)
        attempt = row.attempt
        if attempt is None and row.role == "candidate":
            earlier = int(store.scalar(EARLIER, [baseline, *key, row.run_id]))
            attempt = earlier + before[key] + 1
        before[key] += row.status == "served"
        found.append(dataclasses.replace(row, attempt=attempt))
    return found
