"""The surveying step of a run, without Dagster: the baseline's profile and what it promises, before any trial."""

from __future__ import annotations

import json

from assets.measuring import live_arms
from assets.session import Session
from steelyard.home import logs_path
from steelyard.levers.survey import Surveyed, survey
from steelyard.records import StudyRow
from steelyard.records_profile import OpportunityRow
from steelyard.study_file import LoadedStudy

ROOM_BYTES = 6 << 30
"""What one more engine, its trace and the measuring of ceilings may take."""


def free_bytes() -> int:
    """Memory that nobody uses."""
    import psutil

    return int(psutil.virtual_memory().available)


def measure_profile(session: Session, loaded: LoadedStudy, run: StudyRow) -> None:
    """The survey of the baseline, where the study asks for it and nothing was timed yet.

    Of engines that take turns, or share an accelerator's memory, none may be up beside the one that is profiled. A
    resumed run that was killed meanwhile surveys again; one that has timed trials does not, because a prediction made
    afterwards is none.
    """
    study = loaded.study
    if study.profile is None:
        return
    points = len(study.load_points)
    done = bool(session.store.read(OpportunityRow, run_id=run.run_id))
    session.progress.stage("profile", points, points if done else 0)
    if done:
        return
    if session.store.done_trials(run.run_id):
        session.progress.say("no profile: trials were timed already, and a prediction made afterwards is none.")
        return
    live = live_arms(session, run)
    residents = session.residents(loaded, run.run_id, tuple(live))
    if not residents.resident or study.hardware.device != "cpu" or free_bytes() < ROOM_BYTES:
        residents.stop_all()
    asked = Surveyed(
        study=study,
        run_id=run.run_id,
        baseline=session.deployments(loaded)[0],
        digest=str(live["baseline"].deployment_digest),
        resolved={name: json.loads(row.resolved_json or "{}") for name, row in live.items()},
    )
    logs = logs_path() / run.run_id / "profile"
    session.store.write(survey(asked, study.profile, logs=logs, tell=session.progress.advance))
