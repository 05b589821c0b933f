"""The score interval of means: Tango's where values are -1, 0 and 1, and never surer for copies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.stats.proportions import tango_interval
from steelyard.stats.score import score, score_interval


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 120))
def test_it_is_tango_for_right_and_wrong_answers(gained: int, lost: int, same: int) -> None:
    n = gained + lost + same
    if n == 0:
        assert score_interval([], 0.95).value is None
        return
    here = score_interval([1.0] * gained + [-1.0] * lost + [0.0] * same, 0.95)
    tango = tango_interval(gained, lost, n, 0.95)
    assert here.low == pytest.approx(tango.low, abs=1e-7)
    assert here.high == pytest.approx(tango.high, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_it_contains_its_mean_mirrors_and_ignores_the_order(values: list[float], shuffler: object) -> None:
    here = score_interval(values, 0.95)
    assert -1 <= here.low <= here.value + 1e-12  # type: ignore[operator]
    assert here.value - 1e-12 <= here.high <= 1  # type: ignore[operator]
    mirrored = score_interval([-each for each in values], 0.95)
    assert mirrored.low == pytest.approx(-here.high, abs=1e-9)  # type: ignore[operator]
    other = list(values)
    shuffler.shuffle(other)  # type: ignore[attr-defined]
    assert score_interval(other, 0.95) == here


@pytest.mark.parametrize("n", [5, 100, 380])
def test_identical_clusters_are_no_proof_of_a_one_point_margin(n: int) -> None:
    assert score_interval([0.0] * n, 0.95).low < -0.01  # type: ignore[operator]
    assert score_interval([0.0] * 381, 0.95).low > -0.01  # type: ignore[operator]


def test_the_distribution_under_the_hypothesis_has_its_mean() -> None:
    """By a general optimiser: the likeliest distribution of that mean on the values seen and -1."""
    from scipy.optimize import minimize

    seen, counts, mean = np.array([-0.25, 0.0, 0.5]), np.array([3, 40, 5]), -0.05
    support = np.array([-1.0, *seen])
    known = np.array([0, *counts])
    found = minimize(
        lambda p: -(known * np.log(np.maximum(p, 1e-300))).sum(), np.array([0.05, 0.15, 0.7, 0.1]),
        bounds=[(0, 1)] * 4, method="SLSQP", options={"maxiter": 1000, "ftol": 1e-14},
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1}, {"type": "eq", "fun": lambda p: p @ support - mean},
        ],
    )  # fmt: skip
    variance = float(found.x @ (support - mean) ** 2)
    sample = float((seen * counts).sum() / counts.sum())
    expected = (sample - mean) / math.sqrt(variance / counts.sum())
    assert score(seen, counts, mean) == pytest.approx(expected, rel=1e-4)


def test_harm_of_whole_clusters_at_the_margin_is_passed_no_more_often_than_promised() -> None:
    rng = np.random.default_rng(9)
    wrong = 0
    for _ in range(1500):
        alike = rng.random(300) < 0.5
        one = rng.choice([-1.0, 0.0, 1.0], 300, p=[0.03, 0.96, 0.01])
        each = rng.choice([-1.0, 0.0, 1.0], (300, 3), p=[0.03, 0.96, 0.01]).mean(axis=1)
        wrong += score_interval(list(np.where(alike, one, each)), 0.95).low >= -0.02  # type: ignore[operator]
    assert wrong / 1500 <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 1500)


def test_a_value_that_is_no_difference_is_refused() -> None:
    with pytest.raises(ValueError, match="lie in"):
        score_interval([1.2], 0.95)
