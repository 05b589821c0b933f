from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from steelyard.stats.proportions import betting_interval, exact_share, mcnemar_exact, tango_interval


@pytest.mark.parametrize(
    ("gained", "lost", "n", "confidence", "low", "high"),
    [
        (1, 7, 21, 0.95, -0.517, -0.026),  # Bentur 2009 in Fagerland, Lydersen & Laake, chapter 8
        (6, 16, 161, 0.95, -0.1240, -0.0054),  # Cavo 2012, contingencytables 3.0.0
        (28, 25, 618, 0.90, -0.0148, 0.0247),  # PropCIs::scoreci.mp(25, 28, 618, 0.9)
    ],
)
def test_tango_agrees_with_published_values(
    gained: int, lost: int, n: int, confidence: float, low: float, high: float
) -> None:
    estimate = tango_interval(gained, lost, n, confidence)
    places = 3 if n == 21 else 4
    assert estimate.value == pytest.approx((gained - lost) / n)
    assert round(estimate.low, places) == low  # type: ignore[arg-type]
    assert round(estimate.high, places) == high  # type: ignore[arg-type]


def profile_score(gained: int, lost: int, n: int, difference: float) -> float:
    """The same statistic with the nuisance parameter found by maximising the likelihood numerically."""

    def minus_likelihood(p_lost: float) -> float:
        p_gained = p_lost + difference
        terms = ((gained, p_gained), (lost, p_lost), (n - gained - lost, 1 - p_gained - p_lost))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    least, most = max(0.0, -difference), (1 - difference) / 2
    found = optimize.minimize_scalar(minus_likelihood, bounds=(least, most), method="bounded", options={"xatol": 1e-12})
    variance = n * (2 * found.x + difference - difference**2)
    return (gained - lost - n * difference) / math.sqrt(variance)


@pytest.mark.parametrize(("gained", "lost", "n"), [(1, 7, 21), (6, 16, 161), (2, 12, 300), (3, 3, 40), (9, 1, 15)])
def test_at_the_bounds_an_independent_score_test_is_at_its_critical_value(gained: int, lost: int, n: int) -> None:
    estimate = tango_interval(gained, lost, n, 0.95)
    assert profile_score(gained, lost, n, estimate.low) == pytest.approx(1.95996, abs=2e-3)  # type: ignore[arg-type]
    assert profile_score(gained, lost, n, estimate.high) == pytest.approx(-1.95996, abs=2e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [20, 40])
@pytest.mark.parametrize(("margin", "discordance"), [(0.02, 0.02), (0.02, 0.2), (0.05, 0.1), (0.1, 0.1), (0.1, 0.3)])
def test_harm_at_the_margin_is_proven_harmless_no_more_often_than_promised(
    n: int, margin: float, discordance: float
) -> None:
    """By exact enumeration of all tables; nominal 2.5 %."""
    p_lost, p_gained = (discordance + margin) / 2, (discordance - margin) / 2
    false_pass = 0.0
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            same = n - lost - gained
            ways = math.comb(n, lost) * math.comb(n - lost, gained)
            chance = ways * p_lost**lost * p_gained**gained * (1 - p_lost - p_gained) ** same
            if chance > 1e-9 and tango_interval(gained, lost, n, 0.95).low >= -margin:  # type: ignore[operator]
                false_pass += chance
    assert false_pass <= 0.03


@pytest.mark.parametrize("n", [1, 10, 200, 380])
def test_identical_answers_are_no_proof_of_a_one_point_margin_below_381_pairs(n: int) -> None:
    assert tango_interval(0, 0, n, 0.95).low < -0.01  # type: ignore[operator]
    assert tango_interval(0, 0, 381, 0.95).low > -0.01  # type: ignore[operator]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 300))
def test_tango_contains_its_estimate_mirrors_and_worsens_with_losses(gained: int, lost: int, same: int) -> None:
    n = gained + lost + same
    if n == 0:
        assert tango_interval(0, 0, 0, 0.95).value is None
        return
    here, mirrored = tango_interval(gained, lost, n, 0.95), tango_interval(lost, gained, n, 0.95)
    assert -1 <= here.low <= here.value <= here.high <= 1  # type: ignore[operator]
    assert here.high - here.low > 0  # type: ignore[operator]
    assert here.low == pytest.approx(-mirrored.high, abs=1e-9)  # type: ignore[operator]
    if same:
        worse = tango_interval(gained, lost + 1, n, 0.95)
        assert worse.low < here.low  # type: ignore[operator]
        assert worse.high <= here.high + 1e-12  # type: ignore[operator]


