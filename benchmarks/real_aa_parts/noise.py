"""What A/A trials say of the noise: does starting an engine again add to it, and do the intervals hold 1?

Every arm is one engine that was started once. If starts differed from each other (memory layout, where threads landed),
an arm would be faster than its twin in every block, and blocks would be no replicates: an interval over them would be
too narrow by what no block of the run can show. So the arms' variance is compared with that of the blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steelyard.comparisons import values_of
from steelyard.records_trials import TrialRow
from steelyard.stats.paired import ratio_interval

METRIC = "output_tokens_per_s"


@dataclass(frozen=True, slots=True)
class Spread:
    """Sums of squares of log speeds at one load point of one run, each with its degrees of freedom."""

    load_point: str
    arms: int
    blocks: int
    between_arms: float
    rest: float

    @property
    def degrees(self) -> tuple[int, int]:
        """Of the arms, and of the rest."""
        return self.arms - 1, (self.arms - 1) * (self.blocks - 1)


def spread_of(load_point: str, trials: Mapping[str, Sequence[TrialRow]]) -> Spread | None:
    """Two-way analysis of variance of log tokens per second, arm by block, over the blocks every arm has.

    None with fewer than two arms or blocks. `trials` are those of one load point, by arm.
    """
    values = {
        arm: {block: value for block, value in values_of(rows, METRIC).items() if value > 0}
        for arm, rows in trials.items()
    }
    if not values:
        return None
    blocks = sorted(set.intersection(*(set(each) for each in values.values())))
    arms = sorted(values)
    if len(arms) < 2 or len(blocks) < 2:
        return None
    logs = [[math.log(values[arm][block]) for block in blocks] for arm in arms]
    of_block = [math.fsum(row[at] for row in logs) / len(arms) for at in range(len(blocks))]
    of_arm = [math.fsum(row) / len(blocks) for row in logs]
    mean = math.fsum(of_arm) / len(arms)
    between = len(blocks) * math.fsum((each - mean) ** 2 for each in of_arm)
    rest = math.fsum(
        (logs[i][j] - of_arm[i] - of_block[j] + mean) ** 2 for i in range(len(arms)) for j in range(len(blocks))
    )
    return Spread(load_point, len(arms), len(blocks), between, rest)


@dataclass(frozen=True, slots=True)
class Components:
    """Standard deviations of log speed from start to start and from block to block, and how sure the first is.

    `p_value` is that of the F test of "all starts are alike"; `restart_sd` is 0 where the arms differ by no more than
    the blocks would make them, and `restart_sd_high` is its upper 97.5 % bound. The bound is None where the arms differ
    by less than chance allows (p above 0.975): then something cancels within an arm, such as the place in a block that
    is reversed in the next, the model of independent blocks does not hold, and it bounds nothing.
    """

    restart_sd: float
    restart_sd_high: float | None
    block_sd: float
    p_value: float


def components(spreads: Sequence[Spread]) -> Components | None:
    """Pooled over load points and runs; None if nothing was measured. Blocks are weighted by their degrees."""
    from scipy.stats import f

    upper, lower = sum(each.degrees[0] for each in spreads), sum(each.degrees[1] for each in spreads)
    if not upper or not lower:
        return None
    between = math.fsum(each.between_arms for each in spreads) / upper
    rest = math.fsum(each.rest for each in spreads) / lower
    if rest == 0:
        return None
    blocks = math.fsum(each.blocks * each.degrees[0] for each in spreads) / upper
    p_value = float(f.sf(between / rest, upper, lower))
    most = math.sqrt(max(0.0, between / float(f.ppf(0.025, upper, lower)) - rest) / blocks)
    return Components(
        restart_sd=math.sqrt(max(0.0, between - rest) / blocks),
        restart_sd_high=most if p_value <= 0.975 else None,
        block_sd=math.sqrt(rest),
        p_value=p_value,
    )


def fixed_interval(
    ours: Sequence[TrialRow], baseline: Sequence[TrialRow], blocks: int, confidence: float
) -> tuple[float, float] | None:
    """The ratio's interval over the first `blocks` blocks, as if no other look were taken; None if one is missing."""
    mine, theirs = values_of(ours, METRIC), values_of(baseline, METRIC)
    if any(block not in mine or block not in theirs for block in range(blocks)):
        return None
    found = ratio_interval([(mine[block], theirs[block]) for block in range(blocks)], confidence)
    return None if found.low is None or found.high is None else (found.low, found.high)
