"""Tango's score interval for means in [-1, 1]: the fixed-size interval of clusters of right and wrong answers.

Tango (1998) compares the mean paired difference with what its own variance would be *if the hypothesis were true*. That
is why it is right where differences are rare: with no loss seen at all, a loss of two points still means that losses
exist. His differences are -1, 0 or 1. Here they are any values in [-1, 1], such as means of clusters: the distribution
under the hypothesis is the likeliest one, on the values seen and the worst possible one, whose mean is the
hypothesis' (empirical likelihood; Owen, Biometrika 75, 1988). For -1, 0 and 1 it is Tango's, digit for digit.

Unlike betting it is not valid for every distribution; `make bench-error_rates` simulates it where clusters are alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from steelyard.stats.paired import Estimate, check_confidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STEPS = 80
WORST = -1 + 1e-12
"""As good as -1: a sum of thirds may miss it by the last bit."""


def score_interval(values: Sequence[float], confidence: float) -> Estimate:
    """Mean of `values` in [-1, 1] with the score interval described above. No values give an unknown estimate.

    The order of values means nothing. ValueError for a value outside.
    """
    import numpy as np
    from scipy.special import ndtri

    check_confidence(confidence)
    method, n = "score, paired means", len(values)
    if any(not -1 <= each <= 1 for each in values):
        raise ValueError("paired differences of scores in 0..1 lie in -1..1")
    if n == 0:
        return Estimate(None, None, None, 0, method)
    seen, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    value, z = math.fsum(values) / n, float(ndtri(0.5 + confidence / 2))
    low = _lowest(seen, counts, value, z)
    high = -_lowest(-seen, counts, -value, z)
    return Estimate(value, low, high, n, method)


def _lowest(seen: NDArray[np.float64], counts: NDArray[np.int64], value: float, z: float) -> float:
    """The smallest mean that the statistic does not reject."""
    if value <= -1:
        return -1.0
    low, high = -1.0, value
    for _ in range(STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if score(seen, counts, middle) > z:
            low = middle
        else:
            high = middle
    return low


def score(seen: NDArray[np.float64], counts: NDArray[np.int64], mean: float) -> float:
    """Statistic of H0: the mean is `mean`, for a sample mean at or above it; standard normal under H0.

    `seen` are the different values and `counts` how often each was seen; -1 < `mean`.
    """
    import numpy as np

    n = float(counts.sum())
    away = seen - mean
    distance = float((counts * away).sum()) / n
    if distance <= 0:
        return 0.0

    def pull(tilt: float) -> float:
        return float((counts * away / (1 + tilt * away)).sum()) / n

    # Beyond this tilt the worst value, -1, would have a negative probability; at it, it takes what is missing.
    most = 1 / (1 + mean)
    tilt, unseen = most, 0.0
    if seen.min() <= WORST or pull(most) < 0:
        low, high = 0.0, most
        for _ in range(STEPS):
            middle = (low + high) / 2
            if middle in (low, high):
                break
            if pull(middle) > 0:
                low = middle
            else:
                high = middle
        tilt = low
    else:
        unseen = most * pull(most)
    chances = counts / n / (1 + tilt * away)
    variance = float(np.dot(chances, away**2)) + unseen * (1 + mean) ** 2
    return distance / math.sqrt(variance / n) if variance > 0 else math.inf
