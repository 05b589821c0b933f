"""Retention: raw request rows are thinned after a time, so that the disk does not grow for ever; nothing else goes.

Trials, samples, comparisons, verdicts and every other row stay. Of a trial's good requests an even share is kept, of
the failed ones all: what went wrong is what people look for years later. A run that a decision rests on today keeps
everything: the newest complete one of its study, any with a promotion in force, the newest promotion of each arm (it
may come back into force when its engine does), any with a sign-off that has not expired, and any that has not ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from steelyard.records import StudyRow
from steelyard.records_keeping import ThinningRow
from steelyard.records_trials import RequestRow
from steelyard.review.chain import THINNING, Draft
from steelyard.review.evidence import evidence_of, row_digest
from warehouse.ledger import recorded
from warehouse.store import Store
from warehouse.writing import insert, revise

_IN_USE = """
SELECT run_id FROM promotions_in_force WHERE state = 'in force'
UNION SELECT arg_max(run_id, promoted_at) FROM promotions GROUP BY study, arm
UNION SELECT latest_complete_run_id FROM latest_runs
UNION SELECT run_id FROM studies WHERE status = 'running'
UNION SELECT run_id FROM sign_offs WHERE expires_at > make_timestamp(epoch_us(now()))
"""

# Evenly over a trial, by the place of a request among its good ones: whoever plots what is left sees the whole trial.
_THIN = """
DELETE FROM requests WHERE run_id = $run_id AND (trial_id, request_index) IN (
    SELECT (trial_id, request_index) FROM (
        SELECT trial_id, request_index, row_number() OVER (PARTITION BY trial_id ORDER BY request_index) AS place
        FROM requests WHERE run_id = $run_id AND status = 'ok'
    )
    WHERE ceil(place * $keep) = ceil((place - 1) * $keep)
)
"""


@dataclass(frozen=True, slots=True)
class Thinning:
    """A run that is old enough: its request rows, and how many would be or are left."""

    run_id: str
    requests: int
    kept: int


def thin(
    store: Store, *, after_days: int, keep: float, now: datetime | None = None, dry: bool = False
) -> list[Thinning]:
    """Thin the requests of every run that began more than `after_days` ago to the share `keep`; what was thinned.

    A run is thinned once; one whose rows were kept in full as long as a decision rested on it comes later. With `dry`
    nothing changes, and `kept` is an estimate. Raises InfrastructureError, and a run keeps all it had, if it cannot be
    written.
    """
    now = now or datetime.now(UTC)
    spared = {run_id for (run_id,) in store.query(_IN_USE).itertuples(index=False)}
    done = {row.run_id for row in store.read(ThinningRow)}
    old = [
        row.run_id
        for row in store.read(StudyRow)
        if row.started_at < now - timedelta(days=after_days) and row.run_id not in spared | done
    ]
    found = []
    for run_id in sorted(old):
        before = int(store.scalar("SELECT count(*) FROM requests WHERE run_id = ?", [run_id]))
        if before and dry:
            good = int(store.scalar("SELECT count(*) FROM requests WHERE run_id = ? AND status = 'ok'", [run_id]))
            found.append(Thinning(run_id, before, before - good + round(good * keep)))
        elif before:
            found.append(_thin(store, run_id, before, after_days, keep, now))
    return found


def _thin(store: Store, run_id: str, before: int, after_days: int, keep: float, now: datetime) -> Thinning:
    drafts: list[Draft] = []
    with recorded(store, drafts) as connection:
        connection.execute(_THIN, {"run_id": run_id, "keep": keep})
        [(kept,)] = connection.execute("SELECT count(*) FROM requests WHERE run_id = ?", [run_id]).fetchall()
        revise(connection, [run_id])
        row = ThinningRow(
            run_id=run_id, thinned_at=now, after_days=after_days, keep=keep, requests_before=before, requests_kept=kept
        )
        insert(connection, ThinningRow, [row])
        left = evidence_of({RequestRow: store.read(RequestRow, run_id=run_id)}).get(RequestRow.TABLE)
        drafts.append(Draft(kind=THINNING, run_id=run_id, payload={"requests": left, "row": row_digest(row)}))
    return Thinning(run_id, before, kept)
