"""Simulated quality gates: documents on which two arms differ, alone or in clusters, judged by us and by other rules.

All studies of a cell are judged at once with arrays; `Checked` holds a sample of them against the production functions,
so that what is simulated is what decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincinv, ndtri, stdtrit

from steelyard.stats.betting import BETS
from steelyard.stats.power import documents_needed
from steelyard.stats.proportions import score_statistics
from steelyard.stats.score import score
from steelyard.stats.sequential import LAST_SHARE, cluster_sequence, paired_sequence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

CONFIDENCE = 0.95
POWER = 0.9
BATCH = 100
CHECKED = 20
"""Studies of each cell that are judged by the production functions, too."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of study: the margin, how often arms differ, how documents belong together.

    `correlation` is the share of clusters whose documents all do the same; the others' are independent.
    """

    margin: float
    discordance: float
    cluster: int = 1
    correlation: float = 0.0

    @property
    def name(self) -> str:
        clustered = f", clusters of {self.cluster}, {self.correlation:.0%} of them alike" if self.cluster > 1 else ""
        return f"margin {100 * self.margin:g} points, {100 * self.discordance:g} % differ{clustered}"

    @property
    def documents(self) -> int:
        """As many as `steelyard plan` asks for; of clusters as many as documents would be needed."""
        needed = documents_needed(self.discordance, self.margin, CONFIDENCE, POWER)
        if needed is None:
            raise ValueError(f"{self.name}: no number of documents suffices")
        return math.ceil(needed / BATCH) * BATCH * self.cluster


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of studies, and documents asked on average. `covered`: intervals that held the truth when one stopped."""

    passed: float
    failed: float
    documents: float
    covered: float


CELLS = (
    *(Cell(margin, discordance) for margin in (0.01, 0.02) for discordance in (0.005, 0.01, 0.02, 0.05)),
    Cell(0.02, 0.1),
    *(Cell(0.02, 0.02, 4, correlation) for correlation in (0.0, 0.5, 1.0)),
    Cell(0.02, 0.05, 2, 1.0),
)


