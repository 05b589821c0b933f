"""A drift is found, chance is not, and neighbours that resemble each other are no drift."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from steelyard.stats.trend import LEAST, MOST, trend


def test_a_straight_line_is_its_own_change() -> None:
    found = trend([2.0 + 0.1 * at for at in range(30)])
    assert found is not None
    assert found.change == pytest.approx(2.9)
    assert found.p_value < 1e-6


def test_what_does_not_change_has_no_trend() -> None:
    found = trend([1.0] * 20)
    assert found is not None
    assert (found.change, found.p_value) == (0.0, 1.0)


def test_few_values_say_nothing_and_unknown_ones_are_refused() -> None:
    assert trend([1.0] * (LEAST - 1)) is None
    with pytest.raises(ValueError, match="finite"):
        trend([1.0] * LEAST + [math.nan])


def test_without_correlation_it_is_kendalls_test() -> None:
    values = np.random.default_rng(4).normal(size=40)
    found = trend(list(values))
    assert found is not None
    asymptotic = kendalltau(range(40), values, method="asymptotic").pvalue
    # Ours steps towards zero by one, so it is a little larger.
    assert asymptotic < found.p_value < asymptotic + 0.05


@pytest.mark.parametrize(("rho", "most"), [(0.0, 0.03), (0.5, 0.08)])
def test_chance_is_rarely_called_a_drift(rho: float, most: float) -> None:
    """At 1 %: 300 series of 40 values each, independent, or with neighbours alike (the plain test: 11 % there)."""
    rng = np.random.default_rng(11)
    found = 0
    for _ in range(300):
        noise = rng.normal(size=40)
        for at in range(1, 40):
            noise[at] += rho * noise[at - 1]
        result = trend(list(noise))
        found += result is not None and result.p_value < 0.01
    assert found / 300 <= most


def test_swapping_the_direction_swaps_the_sign_alone() -> None:
    values = list(np.random.default_rng(2).normal(size=25).cumsum())
    there, back = trend(values), trend(values[::-1])
    assert there is not None
    assert back is not None
    assert back.change == pytest.approx(-there.change)
    assert back.p_value == pytest.approx(there.p_value)


def test_a_long_series_is_averaged_and_still_seen() -> None:
    rng = np.random.default_rng(5)
    values = list(rng.normal(size=20 * MOST) + np.linspace(0, 1, 20 * MOST))
    found = trend(values)
    assert found is not None
    assert found.change == pytest.approx(1, abs=0.2)
    assert found.p_value < 1e-4
