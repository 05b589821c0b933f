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
