"""The bench of a search: real engines, real trials and suites, every row committed as it is measured.

A search is deterministic, so a resumed one asks the same again: what is stored is given back in the same order and at
the same hour of its budget. A block that was cut off is not taken up: its two halves would be of different hours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from assets.evaluating import Evaluating
from assets.evidence import Evidence
from assets.measuring import arm_row, refuse_changed
from assets.session import Session
from steelyard.deployments import deployment
from steelyard.engines.base import Deployment
from steelyard.engines.residency import Residents
from steelyard.errors import EngineError, InputError
from steelyard.home import weights_path
from steelyard.load.blocks import run_blocks
from steelyard.load.trial import Trial
from steelyard.load.workloads import load_tokenizer
from steelyard.records import ArmRow, StudyRow
from steelyard.records_trials import TrialRow
from steelyard.stats.incomplete_blocks import Observation
from steelyard.study import Arm, LoadPoint
from steelyard.study_file import LoadedStudy
from steelyard.tuning.goals import Goal
from steelyard.tuning.journal import Journal
from steelyard.tuning.stack import BASELINE, Stack

RECENT = 6
LOOKS = 2
"""Looks at each suite that a risky stack faces before it may be kept."""


class SearchBench:
    """`Bench` over one session.

    Whatever the search asks of it is an event of the `journal`: stored ones are given back in order, nothing later is
    known, and `left_s` moves only with them. `ask` tells which of the refused levers the engine takes on a stack.
    """

    def __init__(
        self, session: Session, loaded: LoadedStudy, run: StudyRow, *, points: Sequence[LoadPoint], goal: Goal,
        budget_s: float, journal: Journal, ask: Callable[[Stack], list[str]],
    ) -> None:  # fmt: skip
        self._session, self._loaded, self._run = session, loaded, run
        self._points, self._goal, self._ask = list(points), goal, ask
        self._budget_s, self.journal = budget_s, journal
        store = session.store
        self.rows = {row.arm: row for row in store.read(ArmRow, run_id=run.run_id)}
        self._stored: dict[int, list[TrialRow]] = {}
        for row in store.read(TrialRow, run_id=run.run_id):
            self._stored.setdefault(row.block, []).append(row)
        self._next = max(self._stored, default=-1) + 1
        self._trials: list[TrialRow] = []
        self._arms: dict[str, Arm] = {BASELINE: loaded.study.arms[0]}
        self._told: dict[str, str | None] = {}
        self._residents: Residents | None = None

    @property
    def points(self) -> list[str]:
        """Names of the load points."""
        return [point.name for point in self._points]

    @property
    def left_s(self) -> float:
        """Seconds of the budget that were left when the last event ended."""
        return self._budget_s - self.journal.tick_s

    @property
    def start_s(self) -> float:
        """Mean seconds from launch to the first token, of those asked for last: compiled stacks take longer."""
        last = [self.rows[name].start_s for name in list(self._told)[-RECENT:]]
        known = [seconds for seconds in last if seconds is not None]
        return math.fsum(known) / len(known) if known else 0.0

    def resolved(self, stack: Stack) -> Mapping[str, Any]:
        """What the engine of a stack resolved; nothing if it never served."""
        row = self.rows.get(stack.name)
        return json.loads(row.resolved_json) if row is not None and row.resolved_json else {}

    def serve(self, stack: Stack) -> str | None:
        """Start the stack once and store what it resolved to; it is taken at its word until it is used."""
        self._arms[stack.name] = stack.arm(self._loaded.study.arms[0])
        if stack.name not in self._told:
            self._told[stack.name] = self.journal.once("serve", stack.name, lambda: self._start(stack.name))
        return self._told[stack.name]

    def begin(self, name: str, stacks: int, blocks: int) -> None:
        """A bar for the round; a stack that is decided early leaves it unfinished."""
        self._session.progress.stage(name, stacks * blocks * len(self._points))

    def block(self, stacks: Sequence[Stack]) -> dict[str, str]:
        """Every stack at every load point, and who stopped serving."""
        names = [each.name for each in stacks]
        known = len(self._trials)
        came = self.journal.once("block", names, lambda: self._measured(names))
        if len(self._trials) == known:
            stored = self._stored.get(came["number"], [])
            self._trials += stored
            for row in stored:
                self._session.progress.advance(f"{row.arm} {row.load_point} block {row.block + 1}, stored")
        dead: dict[str, str] = came["dead"]
        return dead

    def harm(self, stack: Stack) -> tuple[str, str] | None:
        """The beginning of every suite, of this stack and of the baseline, held against the policy's quality gates."""
        came = self.journal.once("harm", stack.name, lambda: self._questioned(stack))
        return None if came is None else (came[0], came[1])

    def again(self, stack: Stack) -> list[str]:
        """Names of the refused levers that the engine takes on a stack."""
        found: list[str] = self.journal.once("again", stack.name, lambda: self._ask(stack))
        return found

    def release(self, names: Sequence[str]) -> None:
        """End these engines; the next use starts them anew, so that none has a longer past than those beside it."""
        for name in names:
            if self._residents is not None and name in self._residents.deployments:
                self._residents.remove(name)

    def observations(self) -> list[Observation]:
        """The goal, by stack, load point and block."""
        return self.values(self._goal)

    def values(self, goal: Goal) -> list[Observation]:
        """Any goal over all valid trials in which it is known, of the blocks asked for so far."""
        return [
            Observation(config=row.arm, stratum=row.load_point, block=row.block, value=value)
            for row in sorted(self._trials, key=lambda row: (row.block, row.load_point, row.position))
            if row.valid and (value := goal.of(row)) is not None and value > 0 and math.isfinite(value)
        ]

    def doubt(self, name: str) -> str | None:
        """The first load point where no trial of a stack is valid, with the reason of the last; None without one."""
        for point in self.points:
            rows = [row for row in self._trials if (row.arm, row.load_point) == (name, point)]
            if not any(row.valid for row in rows):
                return f"{point}: {rows[-1].invalid_reasons[0] if rows else 'none was measured'}"
        return None

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._ready(BASELINE).tokenizer)

    def _start(self, name: str) -> str | None:
        """Why a stack's engine does not start; None if it did. Raises EngineError for the baseline."""
        try:
            ready = self._ready(name)
        except (InputError, ValueError) as error:
            # Weights that cannot be derived: the lever is at fault, not the search.
            return self._failed(name, None, str(error))
        try:
            with self._engines(name).use(name) as engine:
                self._keep(arm_row(self._run.run_id, self._arms[name], ready, engine, None))
        except EngineError as error:
            if name == BASELINE:
                raise
            self.release([name])
            return self._failed(name, ready, error.message)
        return None

    def _measured(self, names: Sequence[str]) -> dict[str, Any]:
        number, self._next = self._next, self._next + 1
        dead: dict[str, str] = {}
        engines = [self._engines(name) for name in names][-1]
        run_blocks(
            self._loaded.study, engines, self._tokenizer, run_id=self._run.run_id, done=set(), arms=names, among=names,
            blocks=[number], on_trial=self._store, on_failure=lambda arm, error: dead.update(self._lost(arm, error)),
            wanted=lambda arm, point, _: point in self.points and arm in names,
        )  # fmt: skip
        return {"number": number, "dead": dead}

    def _questioned(self, stack: Stack) -> list[str] | None:
        session, loaded, run = self._session, self._loaded, self._run
        session.progress.say(f"The beginning of each suite is asked of {stack.said()}, which may change answers.")
        if self.rows[BASELINE].status == "failed":
            # In an earlier sitting, which ended there.
            self._keep(replace(self.rows[BASELINE], status="served", error=None))
        self._engines(BASELINE)
        evidence = Evidence(session, loaded, run)
        evaluating = Evaluating(session, loaded, run, self._engines(stack.name), evidence)
        evaluating.beginning(stack.name, LOOKS * loaded.study.batch)
        (row,) = session.store.read(ArmRow, run_id=run.run_id, arm=stack.name)
        self.rows[stack.name] = row
        if row.status == "failed":
            return ["failed", str(row.error)]
        return next((["harmful", found.reason] for found in evidence.refuted(stack.name)), None)

    def _ready(self, name: str) -> Deployment:
        return deployment(self._loaded, self._arms[name], weights_into=weights_path())

    def _engines(self, name: str) -> Residents:
        """The engines of this search, of which this stack's is one from now on."""
        if self._residents is None:
            self._residents = self._session.hold(self._loaded, self._run.run_id, [self._ready(name)])
        if name not in self._residents.deployments:
            self._residents.add(self._ready(name))
        return self._residents

    def _keep(self, row: ArmRow) -> None:
        self._session.store.write([row])
        self.rows[row.arm] = row

    def _store(self, trial: Trial) -> None:
        known = self.rows[trial.row.arm]
        refuse_changed(self._session, self._run, known, replace(known, deployment_digest=trial.row.deployment_digest))
        self._session.store.write([trial.row], trial.requests, trial.metrics)
        self._trials.append(trial.row)
        self._session.progress.advance(f"{trial.row.arm} {trial.row.load_point} block {trial.row.block + 1}")

    def _lost(self, arm: str, error: EngineError) -> dict[str, str]:
        if arm == BASELINE:
            raise error
        self._keep(replace(self.rows[arm], status="failed", error=error.message))
        return {arm: error.message}

    def _failed(self, name: str, ready: Deployment | None, why: str) -> str:
        ready = ready or replace(self._ready(BASELINE), arm=name)
        self._keep(arm_row(self._run.run_id, self._arms[name], ready, None, why))
        return why
