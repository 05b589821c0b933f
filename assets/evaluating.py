"""The evaluating step of a run, without Dagster: every suite of every live arm. Each window is committed at once.

The baseline is asked for the sake of the others, so it is asked a document just before the first of them is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from assets.evidence import BASELINE, Evidence
from assets.measuring import give_up
from assets.reuse import reuse
from assets.session import Session
from evals.runner import extended, run_suite
from steelyard.engines.base import Engine
from steelyard.engines.probe import check_alive
from steelyard.engines.residency import Residents
from steelyard.errors import EngineError
from steelyard.records import StudyRow
from steelyard.study import Suite
from steelyard.study_file import LoadedStudy


def measure_suites(session: Session, loaded: LoadedStudy, run: StudyRow) -> None:
    """Every suite of every live arm, up to its decision where the policy stops early."""
    evidence = Evidence(session, loaded, run)
    others = [arm for arm in evidence.live if arm != BASELINE]
    left = evidence.suites_left
    expected = len(loaded.study.suites) * len(others)
    session.progress.stage("suites", expected, expected - left)
    if not left:
        return
    residents = session.residents(loaded, run.run_id, tuple(evidence.live))
    Evaluating(session, loaded, run, residents, evidence).everything(others)


class Evaluating:
    """The suites of one run on its engines."""

    def __init__(
        self, session: Session, loaded: LoadedStudy, run: StudyRow, residents: Residents, evidence: Evidence
    ) -> None:
        self._session, self._loaded, self._run = session, loaded, run
        self._residents, self._evidence = residents, evidence
        self._failed_once: set[str] = set()

    def everything(self, arms: list[str]) -> None:
        """The arms one after the other. Raises EngineError only if the baseline stopped serving for good."""
        self._trying(BASELINE, self._reuse)
        if self._residents.exclusive:
            # Each turn of the baseline would start it anew, which costs more than documents that nobody needs.
            self._ask_baseline({name: len(order) for name, order in self._evidence.orders.items()})
        for arm in arms:
            while waiting := self._evidence.waiting(arm):
                turn = self._evidence.turn(arm, waiting)
                ends = {suite.name: self._evidence.window(arm, suite)[1] for suite in turn}
                self._ask_baseline(ends)
                if not self._trying(arm, partial(self._round, arm, turn, ends)):
                    break
                self._tell(arm, waiting)

    def beginning(self, arm: str, documents: int) -> None:
        """So many documents of each suite at least, or fewer where a gate is decided earlier, as far as not yet asked.
        An arm that fails twice is given up, as in `everything`.
        """
        orders = self._evidence.orders
        if self._residents.exclusive:
            self._ask_baseline({name: min(documents, len(order)) for name, order in orders.items()})
        while waiting := [
            suite for suite in self._evidence.waiting(arm) if self._evidence.came_to(arm, suite.name) < documents
        ]:
            turn = self._evidence.turn(arm, waiting)
            # Where the policy looks once a window is a whole suite.
            ends = {suite.name: min(self._evidence.window(arm, suite)[1], documents) for suite in turn}
            self._ask_baseline(ends)
            if not self._trying(arm, partial(self._round, arm, turn, ends)):
                return

    def _trying(self, arm: str, step: Callable[[], None]) -> bool:
        """A step with an arm's engine, once more if it fails for the first time; whether it succeeded.

        As for trials: a crash may be the neighbour's fault, two are the arm's.
        """
        while True:
            try:
                step()
                return True
            except EngineError as error:
                if arm in self._failed_once:
                    give_up(self._session, self._run, arm, error)
                    return False
                self._failed_once.add(arm)
                self._session.progress.say(f"{arm}: {error.message} Trying once more.")

    def _reuse(self) -> None:
        """Take over the baseline's answers where an earlier run has them, each suite committed at once."""
        study = self._loaded.study
        waiting = [suite for suite in study.suites if self._evidence.suite(BASELINE, suite.name) is None]
        if not study.reuse_baseline or not waiting:
            return
        with self._residents.use(BASELINE) as engine:
            found = reuse(self._session.store, self._loaded, self._run, engine, waiting)
            check_alive(engine)
        for whole in found.values():
            self._session.store.write([whole.suite], whole.samples)
            self._evidence.set_suite(*whole)
        if found:
            rows = [whole.suite for whole in found.values()]
            again, changed = sum(row.rechecked or 0 for row in rows), sum(row.changed or 0 for row in rows)
            self._session.progress.say(
                f"The baseline's answers to {len(rows)} suites are those of {rows[0].reused_from}: {again} documents "
                f"were asked again, {changed} scored otherwise."
            )

    def _ask_baseline(self, wanted: Mapping[str, int]) -> None:
        """Ask the baseline so many documents of each suite, less what it was asked already."""

        def ask() -> None:
            with self._residents.use(BASELINE) as engine:
                for suite, first, last in self._evidence.behind(wanted):
                    self._window(engine, suite, first, last)

        if self._evidence.behind(wanted):
            self._trying(BASELINE, ask)

    def _round(self, arm: str, waiting: Sequence[Suite], ends: Mapping[str, int]) -> None:
        """A window of each open suite, to where the baseline was asked. After every window it is asked again what is
        left: one suite may reject the arm, and then no other is needed.
        """
        with self._residents.use(arm) as engine:
            for suite in waiting:
                # After a crash the round is gone through again; what it asked before must not be asked on.
                first, last = self._evidence.came_to(arm, suite.name), ends[suite.name]
                if first < last and suite in self._evidence.waiting(arm):
                    self._window(engine, suite, first, last)

    def _tell(self, arm: str, waited: Sequence[Suite]) -> None:
        still = {suite.name for suite in self._evidence.waiting(arm)}
        for suite in waited:
            if suite.name not in still:
                self._session.progress.advance(f"{arm} {suite.name}")

    def _window(self, engine: Engine, suite: Suite, first: int, last: int) -> None:
        """Ask what lies from `first` to `last` in the suite's order, and commit it."""
        arm = engine.arm
        found = run_suite(
            engine,
            suite,
            run_id=self._run.run_id,
            seed=self._loaded.study.seed,
            study_root=self._loaded.root,
            tokenizer=engine.deployment.tokenizer,
            first=first,
            last=last,
        )
        check_alive(engine)
        before = self._evidence.suite(arm, suite.name)
        known = self._evidence.samples(arm, suite.name) if before is not None else []
        whole = extended(before, known, found)
        self._session.store.extend(whole.suite, whole.samples[len(known) :])
        self._evidence.set_suite(*whole)
