"""Intervals that stay valid however often they are looked at, so that a decided arm may stop being measured.

A fixed-size interval keeps its promise for one look. Looked at after every batch until it says what one hoped for, it
errs far more often. Here each side's error is divided over the looks before the first one is taken.

Blocks are few, and their log-ratios have no bounds. So a number of looks is declared, each look gets its share of the
error (`Looks`), and Student's interval is taken at that share.

Documents are many. Early looks are paid for by betting, which may be looked at without end. The last look, when every
declared document has been asked, is a fixed-size interval, and half of the error is kept for it: where arms differ
often that is what decides. Simulated (2,000 studies each; margin 2 points, 1,600 documents, looks every 100, 2.5 % a
side; shares that passed in %, mean documents in brackets; `make bench-error_rates` has the rest):

    pairs that differ, true difference    Tango, one look    betting alone    betting, then Tango
    none, none                            100 (1600)         100 (300)        100 (400)
    1 %, none                             100 (1600)         100 (477)        100 (539)
    2 %, none                             100 (1600)         98 (670)         100 (759)
    5 %, none                             94 (1600)          69 (1109)        90 (1221)
    10 %, none                            71 (1600)          32 (1392)        62 (1450)
    4 %, -2 points: must not pass         2.2 (1600)         0.5 (1589)       0.9 (1594)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.stats.betting import lower_mean
from steelyard.stats.paired import Estimate, check_confidence, ratio_interval
from steelyard.stats.proportions import exact_share, tango_interval
from steelyard.stats.score import score_interval

LAST_SHARE = 0.5
"""Share of each side's error that is kept for the last look."""


@dataclass(frozen=True, slots=True)
class Looks:
    """When the blocks of a study are looked at: after `first` of them, and after each one that follows up to `last`."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 2 <= self.first <= self.last:
            raise ValueError(f"looks go from at least 2 blocks upwards, not from {self.first} to {self.last}")

    def share(self, n: int) -> float:
        """Share of the error that the look after `n` blocks may spend; 0 where no look was declared.

        Half is kept for the last look, the rest is divided equally over the earlier ones. The shares sum to 1, so the
        errors of all looks together stay within what was promised (Bonferroni), whatever the noise and the stopping.
        """
        if not self.first <= n <= self.last:
            return 0.0
        if self.first == self.last:
            return 1.0
        return LAST_SHARE if n == self.last else (1 - LAST_SHARE) / (self.last - self.first)


def ratio_sequence(pairs: Sequence[tuple[float, float]], confidence: float, looks: Looks) -> Estimate:
    """Ratio of the first to the second of each pair, paired by block, at the look that so many blocks are.

    Student's interval on the log-ratios (`ratio_interval`) at the look's share of the error: over all looks together
    each bound errs with probability (1 - `confidence`) / 2 at most, for lognormal block noise. More or fewer blocks
    than were declared give an estimate without bounds.
    """
    check_confidence(confidence)
    share = looks.share(len(pairs))
    if share == 0:
        found = ratio_interval(pairs, confidence)
        return Estimate(found.value, None, None, found.n, f"{found.method}, not a declared look")
    found = ratio_interval(pairs, 1 - (1 - confidence) * share)
    name = f"{found.method}, look {len(pairs)} of {looks.first} to {looks.last}"
    return Estimate(found.value, found.low, found.high, found.n, name)


def mean_sequence(differences: Sequence[float], confidence: float) -> Estimate:
    """Mean of paired differences in [-1, 1] with bounds that hold at all sizes at once, for every distribution.

    Two one-sided bets (`lower_mean`): the bounds are those means which a wealth of 2 / (1 - `confidence`) refutes. So
    "low reaches -margin" is the e-process against "the loss is the margin or more" passing its threshold, and "high
    stays below -margin" the one against the opposite. Independent replicates are asked for: means of clusters where
    documents belong together. The order of values means nothing.
    """
    if any(not -1 <= each <= 1 for each in differences):
        raise ValueError("paired differences of scores in 0..1 lie in -1..1")
    return _betting(differences, confidence, floor=-1)


def paired_sequence(gained: int, lost: int, n: int, confidence: float, *, last: bool) -> Estimate:
    """Difference of two paired proportions; early looks by betting, and at the `last` one Tango's interval too.

    `gained`, `lost` and `n` as in `tango_interval`. Each method has half of the error, at the last look both must be
    right, and the tighter bound of the two counts.
    """
    early = mean_sequence([1.0] * gained + [-1.0] * lost + [0.0] * (n - gained - lost), _half(confidence))
    return _both(early, tango_interval(gained, lost, n, _half(confidence))) if last else early


def cluster_sequence(means: Sequence[float], confidence: float, *, last: bool) -> Estimate:
    """The same for means of clusters: differences in [-1, 1], one a cluster."""
    early = mean_sequence(means, _half(confidence))
    found = _both(early, score_interval(means, _half(confidence))) if last else early
    return Estimate(found.value, found.low, found.high, found.n, f"{found.method}, over {found.n} clusters")


def unit_sequence(values: Sequence[float], confidence: float) -> Estimate:
    """Mean of `values` in [0, 1], such as shares of clusters; like `mean_sequence`, and narrower for knowing that."""
    if any(not 0 <= each <= 1 for each in values):
        raise ValueError("shares lie in 0..1")
    return _betting(values, confidence, floor=0)


def share_sequence(count: int, n: int, confidence: float, *, last: bool) -> Estimate:
    """Share `count` / `n`; early looks by betting, and at the `last` one the exact interval too (`exact_share`)."""
    final = exact_share(count, n, _half(confidence))
    early = unit_sequence([1.0] * count + [0.0] * (n - count), _half(confidence))
    return _both(early, final) if last else early


def _betting(values: Sequence[float], confidence: float, *, floor: int) -> Estimate:
    """Mean of values that lie from `floor` to 1."""
    check_confidence(confidence)
    method, n = "betting, anytime", len(values)
    if n == 0:
        return Estimate(None, None, None, 0, method)
    threshold = 2 / (1 - confidence)
    value = math.fsum(values) / n
    low = lower_mean([each - floor for each in values], threshold) + floor
    high = 1 - lower_mean([1 - each for each in values], threshold)
    # The bounds contain the mean; the last bit of a sum must not say otherwise.
    return Estimate(value, min(low, value), max(high, value), n, method)


def _half(confidence: float) -> float:
    check_confidence(confidence)
    return 1 - (1 - confidence) * LAST_SHARE


def _both(early: Estimate, final: Estimate) -> Estimate:
    if early.low is None or early.high is None or final.low is None or final.high is None:
        return early
    low, high = max(early.low, final.low), min(early.high, final.high)
    return Estimate(final.value, low, high, final.n, f"{early.method}; {final.method} at the last look")
