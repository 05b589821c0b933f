"""Capacities compared over blocks, and the gate on them: what is not known never passes."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from steelyard.capacity_comparisons import compare_capacity
from steelyard.gates.evaluate import evaluate, outcome_of, scopes_of
from steelyard.gates.policy import Gate, Policy
from steelyard.load.capacity import Step, next_step
from steelyard.records import ComparisonRow
from steelyard.records_trials import ProbeRow
from steelyard.stats.sequential import Looks
from steelyard.study_capacity import CapacitySearch

RUN = "run-1"
ASKED = CapacitySearch(workload="chat", lowest=1.0, highest=100.0, resolution=1.05)
BEGUN = datetime(2026, 11, 22, tzinfo=UTC)


def searched(arm: str, block: int, truth: float, **values: Any) -> list[ProbeRow]:
    """The probes of a search where every request meets the SLO up to a rate, and none above."""
    probes: list[ProbeRow] = []
    while isinstance(step := next_step(ASKED, probes), Step):
        base: dict[str, Any] = {
            "run_id": RUN, "arm": arm, "scope": "chat@slo", "block": block, "number": len(probes),
            "deployment_digest": f"digest-{arm}", "position": 0, "rate": step.rate, "started_at": BEGUN,
            "duration_s": 1.0, "requests": 48, "failed": 0, "met": 48 if step.rate <= truth else 0,
            "saturated": False, "error": None,
            "due_s": [], "ttft_s": [], "itl_s": [], "e2e_s": [], "output_tokens_per_s": None,
            "lateness_p95_s": None, "client_cpu_share": None, "valid": True, "invalid_reasons": [],
        }  # fmt: skip
        probes.append(ProbeRow(**{**base, **values}))
    return probes


def compared(ours: list[float], theirs: list[float], looks: Looks | None = None, **changes: Any) -> ComparisonRow:
    probes = [row for block, truth in enumerate(theirs) for row in searched("baseline", block, truth)]
    probes += [row for block, truth in enumerate(ours) for row in searched("fast", block, truth, **changes)]
    (row,) = compare_capacity(RUN, probes, [ASKED], arms=["fast"], confidence=0.95, looks=looks)
    return row


def test_the_ratio_is_paired_by_block_and_widened_by_a_step() -> None:
    row = compared([22.0, 44.0, 33.0], [10.0, 20.0, 15.0])
    assert (row.n, row.n_missing, row.category, row.scope, row.kind) == (3, 0, "capacity", "chat@slo", "ratio")
    assert row.estimate == pytest.approx(2.2, rel=0.05)
    assert row.low is not None
    assert row.high is not None
    assert row.estimate / row.low >= 1.05
    assert row.high / row.estimate >= 1.05


def test_equal_capacities_prove_nothing_below_a_step() -> None:
    row = compared([20.0] * 4, [20.0] * 4)
    assert (row.estimate, row.low, row.high) == (1.0, pytest.approx(1 / 1.05), pytest.approx(1.05))


def test_an_arm_beyond_the_grid_counts_as_its_end() -> None:
    row = compared([500.0] * 3, [40.0] * 3)
    assert row.candidate_value == pytest.approx(ASKED.rates[-1])
    assert row.low is not None
    assert row.low > 2
    # Nothing bounds it above: it may prove a gain and is never refuted.
    assert row.high is None
    assert judged(row)[0] == "pass"
    close = compared([500.0] * 3, [95.0] * 3)
    assert close.estimate is not None
    assert close.estimate < 1.1
    assert judged(close)[0] == "inconclusive"
    most = GATE.model_copy(update={"at_least": None, "at_most": 1.2})
    assert outcome_of(most, close.low or 0.0, math.inf) == "inconclusive"


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ([20.0] * 3, [20.0, 20.0, 500.0], "the baseline held the highest rate"),
        ([20.0] * 3, [20.0, 20.0, 0.5], "the baseline did not hold the lowest rate"),
        ([20.0, 0.5, 20.0], [10.0] * 3, "the SLO did not hold even at the lowest rate"),
    ],
)
def test_what_lies_outside_the_grid_makes_the_ratio_unknown(ours: list[float], theirs: list[float], says: str) -> None:
    row = compared(ours, theirs)
    assert (row.estimate, row.low, row.high) == (None, None, None)
    assert says in row.method
    gate = judged(row)
    assert gate[0] == "inconclusive"
    assert says in gate[1]


def test_blocks_without_a_partner_are_missing() -> None:
    assert (compared([20.0] * 3, [10.0] * 4).n, compared([20.0] * 3, [10.0] * 4).n_missing) == (3, 1)
    late = compared([20.0] * 3, [10.0] * 3, started_at=BEGUN + timedelta(hours=3))
    assert (late.n, late.n_missing, late.low) == (0, 3, None)
    doubted = compared([20.0] * 3, [10.0] * 3, valid=False, invalid_reasons=["the client was late"])
    assert (doubted.n, doubted.n_missing) == (0, 3)


def test_a_search_that_went_on_the_next_morning_is_no_pair() -> None:
    probes = [row for block in range(3) for arm in ("baseline", "fast") for row in searched(arm, block, 20.0)]
    last = [row for row in probes if (row.arm, row.block) == ("fast", 1)][-1]
    probes[probes.index(last)] = dataclasses.replace(last, started_at=BEGUN + timedelta(hours=11))
    (row,) = compare_capacity(RUN, probes, [ASKED], arms=["fast"], confidence=0.95)
    assert (row.n, row.n_missing) == (2, 1)


def test_a_search_that_was_cut_off_is_no_capacity() -> None:
    probes = [row for block in range(3) for arm in ("baseline", "fast") for row in searched(arm, block, 20.0)]
    last = [row for row in probes if (row.arm, row.block) == ("fast", 2)][-1]
    (row,) = compare_capacity(
        RUN, [each for each in probes if each is not last], [ASKED], arms=["fast"], confidence=0.95
    )
    assert (row.n, row.n_missing) == (2, 1)


def test_looks_are_paid_for() -> None:
    ours, theirs = [21.0, 23.0, 22.0], [10.0, 10.5, 9.8]
    once, looked = compared(ours, theirs), compared(ours, theirs, Looks(3, 6))
    assert once.low is not None
    assert looked.low is not None
    assert looked.low < once.low
    assert "look 3 of 3 to 6" in looked.method


GATE = Gate(name="capacity", category="capacity", metric="capacity_per_s", on="claimed", at_least=1.1)
POLICY = Policy(
    policy="p",
    gates=(
        GATE,
        Gate(name="accuracy", category="accuracy", metric="score", margin=0.02),
        Gate(name="safety", category="safety", metric="score", margin=0.02),
    ),
)


def judged(row: ComparisonRow | None, claim: str | None = "chat@c8") -> tuple[str, str]:
    gates = evaluate(
        POLICY, [] if row is None else [row], run_id=RUN, arm="fast", claim=claim, load_points=["chat@c8"],
        capacities=["chat@slo"], suites=[("facts", "accuracy"), ("refusal", "safety")],
    )  # fmt: skip
    (own,) = [gate for gate in gates if gate.gate == "capacity"]
    return own.outcome, own.reason


def test_the_gate_asks_for_proof() -> None:
    outcome, reason = judged(compared([22.0, 23.0, 22.5, 22.1], [10.0] * 4))
    assert outcome == "pass"
    assert "capacity (arrivals/s at which the SLO holds) at chat@slo rose" in reason
    assert judged(compared([10.0] * 3, [10.0] * 3))[0] == "fail"
    assert judged(compared([11.5, 10.2, 12.4], [10.0] * 3))[0] == "inconclusive"
    assert judged(None)[0] == "inconclusive"
    few = dataclasses.replace(compared([22.0] * 3, [10.0] * 3), n=2)
    assert judged(few)[0] == "inconclusive"


def test_a_claim_at_a_load_point_is_one_on_its_workloads_capacity() -> None:
    assert scopes_of(GATE, claim="chat@r4", load_points=["chat@slo", "long@slo"], suites=[]) == ["chat@slo"]
    controls = scopes_of(
        GATE, claim=None, load_points=["chat@slo", "long@slo"], suites=[], claims=["long@c2", "long@r1"]
    )
    assert controls == ["long@slo"]
    every = GATE.model_copy(update={"on": "every"})
    assert scopes_of(every, claim="chat@c8", load_points=["chat@slo", "long@slo"], suites=[]) == [
        "chat@slo",
        "long@slo",
    ]


def test_order_of_probes_and_strangers_change_nothing() -> None:
    probes = [row for block in range(3) for arm in ("baseline", "fast") for row in searched(arm, block, 20.0 + block)]
    strangers = [dataclasses.replace(row, run_id="other", met=0) for row in probes]
    forwards = compare_capacity(RUN, probes, [ASKED], arms=["fast"], confidence=0.95)
    backwards = compare_capacity(RUN, [*strangers, *reversed(probes)], [ASKED], arms=["fast"], confidence=0.95)
    assert forwards == backwards
