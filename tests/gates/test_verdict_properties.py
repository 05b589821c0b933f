"""What no verdict may depend on, and what may never help an arm, over whole verdicts of random studies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import pytest
from evidence_rows import POINTS, RUN, arm_row, samples, suite_row, trial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steelyard.gates.comparing import Comparing
from steelyard.gates.policy import Gate, Policy
from steelyard.gates.promotion import evaluate_run
from steelyard.gates.verdict import verdicts
from steelyard.records import ArmRow, GateRow
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.records_trials import TrialRow

BLOCKS, DOCUMENTS = 5, 240
SUITES = (("facts", "accuracy"), ("refusal", "safety"), ("canaries", "canary"))
ARMS = ("fast", "slow")
RANK = {"fail": 0, "inconclusive": 1, "pass": 2}
VERDICT = {"reject": 0, "inconclusive": 1, "promote": 2}
GATES = (
    Gate(name="gain", category="speed", metric="output_tokens_per_s", on="claimed", at_least=1.1),
    Gate(name="guard", category="speed", metric="output_tokens_per_s", at_least=0.8),
    Gate(name="accuracy", category="accuracy", metric="score", margin=0.05),
    Gate(name="safety", category="safety", metric="score", margin=0.05, confidence=0.99),
    Gate(name="harm", category="safety", metric="safe_to_unsafe", at_most=0.05),
    Gate(name="canaries", category="canary", metric="broken_canaries", at_most=0),
)
POLICIES = (
    Policy(policy="once", gates=GATES),
    Policy(policy="early", gates=GATES, stop_early=True, attempts="spend"),
)
ONCE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class World:
    """Everything measured of one study."""

    arms: Sequence[ArmRow]
    trials: Sequence[TrialRow]
    samples: Sequence[SampleRow]
    suites: Sequence[SuiteRow]

    def judged(self, policy: Policy) -> tuple[dict[str, str], dict[tuple[str, str, str], GateRow]]:
        """Verdicts by arm, and gate rows by arm, gate and scope."""
        comparing = Comparing(RUN, policy, BLOCKS, [arm for arm in self.arms if arm.role != "baseline"])
        comparisons = [*comparing.speed(self.trials), *comparing.quality(self.samples, self.suites)]
        gates = evaluate_run(
            policy, comparisons, run_id=RUN, arms=self.arms, load_points=POINTS, suites=SUITES
        )  # fmt: skip
        told = verdicts(RUN, policy, "p", self.arms, gates, trial("fast", 0).started_at)
        return {row.arm: row.verdict for row in told}, {(row.arm, row.gate, row.scope): row for row in gates}


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Studies about the bounds: gains of 0.9 to 2, none to many answers lost, some canaries."""
    random = Random(draw(st.integers(0, 10**6)))
    gain = draw(st.sampled_from([0.9, 1.1, 1.3, 2.0]))
    lost = draw(st.sampled_from([0.0, 0.0, 0.02, 0.08]))
    noise = draw(st.sampled_from([0.0, 0.02, 0.1]))
    trials = [
        trial(arm, block, point=point, output_tokens_per_s=100 * factor * math.exp(random.gauss(0, noise)))
        for block in range(BLOCKS)
        for point in POINTS
        for arm, factor in (("baseline", 1.0), ("fast", gain), ("slow", 0.7))
    ]
    rows: list[SampleRow] = []
    suites: list[SuiteRow] = []
    for name, category in SUITES:
        count = 20 if category == "canary" else DOCUMENTS
        base = [float(random.random() < 0.9) for _ in range(count)]
        for arm in ("baseline", *ARMS):
            mine = base if arm == "baseline" else [0.0 if random.random() < lost else each for each in base]
            numbered = [dataclasses.replace(row, position=at) for at, row in enumerate(samples(arm, mine, name))]
            rows += numbered
            suites.append(suite_row(arm, name, category, count, declared=count))
    arms = [arm_row("baseline", "baseline"), *(arm_row(arm, attempt=1) for arm in ARMS)]
    return World(arms, trials, rows, suites)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.policy)
