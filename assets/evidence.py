"""What a run has measured so far, held in memory: its gates are asked again after every batch and every block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from assets.session import Session
from evals.order import Place, looks
from evals.runner import order_of_suite
from steelyard.finops.unit_cost import unit_costs
from steelyard.gates.comparing import Comparing
from steelyard.gates.evaluate import claims_of, evaluate
from steelyard.gates.policy import SCORED
from steelyard.gates.settled import Settled, settled
from steelyard.records import ArmRow, ComparisonRow, DivergenceRow, GateRow, SampleRow, StudyRow, SuiteRow, TrialRow
from steelyard.study import Suite
from steelyard.study_file import LoadedStudy

BASELINE = "baseline"


class Evidence:
    """Rows of one run by arm, and what they leave to be measured. Where the policy looks once, that is everything."""

    def __init__(self, session: Session, loaded: LoadedStudy, run: StudyRow) -> None:
        self._loaded, self._run_id = loaded, run.run_id
        self._early = loaded.policy.stop_early
        store = session.store
        self._arms = store.read(ArmRow, run_id=run.run_id)
        self._suites = {(row.arm, row.suite): row for row in store.read(SuiteRow, run_id=run.run_id)}
        self._samples: dict[tuple[str, str], list[SampleRow]] = defaultdict(list)
        self._trials: dict[str, list[TrialRow]] = defaultdict(list)
        self._divergences = store.read(DivergenceRow, run_id=run.run_id) if self._early else []
        self._settled: dict[tuple[str, int], Settled] = {}
        self._compared: dict[tuple[str, str], list[ComparisonRow]] = {}
        self._screened: dict[str, list[ComparisonRow]] = {}
        # Without looks nothing is asked before the end, and a large run's samples need not be held twice.
        for sample in store.read(SampleRow, run_id=run.run_id) if self._early else []:
            self._samples[sample.arm, sample.suite].append(sample)
        for trial in store.read(TrialRow, run_id=run.run_id) if self._early else []:
            self._trials[trial.arm].append(trial)

    @property
    def live(self) -> list[str]:
        """Arms that serve, the baseline first."""
        return [row.arm for row in self._arms if row.status == "served"]

    @property
    def suites_left(self) -> int:
        """Suites that live arms have not faced, or not to their decision."""
        return sum(len(self.waiting(arm)) for arm in self.live)

    @cached_property
    def orders(self) -> dict[str, list[Place]]:
        """The declared order of every suite."""
        study = self._loaded.study
        return {suite.name: order_of_suite(suite, self._loaded.root, study.seed) for suite in study.suites}

    def samples(self, arm: str, suite: str) -> list[SampleRow]:
        """Samples of a suite so far."""
        return self._samples[arm, suite]

    def suite(self, arm: str, suite: str) -> SuiteRow | None:
        """What a suite has come to so far, None if it was not begun."""
        return self._suites.get((arm, suite))

    def set_suite(self, row: SuiteRow, samples: list[SampleRow]) -> None:
        """A window of a suite was measured: what the suite has come to so far, and all its samples."""
        self._suites[row.arm, row.suite] = row
        if self._early:
            self._samples[row.arm, row.suite] = samples
        mine = (row.arm,) if row.arm != BASELINE else self.live
        for arm in mine:
            self._compared.pop((arm, row.suite), None)
        self._settled = {key: found for key, found in self._settled.items() if key[0] not in mine}

    def add_trial(self, row: TrialRow) -> None:
        """A trial was measured."""
        if self._early:
            self._trials[row.arm].append(row)
            # What was settled before this block stays so; what was asked of later ones in advance does not.
            self._settled = {key: found for key, found in self._settled.items() if key[1] <= row.block}

    def waiting(self, arm: str) -> list[Suite]:
        """Suites the arm has still to face; none once it is rejected, only open ones after the first look.

        Canaries come first: they are few, and one of them may reject.
        """
        suites = sorted(self._loaded.study.suites, key=lambda suite: suite.category != "canary")
        found = [suite for suite in suites if self._asked(arm, suite) < self._declared(arm, suite)]
        if not self._early or arm == BASELINE or not found:
            return found
        now = self.settled(arm)
        if now.rejected and self._may_stop(arm):
            return []
        return [suite for suite in found if self.suite(arm, suite.name) is None or suite.name in now.open]

    def window(self, arm: str, suite: Suite) -> tuple[int, int]:
        """From where to where in its order a suite is asked next: to the next look."""
        first, order = self._asked(arm, suite), self.orders[suite.name]
        # A judge is measured once a suite, canaries are few and come first, and nobody looks at the baseline: all of
        # them are asked everything at once.
        if not self._early or arm == BASELINE or suite.judge is not None or suite.category == "canary":
            return first, len(order)
        return first, next(end for end in looks(order, self._loaded.study.batch) if end > first)

    def wants_trial(self, arm: str, load_point: str, block: int) -> bool:
        """Whether an arm is measured at a load point in a block, by what is known from the blocks before it.

        Baseline and identity control are measured wherever another arm is.
        """
        if not self._early:
            return True
        others = [row.arm for row in self._arms if row.status == "served" and row.role in ("candidate", "known_bad")]
        for other in [arm] if arm in others else others:
            now = self.settled(other, before_block=block)
            if not now.rejected and (block < self._loaded.policy.min_blocks or load_point in now.open):
                return True
        return False

    def settled(self, arm: str, before_block: int = 0) -> Settled:
        """What the arm's gates leave open, by its samples, divergences and the trials of the blocks before one."""
        key = (arm, before_block)
        if key not in self._settled:
            self._settled[key] = settled(self._gates(arm, before_block))
        return self._settled[key]

    def _gates(self, arm: str, before_block: int) -> list[GateRow]:
        pair, study = (BASELINE, arm), self._loaded.study
        trials = [trial for name in pair for trial in self._trials[name] if trial.block < before_block]
        price, confidence = self._loaded.prices.price(study.hardware.price), self._loaded.policy.confidence
        costs = unit_costs(self._run_id, [row for row in self._arms if row.arm in pair], trials, price, confidence)
        comparing = self._comparing(arm)
        comparisons = [*comparing.speed(trials), *comparing.cost(costs, trials), *self._quality(arm)]
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

    def _asked(self, arm: str, suite: Suite) -> int:
        row = self.suite(arm, suite.name)
        return 0 if row is None else row.asked

    def _declared(self, arm: str, suite: Suite) -> int:
        row = self.suite(arm, suite.name)
        return len(self.orders[suite.name]) if row is None or row.declared is None else row.declared

    def _may_stop(self, arm: str) -> bool:
        """Whether a rejected arm needs no more suites. A known-bad control must be refused by one of them."""
        role = next(row.role for row in self._arms if row.arm == arm)
        if role != "known_bad":
            return role != "identity"
        return not self.settled(arm).failed.isdisjoint(SCORED)


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
        load_points=[point.name for point in loaded.study.load_points],
        suites=[(suite.name, suite.category) for suite in loaded.study.suites],
    )
