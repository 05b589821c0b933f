"""What a run has measured so far, held in memory: its gates are asked again after every batch and every block."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from assets.session import Session
from evals.order import Place, looks
from evals.runner import order_of_suite
from steelyard.capacity_comparisons import capacities
from steelyard.finops.unit_cost import unit_costs
from steelyard.gates.comparing import Comparing
from steelyard.gates.evaluate import claims_of, evaluate, scopes_in
from steelyard.gates.policy import OVER_BLOCKS
from steelyard.gates.reasons import bound_of
from steelyard.gates.settled import Settled, settled
from steelyard.gates.verdict import harm_shows_in
from steelyard.load.capacity import Step, next_step, searches_of
from steelyard.records import ArmRow, ComparisonRow, GateRow, StudyRow
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.records_trials import ProbeRow, TrialRow
from steelyard.study import Suite
from steelyard.study_file import LoadedStudy

BASELINE = "baseline"


class Evidence:
    """Rows of one run by arm, and what they leave to be measured. Where the policy looks once, that is everything."""

    def __init__(self, session: Session, loaded: LoadedStudy, run: StudyRow) -> None:
        self._loaded, self._run_id = loaded, run.run_id
        self._early = loaded.policy.stop_early
        self._store = store = session.store
        self._arms = store.read(ArmRow, run_id=run.run_id)
        self._suites = {(row.arm, row.suite): row for row in store.read(SuiteRow, run_id=run.run_id)}
        self._samples: dict[tuple[str, str], list[SampleRow]] = defaultdict(list)
        self._trials: dict[str, list[TrialRow]] = defaultdict(list)
        self._divergences = store.read(DivergenceRow, run_id=run.run_id) if self._early else []
        self._probes: dict[str, list[ProbeRow]] = defaultdict(list)
        self._settled: dict[tuple[str, int, int], Settled] = {}
        self._compared: dict[tuple[str, str], list[ComparisonRow]] = {}
        self._screened: dict[str, list[ComparisonRow]] = {}
        # Without looks nothing is asked before the end, and a large run's samples need not be held twice.
        for sample in store.read(SampleRow, run_id=run.run_id) if self._early else []:
            self._samples[sample.arm, sample.suite].append(sample)
        for trial in store.read(TrialRow, run_id=run.run_id) if self._early else []:
            self._trials[trial.arm].append(trial)
        for probe in store.read(ProbeRow, run_id=run.run_id):
            self._probes[probe.arm].append(probe)

    @property
    def live(self) -> list[str]:
        """Arms that serve, the baseline first."""
        return [row.arm for row in self._arms if row.status == "served"]

    @property
    def suites_left(self) -> int:
        """Suites that live arms have not faced, or not to their decision. The baseline is asked for their sake only."""
        return sum(len(self.waiting(arm)) for arm in self.live if arm != BASELINE)

    @property
    def searches_left(self) -> int:
        """Searches for capacity that are wanted of live arms and did not come to their end."""
        return sum(self.searches_left_of(arm) for arm in self.live)

    def searches_left_of(self, arm: str) -> int:
        """The same of one arm."""
        known = searches_of(self.probes)
        return sum(
            isinstance(next_step(asked, known.get((arm, asked.scope, block), [])), Step)
            for asked in self._loaded.study.capacity
            for block in range(self._loaded.study.blocks)
            if self.wants_search(arm, asked.scope, block)
        )

    @property
    def probes(self) -> list[ProbeRow]:
        """Probes so far."""
        return [probe for mine in self._probes.values() for probe in mine]

    @cached_property
    def orders(self) -> dict[str, Sequence[Place]]:
        """The declared order of every suite."""
        study = self._loaded.study
        return {suite.name: order_of_suite(suite, self._loaded.root, study.seed) for suite in study.suites}

    def samples(self, arm: str, suite: str) -> list[SampleRow]:
        """Samples of a suite so far."""
        if not self._early and self.suite(arm, suite) is not None:
            return self._store.read(SampleRow, run_id=self._run_id, arm=arm, suite=suite)
        return self._samples[arm, suite]

    def suite(self, arm: str, suite: str) -> SuiteRow | None:
        """What a suite has come to so far, None if it was not begun."""
        return self._suites.get((arm, suite))

    def set_suite(self, row: SuiteRow, samples: list[SampleRow]) -> None:
        """A window of a suite was measured: what the suite has come to so far, and all its samples."""
        # An arm is compared on what it was asked, so answers of the baseline beyond that change nothing for it.
        before = self.suite(BASELINE, row.suite)
        known = 0 if before is None else before.asked
        self._suites[row.arm, row.suite] = row
        if self._early:
            self._samples[row.arm, row.suite] = samples
        mine = [row.arm] if row.arm != BASELINE else [arm for arm in self.live if self.came_to(arm, row.suite) > known]
        for arm in mine:
            self._compared.pop((arm, row.suite), None)
        self._settled = {key: found for key, found in self._settled.items() if key[0] not in mine}

    def add_trial(self, row: TrialRow) -> None:
        """A trial was measured."""
        if self._early:
            self._trials[row.arm].append(row)
            # What was settled before this block stays so; what was asked of later ones in advance does not.
            self._settled = {key: found for key, found in self._settled.items() if key[1] <= row.block}

    def drop(self, arm: str) -> None:
        """An arm stopped serving for good: nothing is measured for its sake any more."""
        self._arms = [replace(row, status="failed") if row.arm == arm else row for row in self._arms]

    def add_probe(self, row: ProbeRow) -> None:
        """A probe of a search for capacity was made."""
        self._probes[row.arm].append(row)
        self._settled = {key: found for key, found in self._settled.items() if key[2] <= row.block}

    def waiting(self, arm: str) -> list[Suite]:
        """Suites the arm has still to face; none once it is rejected, only open ones after the first look.

        Canaries come first: they are few, and one of them may reject.
        """
        suites = sorted(self._loaded.study.suites, key=lambda suite: suite.category != "canary")
        found = [suite for suite in suites if self.came_to(arm, suite.name) < self._declared(arm, suite)]
        if not self._early or not found:
            return found
        now = self.settled(arm)
        if now.rejected and self._may_stop(arm):
            return []
        return [suite for suite in found if self.suite(arm, suite.name) is None or suite.name in now.open]

    def turn(self, arm: str, waiting: list[Suite]) -> list[Suite]:
        """Which of its suites an arm is asked next: the one that most looks like harm, if one does, alone; else all.

        One refuted gate rejects and all must pass, so whoever is harmful is found out where the harm shows, and who is
        not is asked everything anyway. Each suite's interval holds at all its looks (`stats.sequential`), whatever the
        order in which suites are taken.
        """
        names = {suite.name for suite in waiting}
        beyond: dict[str, float] = {}
        for row in self._quality(arm) if self._early else []:
            for gate in self._loaded.policy.gates:
                asked = gate.required and (gate.category, gate.metric) == (row.category, row.metric)
                if asked and row.scope in names and row.estimate is not None:
                    excess = (
                        -row.estimate - gate.margin if gate.margin is not None else row.estimate - bound_of(gate)[1]
                    )
                    beyond[row.scope] = max(beyond.get(row.scope, 0.0), excess * math.sqrt(row.n))
        worst = max(beyond, key=lambda name: beyond[name], default=None)
        if worst is None or beyond[worst] <= 0:
            return waiting
        return [suite for suite in waiting if suite.name == worst]

    def window(self, arm: str, suite: Suite) -> tuple[int, int]:
        """From where to where in its order a suite is asked next: to the next look."""
        first, order = self.came_to(arm, suite.name), self.orders[suite.name]
        # A judge is measured once a suite, and canaries are few and come first: they are asked everything at once.
        if not self._early or suite.judge is not None or suite.category == "canary":
            return first, len(order)
        return first, next(end for end in looks(order, self._loaded.study.batch) if end > first)

    def behind(self, wanted: Mapping[str, int]) -> list[tuple[Suite, int, int]]:
        """Suites in which the baseline was asked less than the documents `wanted`, by name: from where to where."""
        return [
            (suite, self.came_to(BASELINE, suite.name), wanted[suite.name])
            for suite in self._loaded.study.suites
            if self.came_to(BASELINE, suite.name) < wanted.get(suite.name, 0)
        ]

    def wants_trial(self, arm: str, load_point: str, block: int) -> bool:
        """Whether an arm is measured at a load point in a block, by what is known from the blocks before it.

        Baseline and identity control are measured wherever another arm is.
        """
        return self._wanted(arm, load_point, block, lambda other: self.settled(other, before_block=block))

    def wants_search(self, arm: str, scope: str, block: int) -> bool:
        """The same of a search for capacity, by all trials and by the searches of the blocks before it."""
        blocks, mine = self._loaded.study.blocks, self._probes[BASELINE]
        asked = next(each for each in self._loaded.study.capacity if each.scope == scope)
        if any(held.known and (held.top or held.rate is None) for held in capacities(mine, asked, BASELINE).values()):
            # The grid does not hold the baseline: nothing can be compared, however often it is searched.
            return False
        return self._wanted(arm, scope, block, lambda other: self.settled(other, blocks, before_search=block))

    def _wanted(self, arm: str, scope: str, block: int, now: Callable[[str], Settled]) -> bool:
        if not self._early:
            return True
        others = [row.arm for row in self._arms if row.status == "served" and row.role in ("candidate", "known_bad")]
        for other in [arm] if arm in others else others:
            found = now(other)
            if not (found.rejected and self._may_stop_timing(other, found)) and (
                block < self._loaded.policy.min_blocks or scope in found.open
            ):
                return True
        return False

    def settled(self, arm: str, before_block: int = 0, before_search: int = 0) -> Settled:
        """What the arm's gates leave open, by its samples, divergences, and the trials and searches of the blocks
        before one.
        """
        key = (arm, before_block, before_search)
        if key not in self._settled:
            self._settled[key] = settled(self._gates(*key))
        return self._settled[key]

    def _gates(self, arm: str, before_block: int, before_search: int) -> list[GateRow]:
        pair, study = (BASELINE, arm), self._loaded.study
        trials = [trial for name in pair for trial in self._trials[name] if trial.block < before_block]
        price, confidence = self._loaded.prices.price(study.hardware.price), self._loaded.policy.confidence
        costs = unit_costs(self._run_id, [row for row in self._arms if row.arm in pair], trials, price, confidence)
        comparing = self._comparing(arm)
        probes = [probe for name in pair for probe in self._probes[name] if probe.block < before_search]
        comparisons = [
            *comparing.speed(trials), *comparing.capacity(probes, study.capacity), *comparing.cost(costs, trials),
            *self._quality(arm),
        ]  # fmt: skip
        return gates_of(self._loaded, self._run_id, arm, self._arms, comparisons)

    def _comparing(self, arm: str) -> Comparing:
        own = [row for row in self._arms if row.arm == arm]
        return Comparing(self._run_id, self._loaded.policy, self._loaded.study.blocks, own, BASELINE)

    def _quality(self, arm: str) -> list[ComparisonRow]:
        """Comparisons of samples and divergences, which do not change while trials are measured."""
        comparing = self._comparing(arm)
        if arm not in self._screened:
            self._screened[arm] = comparing.divergence(self._divergences)
        found = list(self._screened[arm])
        for suite in dict.fromkeys(name for of, name in self._suites if of == arm):
            # One suite at a time, because a window changes one: all of them would cost seconds after every window.
            if (arm, suite) not in self._compared:
                pair = [(side, suite) for side in (BASELINE, arm) if (side, suite) in self._suites]
                self._compared[arm, suite] = comparing.quality(
                    [row for key in pair for row in self._samples[key]], [self._suites[key] for key in pair]
                )
            found += self._compared[arm, suite]
        return found

    def refuted(self, arm: str) -> list[GateRow]:
        """Required gates of quality that are proven broken so far, also where the policy looks once."""
        pair = [key for key in self._suites if key[0] in (BASELINE, arm)]
        compared = self._comparing(arm).quality(
            [sample for key in pair for sample in self.samples(*key)], [self._suites[key] for key in pair]
        )
        rows = gates_of(self._loaded, self._run_id, arm, self._arms, compared)
        return [row for row in rows if row.required and row.outcome == "fail"]

    def came_to(self, arm: str, suite: str) -> int:
        """Documents of a suite that an arm was asked so far."""
        row = self.suite(arm, suite)
        return 0 if row is None else row.asked

    def _declared(self, arm: str, suite: Suite) -> int:
        row = self.suite(arm, suite.name)
        return len(self.orders[suite.name]) if row is None or row.declared is None else row.declared

    def _may_stop_timing(self, arm: str, now: Settled) -> bool:
        """Whether a rejected arm needs no more trials. A control that is only slow must be seen to be slow."""
        harm = self._harm_of(arm)
        return harm != OVER_BLOCKS or not now.failed.isdisjoint(harm)

    def _may_stop(self, arm: str) -> bool:
        """Whether a rejected arm needs no more suites. A known-bad control must be refused where its harm shows."""
        harm = self._harm_of(arm)
        if not harm:
            return next(row.role for row in self._arms if row.arm == arm) != "identity"
        return not self.settled(arm).failed.isdisjoint(harm)

    def _harm_of(self, arm: str) -> tuple[str, ...]:
        """Where the harm of a known-bad control must show; nowhere for other arms."""
        own, baseline = (next(row for row in self._arms if row.arm == name) for name in (arm, BASELINE))
        return harm_shows_in(own, baseline) if own.role == "known_bad" else ()


def gates_of(
    loaded: LoadedStudy, run_id: str, arm: str, arms: Sequence[ArmRow], comparisons: Sequence[ComparisonRow]
) -> list[GateRow]:
    """The policy's gates over comparisons of one arm."""
    own = next(row for row in arms if row.arm == arm)
    return evaluate(
        loaded.policy,
        comparisons,
        run_id=run_id,
        arm=arm,
        claim=own.claim,
        attempt=own.attempt or 1,
        claims=claims_of(run_id, arms),
        **scopes_in(loaded.study),
    )
