"""What a night does once its studies are done: hold the ledger against the warehouse, take back what its signatures no
longer carry, thin old requests, and purge Dagster's own event log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from assets.session import Session
from assets.withdrawing import withdraw_unsupported
from steelyard.errors import SteelyardError
from steelyard.home import ledger_path, packets_path, snapshot_path
from steelyard.nightly.settings import Nightly
from steelyard.review.reviewers import registered
from warehouse.ledger import HEADS, heads
from warehouse.publish import publish
from warehouse.retention import thin
from warehouse.store import Store
from warehouse.verify import verify

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def upkeep(settings: Nightly, session: Callable[[], Session]) -> Iterator[tuple[str, str]]:
    """Do it; what failed, as title and text. One failure keeps nothing else from being done."""
    try:
        if problems := unlike_the_ledger():
            yield "the warehouse is not what its ledger says", "\n".join(problems)
    except SteelyardError as error:
        yield "the ledger could not be verified", str(error)
    # After it: what is taken back is in force no more, and would not be looked at.
    unasked: list[str] = []
    try:
        with session() as opened:
            if withdraw_unsupported(opened.store, unasked.append):
                publish(opened.store)
    except SteelyardError as error:
        unasked.append(str(error))
    if unasked:
        yield "promotions could not be held against their sign-offs", "\n".join(unasked)
    kept = settings.retention
    if kept is not None:
        try:
            with session() as opened:
                if thin(opened.store, after_days=kept.after_days, keep=kept.keep):
                    publish(opened.store)
        except SteelyardError as error:
            yield "retention failed", str(error)
    if settings.dagster_days is not None:
        try:
            with dg.DagsterInstance.get() as instance:
                purge(instance, older_than=datetime.now(UTC) - timedelta(days=settings.dagster_days))
        except Exception as error:  # noqa: BLE001
            # Dagster's storage may be a database far away, with errors of its own; none of them is worth the night.
            yield "Dagster's event log could not be purged", f"{type(error).__name__}: {error}"


def unlike_the_ledger() -> list[str]:
    """What `steelyard verify` finds, of the runs whose promotions are in force: somebody serves what they say."""
    if not snapshot_path().is_file():
        return []
    with Store.open_published() as store:
        names = store.query("SELECT DISTINCT run_id FROM promotions_in_force WHERE state = 'in force'").run_id
        told = heads(ledger_path() / HEADS)
        return verify(
            store, run_ids=list(names), told=told, pages=packets_path(), registry=registered()
        ).problems  # fmt: skip


def purge(instance: dg.DagsterInstance, *, older_than: datetime) -> list[str]:
    """Delete runs that ended, with their events; their ids. The newest of each job stays, so that every asset shows its
    last state. Evidence is in the warehouse, which this never opens.
    """
    newest: set[str] = set()
    gone = []
    for record in instance.get_run_records(filters=dg.RunsFilter(statuses=list(ENDED))):
        run = record.dagster_run
        if run.job_name not in newest:
            newest.add(run.job_name)
        elif record.create_timestamp.replace(tzinfo=UTC) < older_than:
            instance.delete_run(run.run_id)
            gone.append(run.run_id)
    return gone
