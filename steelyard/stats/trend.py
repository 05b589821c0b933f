"""Whether a series drifts: Mann-Kendall's test, with the correction of Hamed and Rao (1998) for autocorrelation.

Requests of a trial queue behind each other, so neighbours are alike without any drift, and the plain test would find
one far too often. Hamed and Rao widen the variance of Kendall's S by what the ranks of the detrended series say of
their own correlation. The size of a drift is the slope of Theil and Sen, which a few slow requests cannot turn.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

LEAST = 10
"""Values below which the normal approximation of S says nothing."""
MOST = 400
"""A longer series is averaged in runs of equal length, because all its pairs are looked at."""


@dataclass(frozen=True, slots=True)
class Trend:
    """`change` is the drift from the first to the last value, in the values' unit; `p_value` is two-sided."""

    change: float
    p_value: float


def trend(values: Sequence[float]) -> Trend | None:
    """The trend of equally spaced values; None of fewer than `LEAST`. ValueError for a value that is not finite."""
    from scipy.stats import norm, rankdata

    if not all(map(math.isfinite, values)):
        raise ValueError("a trend needs finite values; drop what is unknown before asking")
    if len(values) < LEAST:
        return None
    run = math.ceil(len(values) / MOST)
    values = [statistics.fmean(values[at : at + run]) for at in range(0, len(values) - run + 1, run)]
    n = len(values)
    pairs = list(combinations(range(n), 2))
    score = sum((values[j] > values[i]) - (values[j] < values[i]) for i, j in pairs)
    slope = statistics.median((values[j] - values[i]) / (j - i) for i, j in pairs)
    ties = Counter(values).values()
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    ranks = rankdata([value - slope * at for at, value in enumerate(values)])
    variance *= _inflation([float(rank) for rank in ranks])
    if variance <= 0:
        return Trend(0.0, 1.0)
    # One step towards zero, because S moves in steps of two.
    z = (score - math.copysign(1, score)) / math.sqrt(variance) if score else 0.0
    return Trend(slope * (n - 1), float(2 * norm.sf(abs(z))))


def _inflation(ranks: Sequence[float]) -> float:
    """By how much correlation widens the variance of S; correlations within chance count as none.

    Never below 1: a series that alternates would otherwise be given a certainty it has not.
    """
    n = len(ranks)
    mean = statistics.fmean(ranks)
    spread = math.fsum((rank - mean) ** 2 for rank in ranks)
    if spread == 0:
        return 1.0
    chance = 1.96 / math.sqrt(n)
    total = 0.0
    for lag in range(1, n - 2):
        rho = math.fsum((ranks[at] - mean) * (ranks[at + lag] - mean) for at in range(n - lag)) / spread
        if abs(rho) > chance:
            total += (n - lag) * (n - lag - 1) * (n - lag - 2) * rho
    return max(1.0, 1 + 2 * total / (n * (n - 1) * (n - 2)))
