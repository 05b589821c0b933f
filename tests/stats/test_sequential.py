"""Intervals that may be looked at again and again: what they promise, over all looks together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.stats.betting import lower_mean
from steelyard.stats.paired import ratio_interval
from steelyard.stats.proportions import exact_share, tango_interval
from steelyard.stats.sequential import (
    Looks,
    mean_sequence,
    paired_sequence,
    ratio_sequence,
    share_sequence,
    unit_sequence,
)


@given(st.integers(2, 12), st.integers(0, 12))
def test_the_looks_spend_the_error_once(first: int, more: int) -> None:
    looks = Looks(first, first + more)
    assert math.fsum(looks.share(n) for n in range(40)) == pytest.approx(1.0)
    assert looks.share(first - 1) == looks.share(first + more + 1) == 0


@pytest.mark.parametrize(("first", "last"), [(1, 3), (4, 3)])
def test_looks_that_cannot_be_are_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="looks go from"):
        Looks(first, last)


def test_a_single_look_is_the_fixed_interval() -> None:
    pairs = [(2.0, 1.0), (2.2, 1.0), (1.9, 1.1)]
    once, fixed = ratio_sequence(pairs, 0.95, Looks(3, 3)), ratio_interval(pairs, 0.95)
    assert (once.low, once.high) == (fixed.low, fixed.high)


def test_blocks_that_were_not_declared_decide_nothing() -> None:
    for n in (2, 7):
        found = ratio_sequence([(2.0 + 0.01 * k, 1.0) for k in range(n)], 0.95, Looks(3, 6))
        assert (found.low, found.high) == (None, None)
        assert found.value == pytest.approx(2.0, rel=0.05)


def test_a_baseline_against_itself_is_promoted_no_more_often_than_promised_however_often_one_looks() -> None:
    rng = np.random.default_rng(5)
    looks, studies = Looks(3, 8), 4000
    logs = rng.normal(0, 0.08, (studies, 8))
    wrong = plain = 0
    for row in logs:
        pairs = [(math.exp(each), 1.0) for each in row]
        wrong += any(ratio_sequence(pairs[:n], 0.95, looks).low > 1 for n in range(3, 9))  # type: ignore[operator]
        plain += any(ratio_interval(pairs[:n], 0.95).low > 1 for n in range(3, 9))  # type: ignore[operator]
    # 2.5 % is promised; three standard errors above it are allowed.
    assert wrong / studies <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / studies)
    assert plain / studies > 0.05


@pytest.mark.parametrize(("p_lost", "p_gained"), [(0.02, 0.0), (0.06, 0.04)])
def test_harm_at_the_margin_passes_no_more_often_than_promised_however_often_one_looks(
    p_lost: float, p_gained: float
) -> None:
    rng = np.random.default_rng(11)
    studies, batch, most = 300, 50, 600
    passed = peeked = 0
    for _ in range(studies):
        draws = rng.choice([-1, 0, 1], size=most, p=[p_lost, 1 - p_lost - p_gained, p_gained])
        ours = theirs = False
        for n in range(batch, most + 1, batch):
            gained, lost = int((draws[:n] == 1).sum()), int((draws[:n] == -1).sum())
            ours |= paired_sequence(gained, lost, n, 0.95, last=n == most).low >= -0.02  # type: ignore[operator]
            theirs |= tango_interval(gained, lost, n, 0.95).low >= -0.02  # type: ignore[operator]
        passed += ours
        peeked += theirs
    assert passed / studies <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / studies)
    assert peeked > passed


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_the_order_of_differences_means_nothing(differences: list[float], shuffler: object) -> None:
    other = list(differences)
    shuffler.shuffle(other)  # type: ignore[attr-defined]
    here, there = mean_sequence(differences, 0.95), mean_sequence(other, 0.95)
    assert here == there
    assert -1 <= here.low <= here.value <= here.high <= 1  # type: ignore[operator]
    mirrored = mean_sequence([-each for each in differences], 0.95)
    assert mirrored.low == pytest.approx(-here.high, abs=1e-9)  # type: ignore[operator]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 200), st.booleans())
def test_one_more_loss_never_helps(gained: int, lost: int, same: int, last: bool) -> None:
    n = gained + lost + same
    here = paired_sequence(gained, lost, n, 0.95, last=last)
    worse = paired_sequence(gained, lost + 1, n, 0.95, last=last)
    assert worse.low <= here.low + 1e-12  # type: ignore[operator]
    assert worse.high <= here.high + 1e-12  # type: ignore[operator]


def test_the_last_look_is_never_wider_than_an_early_one_and_never_narrower_than_half_the_error() -> None:
    for gained, lost, n in ((0, 0, 300), (3, 5, 400), (20, 22, 500)):
        early, last = (paired_sequence(gained, lost, n, 0.95, last=each) for each in (False, True))
        fixed = tango_interval(gained, lost, n, 0.95)
        assert early.low <= last.low <= fixed.low  # type: ignore[operator]
        assert fixed.high <= last.high <= early.high  # type: ignore[operator]
    early, last = (share_sequence(2, 300, 0.95, last=each) for each in (False, True))
    assert exact_share(2, 300, 0.95).high <= last.high <= early.high  # type: ignore[operator]


@pytest.mark.parametrize("p", [0.01, 0.3])
def test_a_share_is_missed_no_more_often_than_promised_at_any_look(p: float) -> None:
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(400):
        hits = rng.random(500) < p
        found = [share_sequence(int(hits[:n].sum()), n, 0.95, last=n == 500) for n in range(50, 501, 50)]
        missed += any(p < each.low or p > each.high for each in found)  # type: ignore[operator]
    assert missed / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_what_is_no_difference_no_share_and_no_value_is_refused() -> None:
    with pytest.raises(ValueError, match="lie in"):
        mean_sequence([1.5], 0.95)
    with pytest.raises(ValueError, match="lie in"):
        unit_sequence([-0.5], 0.95)
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite and never negative"):
            lower_mean([1.0, bad], 40)
    assert mean_sequence([], 0.95).value is None
    assert unit_sequence([], 0.95).value is None
    assert share_sequence(0, 0, 0.95, last=True).value is None
