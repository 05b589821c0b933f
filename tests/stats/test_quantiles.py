from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.stats.quantiles import quantile, samples_needed


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
