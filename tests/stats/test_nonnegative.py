from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.stats.betting import BETS
from steelyard.stats.nonnegative import nonnegative_mean
from steelyard.stats.paired import t_quantile


def test_the_lower_bound_is_where_the_bets_stop_winning() -> None:
    values = [0.1, 0.4, 0.2, 0.9, 0.3, 0.5, 0.2, 0.1]
    found = nonnegative_mean(values, 0.95)
    assert found.value == pytest.approx(np.mean(values))
    assert found.low is not None

    def wealth(mean: float) -> float:
        return float(np.mean([math.prod(1 + bet * (value / mean - 1) for value in values) for bet in BETS]))

    assert wealth(found.low) == pytest.approx(40, rel=1e-9)
    half = t_quantile(0.95, 7) * np.std(values, ddof=1) / math.sqrt(8)
    assert found.high == pytest.approx(np.mean(values) + half)


def test_too_little_to_know() -> None:
    assert nonnegative_mean([], 0.95).value is None
    alone = nonnegative_mean([0.3], 0.95)
    assert (alone.value, alone.high, alone.n) == (0.3, None, 1)
    assert alone.low is not None
    assert 0 < alone.low < 0.3
    silent = nonnegative_mean([0.0] * 64, 0.95)
    assert (silent.value, silent.low, silent.high) == (0.0, 0.0, None)


@pytest.mark.parametrize("bad", [-1e-9, math.nan, math.inf])
def test_what_is_no_divergence_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="never negative"):
        nonnegative_mean([0.1, bad], 0.95)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=40), st.sampled_from([0.8, 0.95, 0.999]), st.randoms())
def test_it_holds_its_mean_whatever_the_order(values: list[float], confidence: float, dealer: object) -> None:
    found = nonnegative_mean(values, confidence)
    assert found.low is not None
    assert found.value is not None
    assert 0 <= found.low <= found.value
    assert found.high is None or found.value <= found.high
    again = nonnegative_mean(sorted(values), confidence)
    assert again.low == pytest.approx(found.low, rel=1e-9, abs=1e-300)


def test_a_wider_confidence_is_lower_and_more_values_are_closer() -> None:
    draws = np.random.default_rng(5).exponential(size=512)
    lows = [nonnegative_mean(draws[:64], confidence).low or 0.0 for confidence in (0.8, 0.95, 0.99)]
    assert lows == sorted(lows, reverse=True)
    few, many = (nonnegative_mean(draws[:n], 0.95) for n in (32, 512))
    assert (many.low or 0) / (many.value or 1) > (few.low or 0) / (few.value or 1)
    assert (many.low or 0) / (many.value or 1) > 0.85


@pytest.mark.parametrize("heavy", [False, True])
def test_the_truth_is_below_the_bound_no_oftener_than_promised(heavy: bool) -> None:
    rng = np.random.default_rng(11)
    truth = math.exp(2) if heavy else 1.0
    missed = 0
    for _ in range(400):
        values = rng.lognormal(0, 2, 20) if heavy else rng.exponential(size=20)
        missed += (nonnegative_mean(values.tolist(), 0.8).low or 0.0) > truth
    # 10 % promised on this side; 400 draws put the 99.9 % limit at 60.
    assert missed <= 60
