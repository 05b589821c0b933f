"""The evaluating step of a run, without Dagster: every suite of every live arm. Each window is committed at once."""

from __future__ import annotations

from assets.evidence import BASELINE, Evidence
from assets.measuring import give_up
from assets.reuse import reuse
from assets.session import Session
from evals.runner import extended, run_suite
from steelyard.engines.probe import check_alive
from steelyard.engines.residency import Residents
from steelyard.errors import EngineError
from steelyard.records import StudyRow
from steelyard.study_file import LoadedStudy


def measure_suites(session: Session, loaded: LoadedStudy, run: StudyRow) -> None:
    """Every suite of every live arm, up to its decision where the policy stops early."""
    evidence = Evidence(session, loaded, run)
    live = evidence.live
    left = evidence.suites_left
    expected = len(loaded.study.suites) * len(live)
    session.progress.stage("suites", expected, expected - left)
    if not left:
        return
    residents = session.residents(loaded, run.run_id, tuple(live))
    for arm in live:
        if not evidence.waiting(arm):
            continue
        try:
            try:
                if arm == BASELINE:
                    reuse_baseline(session, loaded, run, residents, evidence)
                evaluate_arm(session, loaded, run, residents, evidence, arm)
            except EngineError as error:
                # Once more, as for trials: a crash may be the neighbour's fault, two are the arm's.
                session.progress.say(f"{arm}: {error.message} Trying once more.")
                evaluate_arm(session, loaded, run, residents, evidence, arm)
        except EngineError as error:
            give_up(session, run, arm, error)


def reuse_baseline(
    session: Session, loaded: LoadedStudy, run: StudyRow, residents: Residents, evidence: Evidence
) -> None:
    """Take over the baseline's answers where an earlier run has them (`assets.reuse`), each suite committed at once."""
    waiting = [suite for suite in evidence.waiting(BASELINE) if evidence.suite(BASELINE, suite.name) is None]
    if not loaded.study.reuse_baseline or not waiting:
        return
    with residents.use(BASELINE) as engine:
        found = reuse(session.store, loaded, run, engine, waiting)
        check_alive(engine)
    for name, whole in found.items():
        session.store.write([whole.suite], whole.samples)
        evidence.set_suite(*whole)
        session.progress.advance(f"{BASELINE} {name}")
    if found:
        rows = [whole.suite for whole in found.values()]
        again, changed = sum(row.rechecked or 0 for row in rows), sum(row.changed or 0 for row in rows)
        session.progress.say(
            f"The baseline's answers to {len(rows)} suites are those of {rows[0].reused_from}: {again} documents were "
            f"asked again, {changed} scored otherwise."
        )


def evaluate_arm(
    session: Session, loaded: LoadedStudy, run: StudyRow, residents: Residents, evidence: Evidence, arm: str
) -> None:
    """What one arm has still to face, a window of each open suite in turn, each committed with its samples.

    After every window it is asked again what is left: one suite may reject the arm, and then no other is needed.
    """
    with residents.use(arm) as engine:
        while waiting := evidence.waiting(arm):
            for suite in waiting:
                if suite not in evidence.waiting(arm):
                    continue
                first, last = evidence.window(arm, suite)
                found = run_suite(
                    engine,
                    suite,
                    run_id=run.run_id,
                    seed=loaded.study.seed,
                    study_root=loaded.root,
                    tokenizer=engine.deployment.tokenizer,
                    first=first,
                    last=last,
                )
                check_alive(engine)
                whole = extended(evidence.suite(arm, suite.name), evidence.samples(arm, suite.name), found)
                session.store.write([whole.suite], whole.samples)
                evidence.set_suite(*whole)
            still = {suite.name for suite in evidence.waiting(arm)}
            for suite in waiting:
                if suite.name not in still:
                    session.progress.advance(f"{arm} {suite.name}")
