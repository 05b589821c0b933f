from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.stats.quantiles import quantile, quantile_bounds, samples_needed


@pytest.mark.parametrize(("q", "needed"), [(0.5, 2), (0.95, 72), (0.99, 368), (0.05, 72), (0.9, 36)])
def test_samples_needed_are_the_published_ones(q: float, needed: int) -> None:
    assert samples_needed(q) == needed
    assert quantile([1.0] * (needed - 1), q) is None
    assert quantile([1.0] * needed, q) == 1.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=72, max_size=120), st.sampled_from([0.05, 0.5, 0.9, 0.95]))
def test_agrees_with_numpy_type_7(values: list[float], q: float) -> None:
    assert quantile(values, q) == pytest.approx(float(np.quantile(values, q)), abs=1e-6)


def test_nothing_is_unknown() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0], 0.5) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        quantile([1.0, bad, 2.0], 0.5)


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, 95])
def test_a_quantile_outside_zero_to_one_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile([1.0, 2.0], q)


@pytest.mark.parametrize(("n", "low", "high"), [(72, 64, 72), (100, 90, 100), (400, 371, 389)])
def test_bounds_are_the_ranks_of_the_binomial(n: int, low: int, high: int) -> None:
    """Ranks by summing the binomial by hand: no less than 97.5 % on either side, and the next rank inwards is less."""
    found = quantile_bounds(range(1, n + 1), 0.95, 0.95)
    below = [math.fsum(math.comb(n, k) * 0.95**k * 0.05 ** (n - k) for k in range(rank)) for rank in range(n + 1)]
    assert found == (low, high)
    assert below[low] <= 0.025 < below[low + 1]
    assert below[high] >= 0.975 > below[high - 1]


def test_an_end_that_no_value_can_be_is_unknown() -> None:
    assert quantile_bounds(range(71), 0.95, 0.95)[1] is None
    assert quantile_bounds([], 0.95, 0.95) == (None, None)
    assert quantile_bounds([1.0], 0.5, 0.95) == (None, None)
    with pytest.raises(ValueError, match="finite"):
        quantile_bounds([1.0, math.nan], 0.5, 0.95)
    with pytest.raises(ValueError, match="strictly between"):
        quantile_bounds([1.0], 1.0, 0.95)


def test_bounds_hold_the_quantile_as_often_as_they_say() -> None:
    rng = random.Random(5)
    truth = -math.log(0.05)
    held = 0
    for _ in range(1500):
        low, high = quantile_bounds([rng.expovariate(1) for _ in range(100)], 0.95, 0.95)
        held += low is not None and high is not None and low <= truth <= high
    assert held / 1500 >= 0.94
