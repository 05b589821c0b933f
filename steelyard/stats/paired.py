"""Ratios and means over blocks: t-intervals on the log scale.

A block is one replicate, and a study has three to eight of them. Requests inside a trial queue behind each other, so
they are no replicates and must not be resampled. Why t and not the bootstrap: with lognormal block noise the true
coverage of a nominal 95 % interval is, by simulation (20 000 repetitions; 4 000 for the bootstrap of 2 000 draws),

    blocks    t-interval   normal (1.96)   percentile bootstrap
    3         95.0 %       81.6 %          75.2 %
    4         95.0 %       85.6 %          80.8 %
    5         95.0 %       88.0 %          84.3 %
    8         94.9 %       90.8 %          88.9 %

At three blocks a percentile bootstrap is the range of the data under another name and errs one time in four. The
log scale makes the ratio symmetric: swapping the two sides inverts the estimate and its bounds exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A point estimate with its interval, in the unit of what was estimated.

    `value` is None when nothing can be estimated, `low` and `high` are None when they are unknown or unbounded.
    `n` counts the replicates used; `method` names the estimator for the evidence table.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str


Confidence = float | Mapping[str, float]
"""Two-sided confidence of intervals: one for all metrics, or one for each by name."""


def confidence_of(confidence: Confidence, metric: str) -> float:
    """That of one metric. KeyError for a metric that is not named."""
    return confidence[metric] if isinstance(confidence, Mapping) else confidence


def t_quantile(confidence: float, degrees: int) -> float:
    """Two-sided Student quantile: the half-width of the interval in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + confidence / 2))


def check_confidence(confidence: float) -> None:
    """ValueError unless `confidence` is a two-sided confidence strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies strictly between 0 and 1, not at {confidence}")


def mean_interval(values: Iterable[float], confidence: float, *, method: str = "log-t over blocks") -> Estimate:
    """Geometric mean of positive `values` (one per block) with a t-interval on the log scale.

    The geometric mean is used because the ratio of two of them is exactly the paired ratio of `ratio_interval`.
    Fewer than two values give no interval. A value that is zero, negative or not finite makes everything unknown:
    leaving it out would flatter whoever produced it.
    """
    check_confidence(confidence)
    given = [float(value) for value in values]
    n = len(given)
    if n == 0 or not all(math.isfinite(value) and value > 0 for value in given):
        return Estimate(None, None, None, n, method)
    logs = [math.log(value) for value in given]
    mean = math.fsum(logs) / n
    if n < 2:
        return Estimate(math.exp(mean), None, None, n, method)
    variance = math.fsum((each - mean) ** 2 for each in logs) / (n - 1)
    half = t_quantile(confidence, n - 1) * math.sqrt(variance / n)
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half), n, method)


def ratio_interval(pairs: Sequence[tuple[float, float]], confidence: float) -> Estimate:
    """Ratio of the first to the second of each pair (candidate, baseline), paired by block.

    The estimate is the geometric mean of the block ratios; the interval is Student's on their logarithms, exact for
    lognormal block noise. Fewer than two pairs give no interval (both bounds None); a zero, negative or infinite
    value on either side makes the ratio unknown (all None), and so inconclusive rather than flattering.
    """
    method = "paired log-ratio t over blocks"
    positive = all(math.isfinite(side) and side > 0 for pair in pairs for side in pair)
    if not positive:
        check_confidence(confidence)
        return Estimate(None, None, None, len(pairs), method)
    return mean_interval([candidate / baseline for candidate, baseline in pairs], confidence, method=method)
