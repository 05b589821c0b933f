"""Simulated speed gates: log-ratios of blocks with noise of several kinds, judged by us and by other rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.error_rates_parts.quality import CHECKED, CONFIDENCE, POWER, Rates
from steelyard.stats.paired import t_quantile
from steelyard.stats.power import blocks_needed
from steelyard.stats.sequential import Looks, ratio_sequence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FIRST = 3
BOUND = 1.10
"""Ratio that must be proven."""
RUNS = 3
"""Point runs of an arm, as rivals make them one after the other."""
SESSION_SD = 0.05
"""Standard deviation of the log speed of a machine from one session to the next: what interleaving cancels."""


@dataclass(frozen=True, slots=True)
class SpeedCell:
    """One kind of study: the noise of a block's log-ratio, its shape, and the gain that was declared."""

    sd: float
    shape: str
    gain: float

    @property
    def name(self) -> str:
        return f"block noise {100 * self.sd:g} %, {self.shape}, gain {self.gain:g}"

    @property
    def blocks(self) -> int:
        """As many as `steelyard plan` asks for."""
        needed = blocks_needed(self.gain, BOUND, self.sd, CONFIDENCE, POWER, first=FIRST)
        if needed is None:
            raise ValueError(f"{self.name}: no number of blocks suffices")
        return needed


SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "heavy tails": lambda rng, size: rng.standard_t(4, size=size) / math.sqrt(2.0),
    "wild blocks": lambda rng, size: (
        rng.normal(size=size) * np.where(rng.random(size) < 0.1, 4.0, 1.0) / math.sqrt(0.9 + 0.1 * 16)
    ),
}
"""Noise of standard deviation 1: also Student's t with 4 degrees, and one block of ten at four times the others'."""
CELLS = tuple(SpeedCell(sd, shape, gain) for sd, gain in ((0.03, 1.2), (0.08, 1.3), (0.15, 1.5)) for shape in SHAPES)


def draw(cell: SpeedCell, ratio: float, studies: int, rng: np.random.Generator) -> Floats:
    """Log-ratios: studies x blocks."""
    return math.log(ratio) + cell.sd * SHAPES[cell.shape](rng, (studies, cell.blocks))


def ours(cell: SpeedCell, logs: Floats, ratio: float) -> Rates:
    """Steelyard's gate: Student's interval at each look's share of the error, until it passes or fails."""
    looks = Looks(FIRST, cell.blocks)
    counts = np.arange(FIRST, cell.blocks + 1)
    means = logs.cumsum(axis=1)[:, FIRST - 1 :] / counts
    squares = (logs**2).cumsum(axis=1)[:, FIRST - 1 :]
    errors = np.sqrt(np.maximum(squares - counts * means**2, 0.0) / (counts - 1) / counts)
    quantiles = np.array([t_quantile(1 - (1 - CONFIDENCE) * looks.share(int(n)), int(n) - 1) for n in counts])
    low, high = means - quantiles * errors, means + quantiles * errors
    up, down = low >= math.log(BOUND), high < math.log(BOUND)
    stop = up | down
    stopped = np.where(stop.any(axis=1), stop.argmax(axis=1), len(counts) - 1)
    rows = np.arange(len(stopped))
    truth = math.log(ratio)
    covered = (low[rows, stopped] <= truth) & (truth <= high[rows, stopped])
    return Rates(
        float(up[rows, stopped].mean()), float(down[rows, stopped].mean()), float(counts[stopped].mean()),
        float(covered.mean()),
    )  # fmt: skip


def disagreements(cell: SpeedCell, logs: Floats) -> int:
    """Decisions at the last look that the production function does not make."""
    looks = Looks(FIRST, cell.blocks)
    wrong = 0
    for row in logs[:CHECKED]:
        n = len(row)
        half = t_quantile(1 - (1 - CONFIDENCE) * looks.share(n), n - 1) * float(row.std(ddof=1)) / math.sqrt(n)
        found = ratio_sequence([(math.exp(each), 1.0) for each in row], CONFIDENCE, looks)
        wrong += (found.low >= BOUND) != (float(row.mean()) - half >= math.log(BOUND))  # type: ignore[operator]
    return wrong


def others(cell: SpeedCell, ratio: float, studies: int, rng: np.random.Generator) -> dict[str, Rates]:
    """Three runs of each arm one after the other, each arm in a session of its own, as restart-and-repeat does it.

    `Welch t on runs`: the interval of the difference of mean logarithms clears the bound. `mean of runs`: the point
    estimate does.
    """
    shape = SHAPES[cell.shape]
    noise = cell.sd / math.sqrt(2.0)
    sides = [
        centre + SESSION_SD * rng.normal(size=(studies, 1)) + noise * shape(rng, (studies, RUNS))
        for centre in (0.0, math.log(ratio))
    ]
    difference = sides[1].mean(axis=1) - sides[0].mean(axis=1)
    parts = [side.var(axis=1, ddof=1) / RUNS for side in sides]
    error = np.sqrt(parts[0] + parts[1])
    degrees = (parts[0] + parts[1]) ** 2 / ((parts[0] ** 2 + parts[1] ** 2) / (RUNS - 1))
    from scipy.special import stdtrit

    half = stdtrit(degrees, 0.5 + CONFIDENCE / 2) * error
    truth = math.log(ratio)
    return {
        "Welch t on runs": Rates(
            float((difference - half >= math.log(BOUND)).mean()), math.nan, RUNS,
            float((np.abs(difference - truth) <= half).mean()),
        ),
        "mean of runs": Rates(float((difference >= math.log(BOUND)).mean()), math.nan, RUNS, math.nan),
    }  # fmt: skip
