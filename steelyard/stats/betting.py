"""The lower bound of a mean by betting: valid for every distribution, at every n, and however often it is looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

BETS = tuple(share / 20 for share in (0.25, 0.5, *range(1, 20)))
"""Shares of the wealth that are bet, from timid to bold; the mixture of them needs no knowledge of the spread."""


def lower_mean(values: Sequence[float], threshold: float) -> float:
    """The smallest mean m that a bet against "the mean is at most m" does not refute. `values` are never negative.

    A gambler who stakes the share b of the wealth multiplies it by 1 + b (x / m - 1). If the mean is at most m, the
    expected wealth never grows, so that it ever reaches `threshold` has at most the probability 1 / `threshold`
    (Ville), over all n together and for every distribution. The wealth is averaged over the fixed shares `BETS`, so
    the order of values means nothing; they are sorted, so that it does not change the last bit either.
    Source: Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86(1), 2024,
    section 4; here values need a bound below only.

    No value gives 0. ValueError for a value that is negative or not finite.
    """
    import numpy as np

    sample, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    if not np.isfinite(sample).all() or (sample < 0).any():
        raise ValueError("values must be finite and never negative")
    mean = float((sample * counts).sum() / max(1, counts.sum()))
    bets = np.asarray(BETS)[:, None]

    def refuted(candidate: float) -> bool:
        log_wealth = (np.log1p(bets * (sample / candidate - 1)) * counts).sum(axis=1)
        return float(np.logaddexp.reduce(log_wealth)) - math.log(len(BETS)) >= math.log(threshold)

    # At the sample's own mean no fixed bet has gained, because the logarithm is concave.
    low, high = 0.0, mean
    while low < high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if refuted(middle):
            low = middle
        else:
            high = middle
    return low
