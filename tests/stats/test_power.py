"""What is planned must suffice, and must not be far too much."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steelyard.stats.paired import ratio_interval
from steelyard.stats.power import (
    blocks_needed,
    documents_needed,
    power_of_blocks,
    power_of_documents,
)
from steelyard.stats.proportions import score_statistic, score_statistics, tango_interval
from steelyard.stats.sequential import Looks


@pytest.mark.parametrize(("discordance", "margin"), [(0.01, 0.02), (0.04, 0.02), (0.02, 0.01)])
def test_planned_documents_prove_the_margin_as_often_as_planned(discordance: float, margin: float) -> None:
    n = documents_needed(discordance, margin, 0.95, 0.9, early=False)
    assert n is not None
    rng = np.random.default_rng(3)
    tables = rng.multinomial(n, [discordance / 2, discordance / 2, 1 - discordance], size=400)
    passed = np.mean([tango_interval(int(g), int(l), n, 0.95).low >= -margin for g, l, _ in tables])  # type: ignore[operator]  # noqa: E741
    assert passed >= 0.9 - 3 * math.sqrt(0.09 / 400)
    assert power_of_documents(discordance, margin, 0.95, n, early=False) == pytest.approx(passed, abs=0.05)
    # Three quarters of it would not do.
    assert power_of_documents(discordance, margin, 0.95, int(0.75 * n), early=False) < 0.9


def test_no_difference_at_all_needs_what_tango_needs() -> None:
    assert documents_needed(0.0, 0.01, 0.95, 0.9, early=False) == pytest.approx(381, rel=0.02)


def test_looking_early_costs_documents_and_more_flips_cost_more() -> None:
    once, early = (documents_needed(0.02, 0.02, 0.95, 0.9, early=each) for each in (False, True))
    assert once is not None
    assert early is not None
    assert once < early < 1.4 * once
    more = documents_needed(0.06, 0.02, 0.95, 0.9)
    assert more is not None
    assert more > 2 * early


def test_what_cannot_be_proven_is_said() -> None:
    assert documents_needed(0.3, 0.001, 0.95, 0.9) is None
    assert blocks_needed(1.1, 1.1, 0.05, 0.95, 0.9) is None
    assert blocks_needed(1.101, 1.1, 0.3, 0.95, 0.9) is None


@pytest.mark.parametrize(("gain", "sd"), [(1.2, 0.05), (1.3, 0.1)])
def test_planned_blocks_prove_the_gain_as_often_as_planned(gain: float, sd: float) -> None:
    n = blocks_needed(gain, 1.1, sd, 0.95, 0.9, early=False)
    assert n is not None
    rng = np.random.default_rng(8)
    logs = rng.normal(math.log(gain), sd, (600, n))
    passed = np.mean([ratio_interval([(math.exp(x), 1.0) for x in row], 0.95).low >= 1.1 for row in logs])  # type: ignore[operator]
    assert passed == pytest.approx(power_of_blocks(gain, 1.1, sd, 0.95, None, n), abs=0.05)
    assert passed >= 0.9 - 3 * math.sqrt(0.09 / 600)
    assert n == 3 or power_of_blocks(gain, 1.1, sd, 0.95, None, n - 1) < 0.9


def test_a_look_that_was_not_declared_has_no_power() -> None:
    assert power_of_blocks(2.0, 1.1, 0.05, 0.95, Looks(3, 5), 6) == 0
    assert power_of_blocks(2.0, 1.1, 0.0, 0.95, Looks(3, 5), 5) == 1


def test_the_statistic_for_arrays_is_the_statistic() -> None:
    tables = [(0, 0, 50), (3, 1, 80), (0, 7, 30), (12, 12, 24)]
    for difference in (-0.1, -0.02, 0.0, 0.05):
        g, lost, n = (np.array(each) for each in zip(*tables, strict=True))
        expected = [score_statistic(*table, difference) for table in tables]
        assert list(score_statistics(g, lost, n, difference)) == pytest.approx(expected)
