"""The measuring steps of a run, without Dagster: start, trials, suites. Each commits what it has at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from assets.session import Session
from evals.runner import run_suite
from steelyard.digest import canonical
from steelyard.engines.base import Deployment, Engine
from steelyard.engines.probe import check_alive
from steelyard.engines.residency import Residents
from steelyard.errors import EngineError, InfrastructureError
from steelyard.load.blocks import run_blocks
from steelyard.load.trial import Trial
from steelyard.load.workloads import load_tokenizer
from steelyard.records import ArmRow, StudyRow
from steelyard.study import Arm
from steelyard.study_file import LoadedStudy


def start_engines(session: Session, loaded: LoadedStudy, run: StudyRow) -> list[ArmRow]:
    """Serve every arm once and store what each resolved to. An arm that cannot serve is a result; a baseline that
    cannot serves nobody and is raised.
    """
    residents = session.residents(loaded, run.run_id)
    failures = residents.start_all()
    session.store.write(
        [
            dataclasses.replace(
                run, residency="resident" if residents.resident else "exclusive", residency_reason=residents.reason
            )
        ]
    )
    known = {row.arm: row for row in session.store.read(ArmRow, run_id=run.run_id)}
    ready = {each.arm: each for each in session.deployments(loaded)}
    rows = []
    for arm in loaded.study.arms:
        if arm.name in failures:
            row = arm_row(run.run_id, arm, ready[arm.name], None, str(failures[arm.name]))
        else:
            with residents.use(arm.name) as engine:
                row = arm_row(run.run_id, arm, ready[arm.name], engine, None)
            refuse_changed(known.get(arm.name), row)
        session.store.write([row])
        rows.append(row)
    return rows


def arm_row(run_id: str, arm: Arm, ready: Deployment, engine: Engine | None, error: str | None) -> ArmRow:
    """An arm as asked for and, if it serves, as resolved."""
    return ArmRow(
        run_id=run_id,
        arm=arm.name,
        role=arm.role,
        lever=arm.lever,
        claim=f"{arm.claim.workload}@{arm.claim.load}" if arm.claim else None,
        note=arm.note,
        engine=arm.engine,
        engine_version=engine.version if engine else None,
        deployment_digest=engine.digest if engine else None,
        weights_digest=ready.weights_digest,
        tokenizer_digest=ready.tokenizer_digest,
        template_digest=ready.template_digest,
        args_json=canonical(dict(arm.args)),
        env_json=canonical(dict(arm.env)),
        resolved_json=canonical(dict(engine.resolved)) if engine else None,
        start_s=engine.start_s if engine else None,
        status="served" if engine else "failed",
        error=error,
    )


def refuse_changed(before: ArmRow | None, now: ArmRow) -> None:
    """A resumed run must go on with the deployments it began with, or its rows would mix two of them."""
    if before and before.deployment_digest and before.deployment_digest != now.deployment_digest:
        raise InfrastructureError(
            f"{now.arm} now serves deployment {str(now.deployment_digest)[:12]}, but this run measured "
            f"{before.deployment_digest[:12]} before it was interrupted.",
            remedy="The engine, its weights or the machine changed; begin anew with `steelyard run STUDY --fresh`.",
        )


def live_arms(session: Session, run: StudyRow) -> dict[str, ArmRow]:
    """Arms that serve, by name."""
    return {row.arm: row for row in session.store.read(ArmRow, run_id=run.run_id) if row.status == "served"}


def give_up(session: Session, run: StudyRow, arm: str, error: EngineError) -> None:
    """An arm stopped serving for good: its row says so, and the baseline's failure ends the run."""
    row = live_arms(session, run)[arm]
    session.store.write([dataclasses.replace(row, status="failed", error=str(error))])
    session.progress.say(f"{arm} failed: {error.message}")
    if row.role == "baseline":
        raise error


def measure_trials(session: Session, loaded: LoadedStudy, run: StudyRow) -> None:
    """Every trial not yet stored, in randomised blocks."""
    study = loaded.study
    live = live_arms(session, run)
    done = session.store.done_trials(run.run_id)
    session.progress.stage("trials", study.blocks * len(study.load_points) * len(live), len(done))

    def store(trial: Trial) -> None:
        session.store.write([trial.row], trial.requests, trial.metrics)
        session.progress.advance(f"{trial.row.arm} {trial.row.load_point} block {trial.row.block + 1}")

    run_blocks(
        study,
        session.residents(loaded, run.run_id, tuple(live)),
        load_tokenizer(session.deployments(loaded)[0].tokenizer),
        run_id=run.run_id,
        done=done,
        arms=list(live),
        on_trial=store,
        on_failure=lambda arm, error: give_up(session, run, arm, error),
    )


def measure_suites(session: Session, loaded: LoadedStudy, run: StudyRow) -> None:
    """Every suite of every live arm that is not yet stored."""
    study = loaded.study
    live = live_arms(session, run)
    done = session.store.done_suites(run.run_id)
    residents = session.residents(loaded, run.run_id, tuple(live))
    session.progress.stage("suites", len(study.suites) * len(live), len(done))
    for arm in live:
        wanted = [suite for suite in study.suites if (arm, suite.name) not in done]
        if not wanted:
            continue
        try:
            evaluate_arm(session, loaded, run, residents, arm, {suite.name: suite for suite in wanted})
        except EngineError as error:
            give_up(session, run, arm, error)


def evaluate_arm(
    session: Session, loaded: LoadedStudy, run: StudyRow, residents: Residents, arm: str, suites: Mapping[str, object]
) -> None:
    """The given suites against one arm, each committed with its samples."""
    with residents.use(arm) as engine:
        for suite in loaded.study.suites:
            if suite.name not in suites:
                continue
            result = run_suite(
                engine,
                suite,
                run_id=run.run_id,
                seed=loaded.study.seed,
                study_root=loaded.root,
                tokenizer=engine.deployment.tokenizer,
            )
            check_alive(engine)
            session.store.write([result.suite], result.samples)
            session.progress.advance(f"{arm} {suite.name}")
