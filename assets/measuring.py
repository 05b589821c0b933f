"""The measuring steps of a run, without Dagster: start, trials, screen. Each commits what it has at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from assets.ahead import imports_beside
from assets.attempts import numbered
from assets.evidence import Evidence
from assets.runs import conclude
from assets.session import Session
from evals.divergence import Reference, diverge, reference
from evals.divergence_prompts import prompts_of
from steelyard.digest import canonical
from steelyard.engines.base import Deployment, Engine
from steelyard.engines.probe import check_alive
from steelyard.engines.residency import Residents
from steelyard.errors import EngineError, InfrastructureError
from steelyard.load.blocks import order_of, run_blocks
from steelyard.load.trial import Trial, trial_id
from steelyard.load.workloads import load_tokenizer
from steelyard.records import ArmRow, StudyRow
from steelyard.records_quality import DivergenceRow
from steelyard.study import Arm
from steelyard.study_divergence import Divergence
from steelyard.study_file import LoadedStudy


def start_engines(session: Session, loaded: LoadedStudy, run: StudyRow) -> list[ArmRow]:
    """Serve every arm once and store what each resolved to. An arm that cannot serve is a result; a baseline that
    cannot serves nobody and is raised.

    In a resumed run that has measured something, an arm that had failed stays failed: its missing trials would be
    measured alone, hours after the blocks they belong to. One that needs nothing more is not started, so that what it
    came to cannot be lost. If nothing is left to measure, nothing is started.
    """
    known = {row.arm: row for row in session.store.read(ArmRow, run_id=run.run_id)}
    begun = bool(session.store.done_trials(run.run_id) or session.store.done_suites(run.run_id))
    left = arms_left(session, loaded, run) if begun else set[str]()
    if begun and not left and "baseline" in live_arms(session, run):
        return list(known.values())
    dropped = {name for name in known if begun and name != "baseline" and name not in left}
    names = [arm.name for arm in loaded.study.arms if arm.name not in dropped]
    residents = session.residents(loaded, run.run_id, names)
    with imports_beside():
        failures = residents.start_all()
    mode = "resident" if residents.resident else "exclusive"
    session.store.write([dataclasses.replace(run, residency=mode, residency_reason=residents.reason)])
    ready = {each.arm: each for each in session.deployments(loaded)}
    rows = []
    for arm in loaded.study.arms:
        before = known.get(arm.name)
        if arm.name in dropped and before is not None:
            rows.append(before)
            continue
        if arm.name in failures:
            row = failed_row(run.run_id, arm, ready[arm.name], before, failures[arm.name])
        else:
            row = arm_row(run.run_id, arm, ready[arm.name], residents.seen[arm.name], None)
            refuse_changed(session, run, before, row)
        row = dataclasses.replace(row, attempt=before.attempt if before else None)
        session.store.write([row])
        rows.append(row)
    rows = numbered(session.store, rows)
    session.store.write(rows)
    return rows


def arms_left(session: Session, loaded: LoadedStudy, run: StudyRow) -> set[str]:
    """Live arms that have not all the trials, divergences, suites and searches that their gates ask for."""
    evidence = Evidence(session, loaded, run)
    found = {arm for arm, _, _ in trials_left(evidence, session, loaded, run)}
    found |= {arm for arm in evidence.live if evidence.searches_left_of(arm)}
    found |= {arm for arm in evidence.live if arm != "baseline" and evidence.waiting(arm)}
    return found | set(unscreened(session, loaded, run))


def trials_left(evidence: Evidence, session: Session, loaded: LoadedStudy, run: StudyRow) -> list[tuple[str, str, int]]:
    """Trials of live arms that are wanted and not stored: arm, load point, block."""
    done = session.store.done_trials(run.run_id)
    return [
        (arm, point.name, block)
        for block in range(loaded.study.blocks)
        for point in loaded.study.load_points
        for arm in evidence.live
        if evidence.wants_trial(arm, point.name, block) and trial_id(run.run_id, arm, point.name, block) not in done
    ]


def unscreened(session: Session, loaded: LoadedStudy, run: StudyRow) -> list[str]:
    """Live arms, the baseline aside, whose divergences the study asks for and are not stored. The rows of an arm are
    written at once, so one of them means all.
    """
    if loaded.study.divergence is None:
        return []
    screened = {row.arm for row in session.store.read(DivergenceRow, run_id=run.run_id)}
    return [arm for arm in live_arms(session, run) if arm != "baseline" and arm not in screened]


def failed_row(run_id: str, arm: Arm, ready: Deployment, before: ArmRow | None, error: EngineError) -> ArmRow:
    """An arm that does not serve (now). What it resolved to before stays: its rows were measured on that."""
    if before is not None and before.deployment_digest:
        return dataclasses.replace(before, status="failed", error=str(error))
    return arm_row(run_id, arm, ready, None, str(error))


def arm_row(run_id: str, arm: Arm, ready: Deployment, engine: Engine | None, error: str | None) -> ArmRow:
    """An arm as asked for and, if it serves, as resolved."""
    return ArmRow(
        run_id=run_id,
        arm=arm.name,
        role=arm.role,
        lever=arm.lever,
        claim=arm.claim.load_point if arm.claim else None,
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
        model=ready.model_name,
    )


def refuse_changed(session: Session, run: StudyRow, before: ArmRow | None, now: ArmRow) -> None:
    """A resumed run must go on with the deployments it began with, or its rows would mix two of them.

    The run is given up, so that the next one (the nightly's, which nobody tells to begin afresh) begins anew.
    """
    if before and before.deployment_digest and before.deployment_digest != now.deployment_digest:
        conclude(session.store, run, "failed", f"given up: {now.arm} serves another deployment than when it began")
        raise InfrastructureError(
            f"{now.arm} now serves deployment {str(now.deployment_digest)[:12]}, but this run measured "
            f"{before.deployment_digest[:12]} before it was interrupted.",
            remedy="The engine, its weights or its environment changed. The run was given up; run again to begin anew.",
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
    evidence = Evidence(session, loaded, run)
    live = evidence.live
    left = len(trials_left(evidence, session, loaded, run))
    expected = study.blocks * len(study.load_points) * len(live)
    session.progress.stage("trials", expected, expected - left)
    if not left:
        return

    def store(trial: Trial) -> None:
        session.store.write([trial.row], trial.requests, trial.metrics)
        evidence.add_trial(trial.row)
        session.progress.advance(f"{trial.row.arm} {trial.row.load_point} block {trial.row.block + 1}")

    def dropped(arm: str, error: EngineError) -> None:
        evidence.drop(arm)
        give_up(session, run, arm, error)

    points = [point.name for point in study.load_points]
    timed = [arm for arm in live if any(evidence.wants_trial(arm, point, 0) for point in points)]
    run_blocks(
        study,
        renewed(session, loaded, run, live, timed),
        load_tokenizer(session.deployments(loaded)[0].tokenizer),
        run_id=run.run_id,
        done=session.store.done_trials(run.run_id),
        arms=live,
        on_trial=store,
        on_failure=dropped,
        wanted=evidence.wants_trial,
    )
    if spared := expected - len(session.store.done_trials(run.run_id)):
        session.progress.say(f"{spared} of {expected} trials were not needed: their gates were decided.")


def renewed(
    session: Session, loaded: LoadedStudy, run: StudyRow, live: Sequence[str], timed: Sequence[str]
) -> Residents:
    """The engines of live arms, those that will be `timed` started anew in random order.

    What an arm was asked before must not show in how fast it is, and the baseline was asked most.
    """
    residents = session.residents(loaded, run.run_id, tuple(live))
    residents.renew(order_of(timed, seed=loaded.study.seed, block=0, scope=f"starts of {run.run_id}"))
    return residents


def measure_divergence(session: Session, loaded: LoadedStudy, run: StudyRow) -> None:
    """The divergence of every live arm that is not yet screened, where the study asks for it.

    The baseline's answers are not stored, so a resumed run asks it again: the very deployment the run recorded.
    """
    screen = loaded.study.divergence
    if screen is None:
        return
    live, waiting = live_arms(session, run), unscreened(session, loaded, run)
    session.progress.stage("screen", len(live) - 1, len(live) - 1 - len(waiting))
    if not waiting:
        return
    residents = session.residents(loaded, run.run_id, tuple(live))
    asked: Reference | None = None
    for arm in ["baseline", *waiting]:
        for last in (False, True):
            try:
                if asked is None:
                    asked = ask_baseline(loaded, screen, residents, live["baseline"])
                else:
                    screen_arm(session, run, residents, arm, asked)
                break
            except EngineError as error:
                # Once more, as for trials and suites.
                if last:
                    give_up(session, run, arm, error)
                else:
                    session.progress.say(f"{arm}: {error.message} Trying once more.")


def ask_baseline(loaded: LoadedStudy, screen: Divergence, residents: Residents, known: ArmRow) -> Reference:
    """The baseline's answers to the prompts of the screen. Raises InfrastructureError if it is another deployment."""
    study = loaded.study
    prompts = prompts_of(study.suites, screen.prompts, seed=study.seed, study_root=loaded.root)
    with residents.use(known.arm) as engine:
        if engine.digest != known.deployment_digest:
            raise InfrastructureError(
                f"The baseline now serves deployment {engine.digest[:12]}, but this run recorded "
                f"{str(known.deployment_digest)[:12]}.",
                remedy="The engine, its weights or its environment changed; run again to begin anew.",
            )
        found = reference(engine, prompts, top_k=screen.top_k, max_tokens=screen.max_tokens, seed=study.seed)
        check_alive(engine)
        return found


def screen_arm(session: Session, run: StudyRow, residents: Residents, arm: str, asked: Reference) -> None:
    """One arm against the baseline's answers, committed at once."""
    with residents.use(arm) as engine:
        rows = diverge(engine, asked, run_id=run.run_id)
        check_alive(engine)
    session.store.write(rows)
    session.progress.advance(arm)
