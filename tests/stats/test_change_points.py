"""Change points: found where the level was changed, and hardly ever where it was not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.stats.change_points import change_points


def noisy(rng: np.random.Generator, *levels: tuple[float, int], spread: float = 0.02) -> list[float]:
    return [float(level + spread * rng.standard_normal()) for level, count in levels for _ in range(count)]


def test_a_step_is_found_where_it_is() -> None:
    rng = np.random.default_rng(1)
    found = change_points(noisy(rng, (1.4, 16), (1.2, 14)))
    assert [each.at for each in found] == [16]
    assert found[0].before == pytest.approx(1.4, abs=0.02)
    assert found[0].after == pytest.approx(1.2, abs=0.02)
    assert found[0].p_value < 1e-6


def test_two_nights_after_a_large_step_are_enough() -> None:
    hits = 0
    for seed in range(100):
        found = change_points(noisy(np.random.default_rng(seed), (1.4, 16), (1.2, 2)))
        hits += [each.at for each in found] == [16]
    assert hits >= 95


def test_several_steps_up_and_down() -> None:
    rng = np.random.default_rng(3)
    found = change_points(noisy(rng, (1.0, 20), (1.3, 15), (0.9, 25), (1.0, 30)))
    assert [each.at for each in found] == [20, 35, 60]


def test_the_steps_of_three_years_are_found_among_a_thousand_nights() -> None:
    rng = np.random.default_rng(4)
    found = change_points(noisy(rng, (1.0, 400), (1.1, 597), (1.0, 3)))
    assert [each.at for each in found] == [400, 997]


def test_noise_alone_is_rarely_a_change() -> None:
    """Of thirty nights without a change, in how many series is one seen: as often as was promised, or less."""
    for max_p, most in ((0.05, 30), (0.001, 2)):
        false = sum(
            bool(change_points(noisy(np.random.default_rng(seed), (1.0, 30)), max_p=max_p)) for seed in range(400)
        )
        assert false <= most, max_p


def test_one_odd_night_is_no_change_of_level() -> None:
    false = 0
    for seed in range(100):
        series = noisy(np.random.default_rng(seed), (1.0, 30))
        series[12] = 1.2
        false += bool(change_points(series))
    assert false <= 5


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [1.0, 1.0, 2.0], [3.0] * 40])
def test_too_few_or_equal_values_have_no_change(values: list[float]) -> None:
    assert change_points(values) == []


def test_a_step_without_any_noise_is_certain() -> None:
    [found] = change_points([1.0] * 5 + [2.0] * 5)
    assert (found.at, found.before, found.after, found.p_value) == (5, 1.0, 2.0, 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_unknown_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        change_points([1.0, value, 1.0])
    with pytest.raises(ValueError, match="probability"):
        change_points([1.0], max_p=0)


def test_scale_and_place_change_nothing() -> None:
    for seed in range(20):
        series = noisy(np.random.default_rng(seed), (1.0, 12), (1.1, 9), (1.0, 30))
        moved = [-300 * value + 7 for value in series]
        assert [each.at for each in change_points(series)] == [each.at for each in change_points(moved)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), max_size=120))
def test_points_are_in_order_certain_and_inside(values: list[float]) -> None:
    found = change_points(values)
    places = [each.at for each in found]
    assert places == sorted(set(places))
    assert all(0 < at < len(values) for at in places)
    assert all(0 <= each.p_value <= 0.001 for each in found)