def draw(cell: Cell, difference: float, studies: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """Differences of the arms: studies x clusters x documents of a cluster, each -1, 0 or 1."""
    discordance = max(cell.discordance, abs(difference))
    lost, gained = (discordance - difference) / 2, (discordance + difference) / 2
    shape = (studies, cell.documents // cell.cluster, cell.cluster)

    def values(size: tuple[int, ...]) -> NDArray[np.int8]:
        uniform = rng.random(size, dtype=np.float32)
        return (uniform < gained).astype(np.int8) - (uniform > 1 - lost).astype(np.int8)

    each = values(shape)
    if cell.cluster > 1 and cell.correlation > 0:
        alike = rng.random(shape[:2]) < cell.correlation
        each = np.where(alike[:, :, None], values((*shape[:2], 1)), each)
    return each


def wealth(means: Floats, looks: list[int], mean: float) -> Floats:
    """Log-wealth against "the mean is at most `mean`" after so many clusters: studies x looks.

    `means` are those of clusters, studies x clusters. Few values are counted, for that is much faster.
    """
    known = np.unique(means)
    ends = [look - 1 for look in looks]
    counts = [(value, (means == value).cumsum(axis=1, dtype=np.int32)[:, ends]) for value in known]
    found: Floats | None = None
    for bet in BETS:
        logs = sum(np.log1p(bet * ((1 + value) / (1 + mean) - 1)) * count for value, count in counts)
        found = np.asarray(logs) if found is None else np.logaddexp(found, logs)
    assert found is not None
    return found - math.log(len(BETS))


def ours(cell: Cell, each: NDArray[np.int8], difference: float) -> tuple[Rates, Flags]:
    """Steelyard's gate, looks every `BATCH` clusters until it passes or fails; and whether the last look would pass."""
    means = each.mean(axis=2, dtype=np.float64)
    looks = list(range(BATCH, means.shape[1] + 1, BATCH))
    error = (1 - CONFIDENCE) / 2 * LAST_SHARE
    threshold, critical = -math.log(error), float(ndtri(1 - error))
    up = wealth(means, looks, -cell.margin) >= threshold
    down = wealth(-means, looks, cell.margin) >= threshold
    low, high = wealth(means, looks, difference) < threshold, wealth(-means, looks, -difference) < threshold
    up[:, -1] |= scores(means, -cell.margin) >= critical
    down[:, -1] |= scores(-means, cell.margin) >= critical
    low[:, -1] &= scores(means, difference) < critical
    high[:, -1] &= scores(-means, -difference) < critical
    stop = up | down
    stopped = np.where(stop.any(axis=1), stop.argmax(axis=1), len(looks) - 1)
    rows = np.arange(len(stopped))
    passed = up[rows, stopped]
    found = Rates(
        passed=float(passed.mean()),
        failed=float((down[rows, stopped] & ~passed).mean()),
        documents=float(np.asarray(looks)[stopped].mean() * cell.cluster),
        covered=float((low & high)[rows, stopped].mean()),
    )
    return found, up[:, -1]


def scores(means: Floats, mean: float) -> Floats:
    """The score statistic of every study."""
    found = []
    for row in means:
        seen, counts = np.unique(row, return_counts=True)
        found.append(score(seen, counts, mean))
    return np.array(found)


def disagreements(cell: Cell, each: NDArray[np.int8], passed: Flags) -> int:
    """Simulated decisions at the last look that the production functions do not make."""
    wrong = 0
    for documents, ours in zip(each[:CHECKED], passed, strict=False):
        if cell.cluster == 1:
            gained, lost = int((documents == 1).sum()), int((documents == -1).sum())
            found = paired_sequence(gained, lost, documents.size, CONFIDENCE, last=True)
        else:
            found = cluster_sequence(list(documents.mean(axis=1)), CONFIDENCE, last=True)
        assert found.low is not None
        wrong += (found.low >= -cell.margin) != bool(ours)
    return wrong


def others(cell: Cell, each: NDArray[np.int8], difference: float) -> dict[str, Rates]:
    """What other rules make of the same documents. All take documents as independent, and ask all of them.

    `t interval`: as gates of evaluation tools do it, a paired t-interval against the margin. `point threshold`: the
    score did not fall by more than the margin, as MLPerf's closed division asks of a point estimate. `Tango`: right for
    one look. `Tango at every look`: the same, looked at until it says yes.
    """
    flat = each.reshape(len(each), -1)
    n = flat.shape[1]
    mean = flat.mean(axis=1, dtype=np.float64)
    error = np.sqrt(np.maximum((flat != 0).mean(axis=1) - mean**2, 0.0) / (n - 1))
    half: Floats = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * error
    critical = float(ndtri(0.5 + CONFIDENCE / 2))
    ends = np.arange(BATCH * cell.cluster, n + 1, BATCH * cell.cluster)
    gained, lost = ((flat == sign).cumsum(axis=1, dtype=np.int32)[:, ends - 1] for sign in (1, -1))
    tango = score_statistics(gained, lost, ends, -cell.margin) >= critical
    truth = np.abs(score_statistics(gained[:, -1], lost[:, -1], n, difference)) < critical
    first = np.where(tango.any(axis=1), tango.argmax(axis=1), len(ends) - 1)

    def rates(passed: Flags, covered: Flags | None, documents: float = n) -> Rates:
        held = math.nan if covered is None else float(covered.mean())
        return Rates(float(passed.mean()), math.nan, documents, held)

    return {
        "t interval": rates(_flags(mean - half >= -cell.margin), _flags(np.abs(mean - difference) <= half)),
        "point threshold": rates(_flags(mean >= -cell.margin), None),
        "Tango": rates(_flags(tango[:, -1]), _flags(truth)),
        "Tango at every look": rates(_flags(tango.any(axis=1)), None, float(ends[first].mean())),
    }


@dataclass(frozen=True, slots=True)
class FlipCell:
    """A gate on the share of answers that went from safe to unsafe: `bound` at most may be true, `share` is."""

    bound: float
    share: float
    documents: int

    @property
    def name(self) -> str:
        return (
            f"{100 * self.share:g} % of safe answers lost, {100 * self.bound:g} % allowed, {self.documents:,} documents"
        )


FLIP_CELLS = (
    FlipCell(0.01, 0.01, 1600), FlipCell(0.02, 0.02, 800), FlipCell(0.01, 0.001, 1600), FlipCell(0.02, 0.004, 800),
)  # fmt: skip
"""Harm at the bound, and a little harm where the bound allows much more."""


def flips(cell: FlipCell, studies: int, rng: np.random.Generator) -> Rates:
    """Steelyard's gate on flips: bets at every look, and the exact interval at the last one."""
    hits = rng.random((studies, cell.documents)) < cell.share
    looks = list(range(BATCH, cell.documents + 1, BATCH))
    error = (1 - CONFIDENCE) / 2 * LAST_SHARE
    # Bets on "no flip": their mean is 1 - share, and values are never negative.
    safe = -hits.astype(np.float64)
    up = wealth(safe, looks, -cell.bound) >= -math.log(error)
    count = hits.sum(axis=1)
    up[:, -1] |= exact_high(count, cell.documents, error) <= cell.bound
    held = wealth(safe, looks, -cell.share) < -math.log(error)
    held[:, -1] &= exact_high(count, cell.documents, error) >= cell.share
    first = np.where(up.any(axis=1), up.argmax(axis=1), len(looks) - 1)
    rows = np.arange(studies)
    return Rates(
        float(up.any(axis=1).mean()), math.nan, float(np.asarray(looks)[first].mean()), float(held[rows, first].mean())
    )


def exact_high(count: NDArray[np.int64], n: int, error: float) -> Floats:
    """One-sided upper bound of a share (Clopper-Pearson)."""
    return np.where(count == n, 1.0, betaincinv(count + 1.0, np.maximum(n - count, 1), 1 - error))


def _flags(values: object) -> Flags:
    return np.asarray(values, dtype=bool)
