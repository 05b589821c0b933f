"""`steelyard run`: the same job as the web UI's, without it, with bars, a table of verdicts and one JSON line."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import dagster as dg

from assets.progress import Silent
from assets.released import publish_late, settle
from assets.session import Session
from pipelines.definitions import build, job_name
from pipelines.display import Display
from steelyard.confirmation import awaits_confirmation, confirmation, winner
from steelyard.engines.stale import reap_stale
from steelyard.errors import InfrastructureError, InputError, SteelyardError, StudyVoid
from steelyard.files import write_whole
from steelyard.home import dagster_home, home, quiet, reports_path, snapshot_path
from steelyard.records import ArmRow, GateRow, StudyRow, UnitCostRow, VerdictRow
from steelyard.records_quality import DivergenceRow
from steelyard.records_time import WallTimeRow
from steelyard.reports.spent import Spent
from steelyard.reports.terminal import WIDE, console_of, divergence_table, reasons, verdict_table
from steelyard.study_file import LoadedStudy, load_study
from warehouse.store import Store

CONFIG = Path(__file__).parent.parent / "dagster.yaml"
POSTGRES = "STEELYARD_DAGSTER_POSTGRES"
QUIET_CONSOLE = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def on_stderr(text: str) -> None:
    """Say something at once, beside the result."""
    print(text, file=sys.stderr, flush=True)


def run_study(path: Path, *, fresh: bool = False, silent: bool = False, wait_s: float = 0.0) -> int:
    """Run or resume one study; 0 for a complete run, else the error that stopped it is raised.

    It waits `wait_s` for another run on this state folder. The last line on stdout is one JSON object: study, run_id,
    status, verdicts, warehouse, report. A void study prints
    it too, before StudyVoid (exit 3) is raised.
    """
    return run_loaded(load_study(path), fresh=fresh, silent=silent, wait_s=wait_s)


def confirm_winner(path: Path, *, arm: str | None = None, fresh: bool = False, silent: bool = False) -> int:
    """Run or resume the confirmation of a candidate of the study's newest complete run, by default of its winner.

    A run is confirmed once: sealed documents that were asked are not sealed, and who may choose again chooses by luck.
    An interrupted confirmation is resumed; with `fresh` it is begun anew only while no sealed document was asked.
    Raises InputError if it was, if the study as it stands now has no such run, or if there is nobody to confirm.
    Otherwise as `run_study`.
    """
    loaded = load_study(path)
    with Session() as session:
        publish_late(session)
        run = newest_complete(session.store, loaded)
        if run is None:
            raise InputError(
                f"Study {loaded.study.study}, as it stands now, has no complete run.",
                remedy=f"Run it first: steelyard run {path}",
            )
        verdicts = session.store.read(VerdictRow, run_id=run.run_id)
        chosen = winner(loaded.policy, verdicts, session.store.read(GateRow, run_id=run.run_id), arm)
        confirming = confirmation(loaded, run, chosen)
        if done := confirmations(session.store, confirming, fresh=fresh):
            raise InputError(
                f"Run {run.run_id} has its confirmation already: {done[0].run_id}, {done[0].status}."
                if done[0].status == "complete"
                else f"Sealed documents of run {run.run_id} were asked already: {done[0].run_id}, {done[0].status}.",
                remedy="Run the campaign again, and confirm that run's winner.",
            )
    return run_loaded(confirming, fresh=fresh, silent=silent)


def newest_complete(store: Store, loaded: LoadedStudy) -> StudyRow | None:
    """The newest complete run of exactly this study, policy and prices; None without one."""
    name, digest = loaded.study.study, loaded.study_digest
    runs = store.read(StudyRow, study=name, study_digest=digest, status="complete")
    return max(runs, key=lambda row: row.started_at, default=None)


def confirmations(store: Store, confirming: LoadedStudy, *, fresh: bool) -> list[StudyRow]:
    """Runs that have confirmed the same campaign's run already, or have asked sealed documents for it and will not be
    resumed: whoever saw their answers could stop what looks bad and try again.
    """
    named = store.read(StudyRow, study=confirming.study.study)
    begun = [row for row in named if json.loads(row.study_json).get("confirms") == confirming.study.confirms]
    return [
        row
        for row in begun
        if row.status == "complete"
        or row.study_digest != confirming.study_digest
        or (store.done_suites(row.run_id) and (fresh or row.status != "running"))
    ]


def run_loaded(
    loaded: LoadedStudy, *, fresh: bool = False, silent: bool = False, tells: bool = True, wait_s: float = 0.0
) -> int:
    """`run_study` of a study that was read already. Without `tells` a complete run prints nothing."""
    quiet()
    prepare_dagster_home()
    tell_of_stale()
    display = None if silent else Display(loaded)
    with Session(display or Silent(), fresh=fresh, wait_s=wait_s) as session:
        publish_late(session)
        with display or nullcontext():
            success = execute(loaded, session)
        settle(session)
        error = None if success else stopped_by(session)
        if (success and tells) or isinstance(error, StudyVoid):
            tell(loaded, session)
    if error is not None:
        raise error
    return 0


def tell_of_stale(tell: Callable[[str], None] = on_stderr) -> None:
    """End what killed runs left behind, and say so."""
    for left in reap_stale():
        tell(f"stopped an engine that a killed run left behind: {left}")


def prepare_dagster_home() -> None:
    """DAGSTER_HOME under our own home, with our own settings: everywhere else its telemetry is on by default.

    With STEELYARD_DAGSTER_POSTGRES (postgresql://user:password@host/database) runs, events and schedules are stored
    there; the password stays in the environment. Raises InputError if that needs a package which is not installed.
    """
    folder = dagster_home()
    text = CONFIG.read_text("utf-8")
    if os.environ.get(POSTGRES):
        if importlib.util.find_spec("dagster_postgres") is None:
            raise InputError(
                f"{POSTGRES} is set, and dagster-postgres is not installed.",
                remedy="pip install 'steelyard[postgres]', or unset it to store beside the warehouse.",
            )
        # SQLAlchemy 2.1 takes another driver by default than the one that dagster-postgres brings.
        os.environ[POSTGRES] = re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", os.environ[POSTGRES])
        text += f"storage:\n  postgres:\n    postgres_url:\n      env: {POSTGRES}\n"
    path = folder / "dagster.yaml"
    if not path.is_file() or path.read_text("utf-8") != text:
        write_whole(path, text)
    os.environ["DAGSTER_HOME"] = str(folder)


def execute(loaded: LoadedStudy, session: Session) -> bool:
    """Execute the study's job in this process; whether it succeeded. Dagster's event log goes to its own storage."""
    job = build([loaded], session).resolve_job_def(job_name(loaded))
    with dg.DagsterInstance.get() as instance:
        return job.execute_in_process(run_config=QUIET_CONSOLE, instance=instance, raise_on_error=False).success


def stopped_by(session: Session) -> SteelyardError:
    """The reason the job failed, as one of our errors."""
    reasons = [reason for run_id in session.run_ids for reason in session.findings(run_id)]
    if reasons:
        return StudyVoid("The study is void: " + "; ".join(reasons) + ".", remedy="The report shows the evidence.")
    if isinstance(session.error, SteelyardError):
        return session.error
    if session.error is None:
        return InfrastructureError(
            "The run was interrupted.", remedy="What was measured is kept; the same command resumes."
        )
    return InfrastructureError(
        f"The run stopped: {type(session.error).__name__}: {session.error}",
        remedy=f"What was measured is kept; the same command resumes. Logs: {home() / 'logs'}.",
    )


def tell(loaded: LoadedStudy, session: Session) -> None:
    """The table of verdicts, and the JSON line."""
    run = session.run(loaded)
    with suppress(SteelyardError):
        # The verdicts are told whatever becomes of the account.
        session.keep_time(run)
    spent = Spent(session.store.read(WallTimeRow, run_id=run.run_id))
    verdicts = session.store.read(VerdictRow, run_id=run.run_id)
    console = console_of(160)
    arms = session.store.read(ArmRow, run_id=run.run_id)
    table = verdict_table(
        verdicts,
        arms,
        session.store.read(GateRow, run_id=run.run_id),
        session.store.read(UnitCostRow, run_id=run.run_id),
        width=console.width,
    )
    console.print(table)
    if console.width < WIDE:
        for reason in reasons(verdicts):
            console.print(f"- {reason}", markup=False, highlight=False)
    if awaits_confirmation(loaded.study, loaded.policy) and any(row.verdict == "promote" for row in verdicts):
        console.print("\nNobody is promoted yet: the winner is to be confirmed with `steelyard confirm`.", markup=False)
    if loaded.policy.sign_offs and any(row.verdict == "promote" for row in verdicts):
        roles = " and ".join(loaded.policy.sign_offs)
        console.print(f"\nNothing is promoted before {roles} sign: steelyard review {run.run_id}", markup=False)
    if divergences := session.store.read(DivergenceRow, run_id=run.run_id):
        console.print()
        console.print(divergence_table(divergences, arms))
    console.print(f"\ntime       {spent}", highlight=False)
    console.print(f"report     {reports_path() / f'{run.run_id}.html'}", highlight=False, soft_wrap=True)
    console.print(f"warehouse  {snapshot_path()}\n", highlight=False, soft_wrap=True)
    print(json.dumps(summary(run, verdicts)), flush=True)


def summary(run: StudyRow, verdicts: list[VerdictRow]) -> dict[str, Any]:
    """The machine-readable end of a run."""
    return {
        "study": run.study,
        "run_id": run.run_id,
        "status": run.status,
        "verdicts": {row.arm: row.verdict for row in verdicts},
        "warehouse": str(snapshot_path()),
        "report": str(reports_path() / f"{run.run_id}.html"),
    }
