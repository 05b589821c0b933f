"""Intervals for paired scores: right where discordance is rare, which is where optimizations live.

With few discordant pairs the Wald and t intervals are wrong in the dangerous direction: at 1 % discordance, n = 525
and a true loss of exactly one point, a t-interval proves "no worse than one point" in 10 % of studies instead of
2.5 %; Tango's score interval does so in 0.5 %. With no discordant pair at all they even have no width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from steelyard.stats.paired import Estimate, check_confidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a decreasing function crosses zero between `low` and `high`, by bisection to the last bit that matters."""
    for _ in range(80):
        middle = (low + high) / 2
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def score_statistic(gained: int, lost: int, n: int, difference: float) -> float:
    """Tango's score statistic of H0: p_candidate - p_baseline = `difference`; standard normal under H0."""
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    p_lost = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * p_lost + difference * (1 - difference))
    distance = gained - lost - n * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def score_statistics(gained: ArrayLike, lost: ArrayLike, n: ArrayLike, difference: float) -> NDArray[np.float64]:
    """`score_statistic` for arrays of tables."""
    import numpy as np

    g, lo, size = (np.asarray(each, dtype=float) for each in (gained, lost, n))
    b = -g - lo + (2 * size - g + lo) * difference
    c = -lo * difference * (1 - difference)
    p_lost = (np.sqrt(np.maximum(b * b - 8 * size * c, 0.0)) - b) / (4 * size)
    variance = size * (2 * p_lost + difference * (1 - difference))
    distance = g - lo - size * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        found = distance / np.sqrt(np.maximum(variance, 0.0))
    return np.where(variance > 0, found, np.where(distance == 0, 0.0, np.copysign(np.inf, distance)))


def tango_interval(gained: int, lost: int, n: int, confidence: float) -> Estimate:
    """Difference of two paired proportions, candidate - baseline, with the score interval of Tango (1998).

    `gained` pairs have baseline 0 and candidate 1, `lost` the reverse, `n` is all pairs, concordant ones included:
    they carry no difference but say how rare it is. No pairs give an unknown estimate. Source: Tango, Statistics in
    Medicine 17, 891-908; the same as PropCIs::scoreci.mp and contingencytables in R, with which tests agree.
    """
    check_confidence(confidence)
    if min(gained, lost) < 0 or gained + lost > n:
        raise ValueError(f"{gained} gained and {lost} lost do not fit into {n} pairs")
    method = "Tango score, paired"
    if n == 0:
        return Estimate(None, None, None, 0, method)
    from scipy.special import ndtri

    z = float(ndtri(0.5 + confidence / 2))
    value = (gained - lost) / n
    low = -1.0 if lost == n else _root(lambda d: score_statistic(gained, lost, n, d) - z, -1.0, value)
    high = 1.0 if gained == n else _root(lambda d: score_statistic(gained, lost, n, d) + z, value, 1.0)
    return Estimate(value, low, high, n, method)


def exact_share(count: int, n: int, confidence: float) -> Estimate:
    """Share `count` / `n` with the exact two-sided interval of Clopper and Pearson (1934): never too narrow."""
    check_confidence(confidence)
    if not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is no share")
    method = "Clopper-Pearson exact"
    if n == 0:
        return Estimate(None, None, None, 0, method)
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, tail))
    high = 1.0 if count == n else float(betaincinv(count + 1, n - count, 1 - tail))
    return Estimate(count / n, low, high, n, method)


def wilson_interval(count: int, n: int, confidence: float) -> Estimate:
    """Share `count` / `n` with the score interval of Wilson (1927), two-sided: close to its promise on average, at
    small n too, where the exact one is wider. Not for verdicts, which are never to err more often than they say.
    """
    check_confidence(confidence)
    if not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is no share")
    method = "Wilson score"
    if n == 0:
        return Estimate(None, None, None, 0, method)
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    share = count / n
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half), n, method)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact p-value of "gains and losses are equally likely". A diagnostic: a large p proves no equality."""
    from scipy.special import bdtr

    if min(gained, lost) < 0:
        raise ValueError("counts are never negative")
    if gained + lost == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def betting_interval(differences: Sequence[float], confidence: float) -> Estimate:
    """Mean of paired differences in [-1, 1] by betting, for scores that are not 0/1.

    Valid at every n and for every distribution, so that ten identical pairs stay as uncertain as they are: with zero
    variance the 95 % bounds lie about 5 / n away (0.010 at n = 500), never at zero. The price is width: 1.4 (n = 2000)
    to 1.6 times (n = 200) that of a t-interval where that one is right. The interval depends on the order, so the
    caller must fix an order that ignores the scores (hashes). Source: Waudby-Smith & Ramdas, "Estimating means of
    bounded random variables by betting", JRSS B 86(1), 2024; predictable plug-in bets, truncated at 3/4, each side at
    half the error.
    """
    check_confidence(confidence)
    method = "betting, paired differences"
    n = len(differences)
    if any(not -1 <= each <= 1 for each in differences):
        raise ValueError("paired differences of scores in 0..1 lie in -1..1")
    if n == 0:
        return Estimate(None, None, None, 0, method)
    import numpy as np

    x = (np.asarray(differences, dtype=float) + 1) / 2
    count = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(x)) / (count + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (count + 1)
    known = np.concatenate(([0.25], variances[:-1]))
    threshold = math.log(2 / (1 - confidence))
    bets = np.sqrt(2 * threshold / (n * known))

    def wealth_above(sample: np.ndarray, mean: float) -> float:
        return float(np.log1p(np.minimum(bets, 0.75 / mean) * (sample - mean)).sum())

    def bound(sample: np.ndarray) -> float:
        lowest = 1e-12
        if wealth_above(sample, lowest) < threshold:
            return 0.0
        return _root(lambda mean: wealth_above(sample, mean) - threshold, lowest, float(sample.mean()))

    value = math.fsum(differences) / n
    return Estimate(value, 2 * bound(x) - 1, 1 - 2 * bound(1 - x), n, method)
