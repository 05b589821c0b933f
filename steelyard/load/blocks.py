"""Blocks: every live arm once under every load point, in an order that favours nobody, with common prompts.

Orders come in pairs: a random one, then its reverse. Whatever drifts steadily (heat, a neighbour, a filling disk)
then costs every arm the same over two blocks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from steelyard.digest import digest
from steelyard.engines.base import Engine
from steelyard.engines.probe import check_alive
from steelyard.errors import CrashedWhileServing, EngineError
from steelyard.load.trial import MAX_FAILED_SHARE, Trial, run_trial, trial_id
from steelyard.load.workloads import PlannedRequest, plan_requests, plan_warmup
from steelyard.study import LoadPoint, Study

STRIKES = 2
Wanted = Callable[[str, str, int], bool]
"""Whether an arm is measured at a load point in a block."""
Planned = tuple[list[PlannedRequest], list[PlannedRequest]]


class Residents(Protocol):
    """Engines that `use` gives one at a time, thawed, all others frozen or stopped."""

    @property
    def exclusive(self) -> bool:
        """Whether using another arm starts its engine anew."""
        ...

    def use(self, arm: str) -> AbstractContextManager[Engine]:
        """The engine of an arm, ready to answer. Raises EngineError if it cannot be."""
        ...


def order_of(arms: Sequence[str], *, seed: int, block: int, scope: str) -> list[str]:
    """The order of arms in a block: random for even blocks, and reversed in the odd block that follows."""
    order = list(arms)
    # From a digest, so that every machine and every resumed run draws the same order.
    random.Random(int(digest(["order", seed, block // 2, scope])[:16], 16)).shuffle(order)
    return order if block % 2 == 0 else order[::-1]


def run_blocks(
    study: Study,
    residents: Residents,
    tokenizer: Any,
    *,
    run_id: str,
    done: Set[str],
    arms: Sequence[str],
    on_trial: Callable[[Trial], None],
    on_failure: Callable[[str, EngineError], None],
    progress: Callable[[str], None] | None = None,
    wanted: Wanted | None = None,
    blocks: Sequence[int] | None = None,
    among: Sequence[str] | None = None,
) -> list[str]:
    """Run every block and return the arms still alive at its end, in the order given.

    `wanted` is asked for every arm, load point and block before it begins, and what it does not want is left out; the
    others keep their random order. `blocks` are the study's unless given, and orders are drawn over `among`, by default
    all arms of the study.

    Trials in `done` are skipped; every other one is handed to `on_trial` as soon as it ends. An attempt fails if the
    engine dies or more than 2 % of its requests do; it is made once more. An arm with two failed attempts is told to
    `on_failure` and dropped, and the others go on; its last trial, invalid, is handed over too. What `on_trial` or
    `on_failure` raise is not caught: that is how a caller ends a run whose baseline is gone.
    """
    names = [arm.name for arm in study.arms] if among is None else list(among)
    state = _State(
        study, residents, tokenizer, run_id, set(done), list(arms), on_trial, on_failure, progress, wanted, names
    )
    for block in range(study.blocks) if blocks is None else blocks:
        if residents.exclusive:
            state.arm_by_arm(block)
        else:
            state.point_by_point(block)
    return state.live


@dataclass(slots=True)
class _State:
    study: Study
    residents: Residents
    tokenizer: Any
    run_id: str
    done: set[str]
    live: list[str]
    on_trial: Callable[[Trial], None]
    on_failure: Callable[[str, EngineError], None]
    progress: Callable[[str], None] | None
    wanted: Wanted | None
    among: list[str]
    strikes: dict[str, int] = field(default_factory=dict)
    plans: dict[tuple[int, str], Planned] = field(default_factory=dict)

    def point_by_point(self, block: int) -> None:
        for point in self.study.load_points:
            for position, arm in enumerate(self._order(block, point.name, [point])):
                if not self._has(arm, point, block):
                    self._attempts(arm, [point], block, {point.name: position})

    def arm_by_arm(self, block: int) -> None:
        """An engine is started once an arm and block, and takes all load points while it is up."""
        points = list(self.study.load_points)
        for position, arm in enumerate(self._order(block, "*", points)):
            missing = [point for point in points if not self._has(arm, point, block) and self._wants(arm, point, block)]
            if missing:
                self._attempts(arm, missing, block, dict.fromkeys((point.name for point in points), position))

    def _order(self, block: int, scope: str, points: Sequence[LoadPoint]) -> list[str]:
        # Over all arms, then thinned: the others keep their order when one is dropped, and so does a resumed run.
        order = order_of(self.among, seed=self.study.seed, block=block, scope=scope)
        live = [arm for arm in order if arm in self.live]
        return [arm for arm in live if any(self._wants(arm, point, block) for point in points)]

    def _wants(self, arm: str, point: LoadPoint, block: int) -> bool:
        return self.wanted is None or self.wanted(arm, point.name, block)

    def _has(self, arm: str, point: LoadPoint, block: int) -> bool:
        return trial_id(self.run_id, arm, point.name, block) in self.done

    def _attempts(self, arm: str, points: Sequence[LoadPoint], block: int, positions: Mapping[str, int]) -> None:
        """Use the arm for these load points; again after a failure, until it is dropped."""
        left = list(points)
        while left and arm in self.live:
            dropped: EngineError | None = None
            try:
                with self.residents.use(arm) as engine:
                    for point in list(left):
                        trial = self._trial(engine, point, block, positions[point.name])
                        failed = trial.row.failed > MAX_FAILED_SHARE * trial.row.requests
                        error = self._why(engine, trial) if failed else None
                        if error is not None and self._strike(arm) < STRIKES:
                            self._say(f"block {block} {point.name} {arm}: failed, once more. {error}")
                            break
                        self._keep(trial)
                        left.remove(point)
                        if error is not None:
                            dropped = error
                            break
            except EngineError as error:
                if self._strike(arm) >= STRIKES:
                    dropped = error
                else:
                    self._say(f"block {block} {arm}: failed, once more. {error}")
            if dropped is not None:
                # Outside of what is caught: whom it is told may raise it, to end the run.
                self._drop(arm, dropped)

    def _trial(self, engine: Engine, point: LoadPoint, block: int, position: int) -> Trial:
        planned, warmup = self._plan(point, block)
        return run_trial(
            engine, point, planned, slo=self.study.slo_of(point.workload), warmup=warmup, run_id=self.run_id,
            block=block, position=position,
        )  # fmt: skip

    def _plan(self, point: LoadPoint, block: int) -> Planned:
        key = (block, point.name)
        if key not in self.plans:
            for old in [each for each in self.plans if each[0] != block]:
                del self.plans[old]
            count = self.study.warmup_requests
            self.plans[key] = (
                plan_requests(point, self.tokenizer, seed=self.study.seed, block=block),
                plan_warmup(point, self.tokenizer, seed=self.study.seed, block=block, requests=count),
            )
        return self.plans[key]

    def _why(self, engine: Engine, trial: Trial) -> EngineError:
        """What is wrong with an engine whose trial failed: its own end or silence if it is that, else the failures."""
        try:
            check_alive(engine)
        except EngineError as error:
            return error
        return CrashedWhileServing(
            f"{trial.row.load_point}, block {trial.row.block}: {trial.row.invalid_reasons[0]}.",
            remedy="The engine still answers; its log says why these requests failed.",
            arm=engine.arm,
        )

    def _strike(self, arm: str) -> int:
        self.strikes[arm] = self.strikes.get(arm, 0) + 1
        return self.strikes[arm]

    def _drop(self, arm: str, error: EngineError) -> None:
        self.live.remove(arm)
        self._say(f"{arm}: dropped after {self.strikes[arm]} failures. {error}")
        self.on_failure(arm, error)

    def _keep(self, trial: Trial) -> None:
        self.done.add(trial.row.trial_id)
        self.on_trial(trial)
        verdict = "" if trial.row.valid else f", invalid: {trial.row.invalid_reasons[0]}"
        speed = trial.row.output_tokens_per_s
        pace = "no tokens" if speed is None else f"{speed:.1f} tokens/s"
        self._say(f"block {trial.row.block} {trial.row.load_point} {trial.row.arm}: {pace}{verdict}")

    def _say(self, text: str) -> None:
        if self.progress is not None:
            self.progress(text)
