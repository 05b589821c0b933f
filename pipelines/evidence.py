"""What a failed step leaves behind for whoever has to explain it."""

from __future__ import annotations

import dagster as dg

from assets.session import Session


@dg.failure_hook(name="keep_evidence", required_resource_keys={"session"})
def keep_evidence(context: dg.HookContext) -> None:
    """Stop the engines and remember the first error of the run; `settle` concludes it when the session ends."""
    session: Session = context.resources.session
    session.close_engines()
    session.error = session.error or context.op_exception