@pytest.mark.parametrize(("gained", "lost", "n"), [(-1, 0, 5), (3, 3, 5)])
def test_counts_that_do_not_fit_are_refused(gained: int, lost: int, n: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        tango_interval(gained, lost, n, 0.95)


@pytest.mark.parametrize(("count", "n"), [(0, 300), (1, 300), (12, 300), (300, 300), (0, 1)])
def test_exact_share_agrees_with_scipy(count: int, n: int) -> None:
    reference = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
    share = exact_share(count, n, 0.95)
    assert (share.low, share.high) == pytest.approx((reference.low, reference.high))


def test_exact_share_meets_the_fixed_sizes_of_the_harm_gate() -> None:
    # One-sided 95 % is two-sided 90 %: 0 of 299, 1 of 473, 2 of 628, 3 of 773 stay below 1 %.
    for count, n in ((0, 299), (1, 473), (2, 628), (3, 773)):
        assert exact_share(count, n, 0.90).high <= 0.01  # type: ignore[operator]
        assert exact_share(count, n - 1, 0.90).high > 0.01  # type: ignore[operator]
    assert exact_share(0, 0, 0.95).high is None


def test_mcnemar_agrees_with_the_published_value_and_scipy() -> None:
    assert mcnemar_exact(6, 16) == pytest.approx(0.052479, abs=1e-6)  # contingencytables, Cavo 2012
    assert mcnemar_exact(3, 11) == pytest.approx(stats.binomtest(3, 14).pvalue)
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 5) == 1.0


@pytest.mark.parametrize("n", [10, 100, 500])
def test_betting_keeps_a_width_at_zero_variance(n: int) -> None:
    estimate = betting_interval([0.0] * n, 0.95)
    assert estimate.value == 0
    assert estimate.high == pytest.approx(-estimate.low)  # type: ignore[operator]
    # A world in which 1 pair in k differs shows no difference in n pairs with probability (1 - 1/k)^n.
    assert estimate.high >= 1 - 0.025 ** (1 / n)  # type: ignore[operator]
    assert estimate.high < 8 / n  # type: ignore[operator]


@pytest.mark.parametrize(("p_lost", "n"), [(0.02, 100), (0.02, 400), (0.3, 50)])
def test_betting_covers_where_t_does_not(p_lost: float, n: int) -> None:
    rng = np.random.default_rng(7)
    above = below = 0
    for _ in range(300):
        lost = rng.random(n) < p_lost
        estimate = betting_interval(list(np.where(lost, -0.7, 0.0)), 0.95)
        above += estimate.low > -0.7 * p_lost  # type: ignore[operator]
        below += estimate.high < -0.7 * p_lost  # type: ignore[operator]
    assert above <= 0.05 * 300
    assert below <= 0.05 * 300


def test_betting_narrows_around_a_real_difference() -> None:
    rng = np.random.default_rng(3)
    estimate = betting_interval(list(rng.choice([-0.5, 0.0, 0.1], 2000, p=[0.2, 0.7, 0.1])), 0.95)
    assert -0.13 < estimate.low < -0.09 < estimate.high < -0.06  # type: ignore[operator]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60))
def test_betting_bounds_are_ordered(differences: list[float]) -> None:
    estimate = betting_interval(differences, 0.95)
    assert -1 <= estimate.low <= estimate.value + 1e-9  # type: ignore[operator]
    assert estimate.value - 1e-9 <= estimate.high <= 1  # type: ignore[operator]


def test_betting_refuses_what_is_no_difference_of_scores() -> None:
    with pytest.raises(ValueError, match=r"-1\.\.1"):
        betting_interval([1.5], 0.95)
    with pytest.raises(ValueError, match=r"-1\.\.1"):
        betting_interval([math.nan], 0.95)
    assert betting_interval([], 0.95).value is None
