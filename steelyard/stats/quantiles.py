"""Quantiles that are refused when the sample cannot carry them.

The 95th percentile of 20 requests is the largest of them under another name. A tail quantile is given only if the
extreme order statistic lies beyond the true quantile with 97.5 % probability, so that a distribution-free two-sided
95 % interval has its outer end inside the sample: q^n <= 0.025 (David & Nagaraja, Order Statistics, section 7.1).
That is n >= 72 for p95 and n >= 368 for p99. The median of a trial is a summary that blocks replicate, so two values
are enough for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

_OUTSIDE = 0.025


def samples_needed(q: float) -> int:
    """Values that `quantile` asks for at `q`, 0 < q < 1. ValueError outside of that."""
    if not 0 < q < 1:
        raise ValueError(f"a quantile lies strictly between 0 and 1, not at {q}")
    if q == 0.5:
        return 2
    return max(2, math.ceil(math.log(_OUTSIDE) / math.log(max(q, 1 - q))))


def quantile_bounds(values: Iterable[float], q: float, confidence: float) -> tuple[float | None, float | None]:
    """Between which of `values` the true q-quantile lies, for every distribution; None for an end that none can be.

    Order statistics (David & Nagaraja, section 7.1): of n independent values a binomial number lies below the quantile,
    so the ranks are that binomial's quantiles at (1 - confidence) / 2 on either side. Requests of a trial queue behind
    each other and are not independent, so for them this describes a trial; arms are compared over blocks. Where
    `quantile` refuses, one end is None.
    """
    from scipy.stats import binom

    ordered = sorted(values)
    if not all(map(math.isfinite, ordered)):
        raise ValueError("a quantile needs finite values; drop what is unknown before asking")
    if not 0 < q < 1 or not 0 < confidence < 1:
        raise ValueError("a quantile and a confidence lie strictly between 0 and 1")
    n, error = len(ordered), (1 - confidence) / 2
    if n == 0:
        return None, None
    below = int(binom.ppf(error, n, q))
    # ppf is where the sum reaches the error; the rank's own share must stay within it.
    low = below if float(binom.cdf(below, n, q)) > error else below + 1
    high = int(binom.ppf(1 - error, n, q)) + 1
    return (ordered[low - 1] if low >= 1 else None), (ordered[high - 1] if high <= n else None)


def quantile(values: Iterable[float], q: float) -> float | None:
    """The q-quantile of `values`, in their unit, by linear interpolation (type 7 of Hyndman & Fan, as in numpy and R).

    None when there are fewer than `samples_needed(q)` values: unknown, never a guess. ValueError for a value that is
    not finite, because a quantile over it would be silently wrong.
    """
    ordered = sorted(values)
    if not all(map(math.isfinite, ordered)):
        raise ValueError("a quantile needs finite values; drop what is unknown before asking")
    if len(ordered) < samples_needed(q):
        return None
    place = (len(ordered) - 1) * q
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
