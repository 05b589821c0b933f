"""Where a series changed its level: E-divisive means, and Student's test for what counts as a change.

The split of a series is where the energy distance between what lies before and after is largest (Matteson and James
2014). The permutation test of that paper cannot be sure of anything with few values, so candidates are held against
each other by a t-test between neighbouring segments, and the least certain one is dropped until all are certain: the
method of Hunter (Fleming, Kolaczkowski et al., ICPE 2023), which Apache Otava goes by. A long series is looked at
through overlapping windows, or a change of last week would drown in three years.

One thing is other than there: the split was chosen as the best of many, so its p-value is multiplied by how many there
were (Bonferroni). Without that, 1.5 % of series of thirty values and no change have one at p <= 0.001; so 0.05 % do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 50
"""Values of a window; the next one begins in its middle."""
LEAST = 2
"""Values of a segment: the distance within fewer is not defined."""
WEAK = 10.0
"""A candidate may be so many times less certain than a change: its neighbours are known only once all are there."""


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A change of level before the value at `at`. `before` and `after` are means of the segments that meet there.

    `p_value` is two-sided, of Student's t-test between the two segments, for the best of all splits of both.
    """

    at: int
    before: float
    after: float
    p_value: float


def change_points(values: Sequence[float], *, max_p: float = 0.001) -> list[ChangePoint]:
    """Changes of level of a series, in order. ValueError for a value that is not finite, or a `max_p` outside 0..1."""
    if not all(map(math.isfinite, values)):
        raise ValueError("a change point needs finite values; drop what is unknown before asking")
    if not 0 < max_p < 1:
        raise ValueError(f"max_p is a probability, not {max_p}")
    series = np.asarray(values, dtype=float)
    candidates: set[int] = set()
    for begin in range(0, max(1, len(series) - WINDOW // 2), WINDOW // 2):
        window = series[begin : begin + WINDOW]
        candidates |= {begin + at for at in _splits(window, min(1.0, WEAK * max_p))}
    return _certain(series, sorted(candidates), max_p)


def _splits(segment: NDArray[np.float64], max_p: float) -> list[int]:
    """Candidates within a window: the best split, and those of both its sides."""
    at = _best(segment)
    if at is None or _p_value(segment[:at], segment[at:]) > max_p:
        return []
    return [*_splits(segment[:at], max_p), at, *(at + each for each in _splits(segment[at:], max_p))]


def _best(segment: NDArray[np.float64]) -> int | None:
    """The split with the largest energy distance between its sides, weighted by their sizes."""
    n = len(segment)
    if n < 2 * LEAST:
        return None
    apart = np.abs(segment[:, None] - segment[None, :])
    # Sums over the top left, and the bottom right, square of every split.
    inner = np.cumsum(np.cumsum(apart, axis=0), axis=1).diagonal()
    total = inner[-1]
    across_all = np.cumsum(apart.sum(axis=1))
    best, found = -math.inf, None
    for at in range(LEAST, n - LEAST + 1):
        within_before = inner[at - 1]
        across = across_all[at - 1] - within_before
        within_after = total - within_before - 2 * across
        m, k = at, n - at
        distance = 2 * across / (m * k) - within_before / (m * (m - 1)) - within_after / (k * (k - 1))
        if (size := m * k / n * distance) > best:
            best, found = size, at
    return found


def _certain(series: NDArray[np.float64], candidates: list[int], max_p: float) -> list[ChangePoint]:
    """Drop the least certain candidate, and look at its neighbours anew, until all that are left are certain."""
    while candidates:
        found = _between(series, candidates)
        worst = max(found, key=lambda each: each.p_value)
        if worst.p_value <= max_p:
            return found
        candidates = [at for at in candidates if at != worst.at]
    return []


def _between(series: NDArray[np.float64], candidates: Sequence[int]) -> list[ChangePoint]:
    edges = [0, *candidates, len(series)]
    found = []
    for begin, at, end in zip(edges, edges[1:], edges[2:], strict=False):
        before, after = series[begin:at], series[at:end]
        found.append(ChangePoint(at, float(before.mean()), float(after.mean()), _p_value(before, after)))
    return found


def _p_value(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """Student's test with pooled variance, corrected for having chosen the split among all of the two segments."""
    from scipy.stats import t as student

    n, m = len(before), len(after)
    freedom = n + m - 2
    if freedom < 1:
        return 1.0
    apart = float(after.mean() - before.mean())
    squares = float(((before - before.mean()) ** 2).sum() + ((after - after.mean()) ** 2).sum())
    if apart == 0:
        return 1.0
    if squares == 0:
        # Without any spread there is nothing to be unsure of.
        return 0.0
    statistic = abs(apart) / math.sqrt(squares / freedom * (1 / n + 1 / m))
    splits = max(1, n + m - 2 * LEAST + 1)
    return min(1.0, splits * 2 * float(student.sf(statistic, freedom)))
