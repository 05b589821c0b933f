"""The bench of a search: real engines, real trials and suites, every row committed as it is measured.

A search is deterministic, so a resumed one asks the same again: what is stored is given back at once, and a block that
was cut off is measured anew as a whole, because its two halves would be of different hours.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from assets.evaluating import Evaluating
from assets.evidence import Evidence
from assets.measuring import arm_row, failed_row, refuse_changed
from assets.session import Session
from steelyard.deployments import deployment
from steelyard.engines.base import Deployment
from steelyard.engines.residency import Residents
from steelyard.errors import EngineError, InputError
from steelyard.home import logs_path, weights_path
from steelyard.load.blocks import run_blocks
from steelyard.load.trial import Trial, trial_id
from steelyard.load.workloads import load_tokenizer
from steelyard.records import ArmRow, StudyRow, TrialRow
from steelyard.stats.incomplete_blocks import Observation
from steelyard.study import Arm, LoadPoint
from steelyard.study_file import LoadedStudy
from steelyard.tuning.goals import Goal
from steelyard.tuning.stack import BASELINE, Stack

LOOKS = 2
"""Looks at each suite that a risky stack faces before it may be kept."""
CUT_OFF_S = 600.0
"""A block that was cut off longer ago than this is measured anew."""


class SearchBench:
    """`Bench` over one session. `on_block` is told after every block, so that the search's row can say how far it is.

    `spent_s` are seconds of earlier sittings.
    """

    def __init__(
        self, session: Session, loaded: LoadedStudy, run: StudyRow, *, points: Sequence[LoadPoint], goal: Goal,
        budget_s: float, spent_s: float, on_block: Callable[[SearchBench], object],
    ) -> None:  # fmt: skip
        self._session, self._loaded, self._run = session, loaded, run
        self._points, self._goal, self._on_block = list(points), goal, on_block
        self._budget_s, self._before_s, self._began = budget_s, spent_s, time.monotonic()
        store = session.store
        self.rows = {row.arm: row for row in store.read(ArmRow, run_id=run.run_id)}
        self.trials = {row.trial_id: row for row in store.read(TrialRow, run_id=run.run_id)}
        self._arms: dict[str, Arm] = {BASELINE: loaded.study.arms[0]}
        self._residents: Residents | None = None
        self._up: set[str] = set()

    @property
    def spent_s(self) -> float:
        """Wall time of all sittings."""
        return self._before_s + time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        return self._budget_s - self.spent_s

    def resolved(self, stack: Stack) -> Mapping[str, Any]:
        """What the engine of a stack resolved; nothing if it never served."""
        import json

        row = self.rows.get(stack.name)
        return json.loads(row.resolved_json) if row is not None and row.resolved_json else {}

    def serve(self, stack: Stack) -> str | None:
        """Start the stack once and store what it resolved to; a stored one is taken at its word until it is used."""
        arm = stack.arm(self._loaded.study.arms[0])
        self._arms[stack.name] = arm
        known = self.rows.get(stack.name)
        if known is not None:
            return known.error if known.status == "failed" else None
        try:
            ready = self._ready(stack.name)
        except InputError as error:
            # Weights that cannot be derived: the lever is at fault, not the search.
            return self._failed(stack.name, None, error.message)
        try:
            with self._engines(ready).use(stack.name) as engine:
                row = arm_row(self._run.run_id, arm, ready, engine, None)
        except EngineError as error:
            if stack.name == BASELINE:
                raise
            return self._failed(stack.name, ready, str(error))
        self._keep(row)
        return None

    def begin(self, name: str, stacks: int, blocks: int) -> None:
        """A bar for the round; a stack that is decided early leaves it unfinished."""
        self._session.progress.stage(name, stacks * blocks * len(self._points))

    def block(self, stacks: Sequence[Stack], number: int) -> dict[str, str]:
        """Every stack at every load point, less what is stored."""
        names = [each.name for each in stacks]
        wanted = {(name, point.name) for name in names for point in self._points}
        ids = {trial_id(self._run.run_id, name, point, number) for name, point in wanted}
        stored = [self.trials[each] for each in ids if each in self.trials]
        alive = {name for name in names if self.rows[name].status == "served"}
        whole = all(
            trial_id(self._run.run_id, name, point, number) in self.trials for name, point in wanted if name in alive
        )
        failed = {name: str(self.rows[name].error) for name in names if name not in alive}
        if whole:
            return failed
        now = datetime.now(UTC)
        old = any((now - row.started_at).total_seconds() > CUT_OFF_S for row in stored)
        done = set() if old else {row.trial_id for row in stored}
        for name in names:
            self._engines(self._ready(name))
        run_blocks(
            self._loaded.study, self._engines(self._ready(names[0])), self._tokenizer, run_id=self._run.run_id,
            done=done, arms=[name for name in names if name in alive], among=names, blocks=[number],
            on_trial=self._store, on_failure=lambda arm, error: failed.update({arm: self._lost(arm, error)}),
            wanted=lambda arm, point, _: (arm, point) in wanted,
        )  # fmt: skip
        self._on_block(self)
        return failed

    def harm(self, stack: Stack) -> str | None:
        """The beginning of every suite, of this stack and of the baseline, held against the policy's quality gates."""
        session, loaded, run = self._session, self._loaded, self._run
        for name in (BASELINE, stack.name):
            self._engines(self._ready(name))
        evidence = Evidence(session, loaded, run)
        evaluating = Evaluating(session, loaded, run, self._engines(self._ready(BASELINE)), evidence)
        evaluating.beginning(stack.name, LOOKS * loaded.study.batch)
        self.rows = {row.arm: row for row in session.store.read(ArmRow, run_id=run.run_id)}
        self._on_block(self)
        if self.rows[stack.name].status == "failed":
            return f"it stopped answering: {self.rows[stack.name].error}"
        return next((row.reason for row in evidence.refuted(stack.name)), None)

    def release(self, names: Sequence[str]) -> None:
        """End these engines; the next use starts them anew, so that none has a longer past than those beside it."""
        for name in names:
            if self._residents is not None and name in self._up:
                self._residents.release(name)

    def observations(self) -> list[Observation]:
        """The goal, by stack, load point and block."""
        return self.values(self._goal)

    def values(self, goal: Goal) -> list[Observation]:
        """Any goal over all valid trials in which it is known."""
        return [
            Observation(config=row.arm, stratum=row.load_point, block=row.block, value=value)
            for row in sorted(self.trials.values(), key=lambda row: (row.block, row.load_point, row.position))
            if row.valid and (value := goal.of(row)) is not None and value > 0 and math.isfinite(value)
        ]

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._ready(BASELINE).tokenizer)

    def _ready(self, name: str) -> Deployment:
        return deployment(self._loaded, self._arms[name], weights_into=weights_path())

    def _engines(self, ready: Deployment) -> Residents:
        """The engines of this search, of which `ready` is one from now on."""
        if self._residents is None:
            first = ready if ready.arm == BASELINE else self._ready(BASELINE)
            self._residents = self._session.hold(
                Residents(
                    [first], mode=self._loaded.study.residency, run_log_dir=logs_path() / self._run.run_id,
                    on_event=self._session.progress.say,
                    start_timeout_s=self._loaded.study.hardware.start_timeout_s,
                )
            )  # fmt: skip
            self._up.add(BASELINE)
        if ready.arm not in self._up:
            self._residents.add(ready)
            self._up.add(ready.arm)
        return self._residents

    def _keep(self, row: ArmRow) -> None:
        refuse_changed(self._session, self._run, self.rows.get(row.arm), row)
        self._session.store.write([row])
        self.rows[row.arm] = row

    def _store(self, trial: Trial) -> None:
        self._session.store.write([trial.row], trial.requests, trial.metrics)
        self.trials[trial.row.trial_id] = trial.row
        self._session.progress.advance(f"{trial.row.arm} {trial.row.load_point} block {trial.row.block + 1}")

    def _lost(self, arm: str, error: EngineError) -> str:
        if arm == BASELINE:
            raise error
        self._keep(dataclasses.replace(self.rows[arm], status="failed", error=str(error)))
        return error.message

    def _failed(self, name: str, ready: Deployment | None, why: str) -> str:
        if ready is None:
            ready = dataclasses.replace(self._ready(BASELINE), arm=name)
        error = EngineError(why, remedy="", arm=name)
        row = failed_row(self._run.run_id, self._arms[name], ready, None, error)
        self._session.store.write([dataclasses.replace(row, error=why)])
        self.rows[name] = dataclasses.replace(row, error=why)
        return why
