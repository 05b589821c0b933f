"""What happens to the evidence of a run that did not end well: it is kept, published and explained."""

from __future__ import annotations

import dagster as dg

from assets.released import write_report
from assets.runs import conclude
from assets.session import Session
from steelyard.records import StudyRow
from warehouse.publish import publish


@dg.failure_hook(name="keep_evidence", required_resource_keys={"session"})
def keep_evidence(context: dg.HookContext) -> None:
    """A void or failed study publishes its rows and its report too: they say why.

    An infrastructure failure keeps the run resumable (status `running`): what is measured stays, the same command
    goes on. A broken contract or control is final (status `void`).
    """
    session: Session = context.resources.session
    session.close_engines()
    session.error = session.error or context.op_exception
    running = session.store.read(StudyRow, status="running")
    reasons = [*session.void_reasons, *session.contract_failures]
    if not running or not reasons:
        return
    run = conclude(session.store, max(running, key=lambda row: row.started_at), "void", "; ".join(reasons))
    publish(session.store)
    write_report(session, run)