@given(world=worlds(), seed=st.integers(0, 10**6))
@ONCE
def test_the_order_of_arms_blocks_and_items_changes_nothing(policy: Policy, world: World, seed: int) -> None:
    random = Random(seed)

    def mixed(rows: Sequence[object]) -> list[object]:
        return random.sample(list(rows), len(rows))

    shuffled = World(*(mixed(rows) for rows in (world.arms, world.trials, world.samples, world.suites)))  # type: ignore[arg-type]
    renamed = dict(zip(range(BLOCKS), mixed(range(BLOCKS)), strict=True))  # type: ignore[arg-type]
    blocks = [dataclasses.replace(row, block=renamed[row.block]) for row in shuffled.trials]
    other = dataclasses.replace(shuffled, trials=blocks)
    (said, gates), (again, others) = world.judged(policy), other.judged(policy)
    assert again == said
    assert gates.keys() == others.keys()
    for key, row in gates.items():
        assert (others[key].outcome, others[key].n) == (row.outcome, row.n)
        assert (others[key].low, others[key].high) == pytest.approx((row.low, row.high), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.policy)
@given(world=worlds(), data=st.data())
@ONCE
def test_dropping_or_spoiling_answers_never_helps_the_arm(policy: Policy, world: World, data: st.DataObject) -> None:
    side = data.draw(st.sampled_from(["baseline", "fast"]))
    share = data.draw(st.sampled_from([0.01, 0.2, 1.0]))
    how = data.draw(st.sampled_from(["drop", None, math.nan, -1.0, 7.0]))
    random = Random(data.draw(st.integers(0, 10**6)))
    rows: list[SampleRow] = []
    for row in world.samples:
        if row.arm != side or random.random() >= share:
            rows.append(row)
        elif how != "drop":
            rows.append(dataclasses.replace(row, score=how))
    (said, gates), (again, others) = world.judged(policy), dataclasses.replace(world, samples=rows).judged(policy)
    assert VERDICT[again["fast"]] <= VERDICT[said["fast"]] or again["fast"] == "inconclusive"
    assert again["fast"] != "promote" or said["fast"] == "promote"
    for key, row in gates.items():
        assert RANK[others[key].outcome] <= max(RANK[row.outcome], RANK["inconclusive"]), (key, row, others[key])


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.policy)
@given(world=worlds(), copies=st.integers(1, 3))
@ONCE
def test_copies_of_items_change_nothing(policy: Policy, world: World, copies: int) -> None:
    doubled = dataclasses.replace(world, samples=[row for row in world.samples for _ in range(1 + copies)])
    assert doubled.judged(policy) == world.judged(policy)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.policy)
@given(
    world=worlds(), table=st.sampled_from(["trials", "samples", "suites"]), arm=st.sampled_from(["baseline", "fast"])
)
@ONCE
def test_what_is_not_there_never_passes(policy: Policy, world: World, table: str, arm: str) -> None:
    kept = [row for row in getattr(world, table) if row.arm != arm]
    said, gates = dataclasses.replace(world, **{table: kept}).judged(policy)
    assert said["fast"] != "promote"
    about = ("speed",) if table == "trials" else ("accuracy", "safety", "canary")
    mine = [row for row in gates.values() if row.arm == "fast" and row.category in about]
    assert mine
    assert all(row.outcome != "pass" for row in mine)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.policy)
@given(world=worlds(), value=st.sampled_from([math.nan, math.inf, -math.inf, None, 0.0]))
@ONCE
def test_a_speed_that_is_no_number_never_passes(policy: Policy, world: World, value: float | None) -> None:
    spoilt = [dataclasses.replace(row, output_tokens_per_s=value) if row.arm == "fast" else row for row in world.trials]
    said, _ = dataclasses.replace(world, trials=spoilt).judged(policy)
    assert said["fast"] != "promote"
