"""Configurations compared over blocks that not all of them were measured in: the intra-block analysis of incomplete
block designs (Yates 1936; Cochran and Cox 1957, chapter 9).

A search measures few configurations at a time, and drops most of them early. What two of them differ by is then not
only in the blocks they share: if each was measured beside a third, both differences to that one tell it too. Least
squares over the effects of configurations and of blocks uses all of it, and estimates the noise from every residual,
so that two blocks of one configuration are judged with the noise that all others showed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.stats.paired import Estimate, check_confidence, t_quantile

METHOD = "incomplete blocks, log scale"
_SMALL = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One configuration in one block of one stratum (a load point): a positive `value`."""

    config: str
    stratum: str
    block: int
    value: float


@dataclass(frozen=True, slots=True)
class _Fit:
    """Least squares of one stratum: effects and the pseudo-inverse of the normal equations, by column."""

    columns: dict[str, int]
    effects: tuple[float, ...]
    inverse: tuple[tuple[float, ...], ...]
    space: tuple[tuple[float, ...], ...]
    variance: float | None
    free: int

    def contrast(self, one: str, other: str) -> tuple[float, float | None] | None:
        """Log ratio and its variance (None without residuals); None if the two are not connected by blocks."""
        if one not in self.columns or other not in self.columns:
            return None
        i, j = self.columns[one], self.columns[other]
        # A contrast that the blocks determine is its own projection onto what they span.
        if any(abs(row[i] - row[j] - ((place == i) - (place == j))) > 1e-6 for place, row in enumerate(self.space)):
            return None
        spread = self.inverse[i][i] + self.inverse[j][j] - 2 * self.inverse[i][j]
        return self.effects[i] - self.effects[j], None if self.variance is None else self.variance * max(spread, 0.0)


class Comparing:
    """Ratios of configurations, over all strata with equal weight; `strata` names those that must be there, by default
    those that were observed.
    """

    def __init__(self, observations: Sequence[Observation], strata: Sequence[str] | None = None) -> None:
        if strata is None:
            strata = list(dict.fromkeys(each.stratum for each in observations))
        self._fits = [_fit([each for each in observations if each.stratum == name]) for name in strata]

    def ratio(self, one: str, other: str, confidence: float) -> Estimate:
        """`one` over `other`: geometric mean over the strata of their ratios, with Student's interval.

        All None if a stratum does not connect the two; without residuals (every configuration once, or one block) the
        bounds are None. Degrees of freedom are Satterthwaite's; `n` counts strata.
        """
        check_confidence(confidence)
        found = [fit.contrast(one, other) for fit in self._fits]
        known = [each for each in found if each is not None]
        count = len(self._fits)
        if not known or len(known) < count:
            return Estimate(None, None, None, count, METHOD)
        mean = math.fsum(value for value, _ in known) / count
        parts = [variance / count**2 for _, variance in known if variance is not None]
        if one == other or len(parts) < count:
            same = 1.0 if one == other else None
            return Estimate(math.exp(mean), same, same, count, METHOD)
        total = math.fsum(parts)
        shares = math.fsum(part**2 / fit.free for part, fit in zip(parts, self._fits, strict=True))
        degrees = max(1, math.floor(total**2 / shares + _SMALL)) if shares > 0 else self._fits[0].free
        half = t_quantile(confidence, degrees) * math.sqrt(total)
        return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half), count, METHOD)


def _fit(observations: Sequence[Observation]) -> _Fit:
    """ValueError for a value that is not positive."""
    import numpy as np

    if any(each.value <= 0 or not math.isfinite(each.value) for each in observations):
        raise ValueError("an observation must be positive")
    if not observations:
        return _Fit({}, (), (), (), None, 0)
    configs = list(dict.fromkeys(each.config for each in observations))
    blocks = list(dict.fromkeys(each.block for each in observations))
    design = np.zeros((len(observations), len(configs) + len(blocks)))
    for row, each in enumerate(observations):
        design[row, configs.index(each.config)] = 1.0
        design[row, len(configs) + blocks.index(each.block)] = 1.0
    values = np.log([each.value for each in observations])
    inverse = np.linalg.pinv(design.T @ design, hermitian=True)
    effects = inverse @ design.T @ values
    free = len(observations) - int(np.linalg.matrix_rank(design))
    rest = values - design @ effects
    return _Fit(
        {name: place for place, name in enumerate(configs)}, tuple(effects.tolist()),
        tuple(map(tuple, inverse.tolist())), tuple(map(tuple, (inverse @ (design.T @ design)).tolist())),
        float(rest @ rest) / free if free > 0 else None, free,
    )  # fmt: skip
