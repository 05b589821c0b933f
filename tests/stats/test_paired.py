from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.stats.paired import mean_interval, ratio_interval, t_quantile

positive = st.floats(1e-3, 1e3)


def t_covers(logs: np.ndarray, confidence: float) -> float:
    covered = 0
    for row in logs:
        estimate = ratio_interval([(math.exp(each), 1.0) for each in row], confidence)
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= 1 <= estimate.high
    return covered / len(logs)


def bootstrap_covers(logs: np.ndarray, rng: np.random.Generator) -> float:
    draws = rng.integers(0, logs.shape[1], (1000, logs.shape[1]))
    covered = 0
    for row in logs:
        low, high = np.quantile(row[draws].mean(axis=1), [0.025, 0.975])
        covered += low <= 0 <= high
    return covered / len(logs)


@pytest.mark.parametrize("blocks", [3, 4, 5])
def test_t_interval_covers_at_few_blocks_and_the_percentile_bootstrap_does_not(blocks: int) -> None:
    rng = np.random.default_rng(20261121)
    logs = rng.normal(0, 0.05, (4000, blocks))
    assert 0.94 <= t_covers(logs, 0.95) <= 0.96
    assert bootstrap_covers(logs[:1000], rng) < {3: 0.80, 4: 0.85, 5: 0.88}[blocks]


def test_a_study_wide_factor_per_block_cancels() -> None:
    rng = np.random.default_rng(1)
    weather = np.exp(rng.normal(0, 1.0, 4))
    noise = np.exp(rng.normal(0, 0.01, 4))
    estimate = ratio_interval([(2 * w * e, w) for w, e in zip(weather, noise, strict=True)], 0.95)
    assert estimate.low is not None
    assert estimate.high is not None
    assert 1.9 < estimate.low < 2 < estimate.high < 2.1


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=8))
def test_swapping_the_sides_inverts_estimate_and_bounds(pairs: list[tuple[float, float]]) -> None:
    there = ratio_interval(pairs, 0.9)
    back = ratio_interval([(b, a) for a, b in pairs], 0.9)
    assert there.value == pytest.approx(1 / back.value)  # type: ignore[operator]
    assert there.low == pytest.approx(1 / back.high)  # type: ignore[operator]
    assert there.high == pytest.approx(1 / back.low)  # type: ignore[operator]


def test_matches_the_textbook_formula() -> None:
    ratios = [1.10, 1.30, 1.05]
    logs = np.log(ratios)
    half = 4.302652729911275 * logs.std(ddof=1) / math.sqrt(3)
    estimate = ratio_interval([(each, 1.0) for each in ratios], 0.95)
    assert estimate.low == pytest.approx(math.exp(logs.mean() - half))
    assert estimate.high == pytest.approx(math.exp(logs.mean() + half))
    assert (estimate.n, estimate.method) == (3, "paired log-ratio t over blocks")


def test_one_pair_has_a_ratio_but_no_interval_and_none_has_nothing() -> None:
    one = ratio_interval([(3.0, 2.0)], 0.95)
    assert (one.value, one.low, one.high, one.n) == (1.5, None, None, 1)
    assert ratio_interval([], 0.95).value is None


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("side", [0, 1])
def test_a_block_that_is_not_positive_makes_the_ratio_unknown_instead_of_vanishing(bad: float, side: int) -> None:
    broken = (bad, 1.0) if side == 0 else (1.0, bad)
    estimate = ratio_interval([(2.0, 1.0), (2.0, 1.0), broken], 0.95)
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (None, None, None, 3)


def test_more_confidence_is_wider() -> None:
    widths = []
    for confidence in (0.8, 0.95, 0.99):
        estimate = mean_interval([1.0, 1.1, 1.3], confidence)
        widths.append(estimate.high - estimate.low)  # type: ignore[operator]
    assert widths == sorted(widths)
    assert t_quantile(0.95, 2) == pytest.approx(4.302652729911275)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        ratio_interval([(0.0, 1.0)], confidence)
