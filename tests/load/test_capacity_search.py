"""The search for capacity against a world whose truth is known: a rate up to which every request meets the SLO."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.load.capacity import INVALID, Held, Step, next_step, outcome_of
from steelyard.load.probes import met_of, saturated_of
from steelyard.records_trials import ProbeRow
from steelyard.stats.proportions import wilson_interval
from steelyard.study import Slo
from steelyard.study_capacity import PARTS, CapacitySearch

ASKED = CapacitySearch(workload="chat", lowest=1.0, highest=100.0, resolution=1.1)


def probe(rate: float, met: int, *, requests: int = 48, number: int = 0, **values: Any) -> ProbeRow:
    base: dict[str, Any] = {
        "run_id": "run", "arm": "arm", "scope": "chat@slo", "block": 0, "number": number, "deployment_digest": "d",
        "position": 0, "rate": rate, "started_at": datetime(2026, 11, 22, tzinfo=UTC), "duration_s": 1.0,
        "requests": requests, "failed": 0, "met": met, "saturated": False, "error": None, "due_s": [], "ttft_s": [],
        "itl_s": [],
        "e2e_s": [], "output_tokens_per_s": None, "lateness_p95_s": None, "client_cpu_share": None, "valid": True,
        "invalid_reasons": [],
    }  # fmt: skip
    return ProbeRow(**{**base, **values})


def search(asked: CapacitySearch, share_at: Any, rng: random.Random | None = None) -> tuple[Held, list[ProbeRow]]:
    """Follow a search in a world where `share_at` gives the share of requests that meet the SLO at a rate."""
    probes: list[ProbeRow] = []
    while isinstance(step := next_step(asked, probes), Step):
        share = share_at(step.rate)
        count = asked.requests(step.rate)
        met = sum(rng.random() < share for _ in range(count)) if rng else round(share * count)
        probes.append(probe(step.rate, met, requests=count))
    return step, probes


@given(st.floats(0.5, 200.0))
def test_a_sharp_edge_is_found_to_one_step(truth: float) -> None:
    found, probes = search(ASKED, lambda rate: 1.0 if rate <= truth else 0.0)
    grid = ASKED.rates
    expected = max((rate for rate in grid if rate <= truth), default=None)
    assert found == Held(expected, top=expected == grid[-1])
    # Halving: every rate is asked once, and no more rates than the grid has binary digits.
    assert len({each.rate for each in probes}) == len(probes) <= len(grid).bit_length()


def test_a_soft_edge_is_found_near_the_share_asked_for() -> None:
    rng = random.Random(5)
    edge = 20.0
    # 95 % at 18/s, 90 % at 20/s, 75 % at 23/s.
    found = [search(ASKED, lambda rate: 1 / (1 + (rate / edge) ** 8 / 9), rng)[0].rate for _ in range(200)]
    rates = sorted(rate for rate in found if rate is not None)
    assert len(rates) == 200
    assert 15 < rates[100] <= edge * 1.1
    assert rates[10] > 10


def test_what_three_probes_do_not_show_does_not_hold() -> None:
    at = 44 / 48
    assert ASKED.requests(9.0) == 45
    assert outcome_of(ASKED, [probe(9.0, 44)]) == "open"
    assert outcome_of(ASKED, [probe(9.0, 44)] * PARTS) == "broken"
    assert wilson_interval(44 * PARTS, 48 * PARTS, 0.8).value == pytest.approx(at)
    short = CapacitySearch(workload="chat", lowest=1.0, highest=4.0, seconds=1.0)
    found, probes = search(short, lambda rate: 14 / 16)
    assert found == Held(None)
    assert max(sum(each.rate == one.rate for each in probes) for one in probes) == PARTS


def test_a_growing_queue_breaks_whatever_met_the_slo_so_far() -> None:
    assert outcome_of(ASKED, [probe(9.0, 48)]) == "holds"
    assert outcome_of(ASKED, [probe(9.0, 48, saturated=True)]) == "broken"


def test_what_the_client_cannot_vouch_for_decides_nothing() -> None:
    first = next_step(ASKED, [])
    assert isinstance(first, Step)
    bad = probe(first.rate, 0, valid=False, invalid_reasons=["late"])
    assert outcome_of(ASKED, [bad]) == "open"
    assert next_step(ASKED, [bad]) == Step(first.rate, 1)
    assert next_step(ASKED, [bad] * INVALID) == Held(None, known=False)
    good = [bad, probe(first.rate, 48)]
    step = next_step(ASKED, good)
    assert isinstance(step, Step)
    assert step.rate > first.rate


def test_a_search_goes_on_where_it_was_killed() -> None:
    found, probes = search(ASKED, lambda rate: 1.0 if rate <= 31 else 0.2)
    for count in range(len(probes)):
        step = next_step(ASKED, probes[:count])
        assert isinstance(step, Step)
        assert step.rate == probes[count].rate
    assert next_step(ASKED, probes) == found


def test_requests_that_failed_once_say_nothing_about_the_rate() -> None:
    lost = probe(9.0, 0, failed=48)
    assert outcome_of(ASKED, [lost]) == "open"
    assert outcome_of(ASKED, [lost, probe(9.0, 0, failed=48)]) == "broken"
    assert outcome_of(ASKED, [lost, *([probe(9.0, 48)] * 9)]) == "broken", "three probes at most"
    assert outcome_of(ASKED, [probe(9.0, 0)]) == "broken", "late is no failure"


def test_a_probe_is_as_long_at_every_rate() -> None:
    assert [ASKED.requests(rate) for rate in (1.0, 3.0, 10.0, 100.0)] == [16, 16, 50, 500]


def test_the_grid_is_what_was_declared() -> None:
    assert ASKED.rates[0] == 1.0
    assert ASKED.rates[-1] <= 100.0 < ASKED.rates[-1] * 1.11
    assert all(later / earlier == pytest.approx(1.1, rel=1e-3) for earlier, later in pairwise(ASKED.rates))
    exact = CapacitySearch(workload="chat", lowest=2.0, highest=8.0, resolution=2.0)
    assert exact.rates == (2.0, 4.0, 8.0)


def test_met_is_every_limit_and_nothing_that_failed() -> None:
    slo = Slo(ttft_s=0.1, itl_s=0.01, e2e_s=None)
    ttft, itl, e2e = [0.1, 0.2, 0.05, 0.05, None], [0.01, 0.005, None, 0.02, None], [1.0, 1.0, 1.0, 1.0, None]
    assert met_of(ttft, itl, e2e, slo) == 2


def test_saturated_is_a_queue_that_only_grows() -> None:
    due = [0.1 * index for index in range(40)]
    assert saturated_of(due, [0.05] * 40) is False
    assert saturated_of(due, [0.1 * index for index in range(40)]) is True
    # Answers that take longer than the probe are no queue: nobody waits for another.
    assert saturated_of(due, [9.0] * 40) is not True
    assert saturated_of(due, [1.5] * 40) is False
    assert saturated_of(due, [*([0.05] * 37), None, None, None]) is False, "failed requests do not wait either"


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (90, 100), (1, 1000)])
def test_wilson_is_where_its_own_score_statistic_is_z(count: int, n: int) -> None:
    found = wilson_interval(count, n, 0.8)
    z = 1.2815515655446004
    assert found.low is not None
    assert found.high is not None
    for bound in (found.low, found.high):
        if 0 < bound < 1:
            assert abs(count / n - bound) / (bound * (1 - bound) / n) ** 0.5 == pytest.approx(z)
    assert found.low <= count / n <= found.high
