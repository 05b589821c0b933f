"""From stored probes to comparisons of capacity at the SLO: each arm against the baseline, paired by block.

The search knows a capacity to one step of its grid only, so that identical arms often give the very same rate. Every
bound is therefore moved outwards by one step: noise of less than a step must not prove anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from steelyard.comparisons import MAX_APART_S
from steelyard.load.capacity import Held, next_step, searches_of
from steelyard.records import ComparisonRow
from steelyard.records_trials import ProbeRow
from steelyard.stats.paired import Confidence, Estimate, confidence_of, mean_interval, ratio_interval
from steelyard.stats.sequential import Looks, ratio_sequence
from steelyard.study_capacity import CapacitySearch

METRIC = "capacity_per_s"
BASELINE_ABOVE = "the baseline held the highest rate: raise `highest`"
BASELINE_BELOW = "the baseline did not hold the lowest rate: lower `lowest`"
ARM_BELOW = "the SLO did not hold even at the lowest rate"
Found = Mapping[int, tuple[Held, datetime, datetime]]
"""What the searches of an arm found, and when the first and the last probe of each began, by block."""


def capacities(probes: Sequence[ProbeRow], asked: CapacitySearch, arm: str) -> dict[int, Held]:
    """What each search of an arm found, by block. A search that did not come to its end is absent."""
    return {block: held for block, (held, _, _) in _found(probes, asked, arm).items()}


def _found(probes: Sequence[ProbeRow], asked: CapacitySearch, arm: str) -> Found:
    own = [probe for probe in probes if (probe.arm, probe.scope) == (arm, asked.scope)]
    found = {}
    for (_, _, block), mine in searches_of(own).items():
        held = next_step(asked, mine)
        if isinstance(held, Held):
            found[block] = (held, mine[0].started_at, mine[-1].started_at)
    return found


def compare_capacity(
    run_id: str,
    probes: Sequence[ProbeRow],
    searches: Sequence[CapacitySearch],
    *,
    arms: Sequence[str],
    baseline: str = "baseline",
    confidence: Confidence,
    looks: Looks | None = None,
) -> list[ComparisonRow]:
    """Ratio arm / baseline of the capacities of every search, paired by block; arrivals per second.

    An arm that held the highest rate counts as holding just that, and then nothing bounds the ratio above. One that did
    not hold the lowest makes it unknown, as does a baseline outside the grid: leaving such blocks out would choose
    them by their outcome. `n_missing` are blocks that either side began and that are no pair: the client could not
    vouch for one, it was cut off, or both together took longer than two trials may be apart. With `looks` the interval
    is that of the look which so many blocks are.
    """
    mine = [probe for probe in probes if probe.run_id == run_id]
    sure = confidence_of(confidence, METRIC)
    rows: list[ComparisonRow] = []
    for asked in searches:
        of = {arm: _found(mine, asked, arm) for arm in {*arms, baseline}}
        begun = {arm: {probe.block for probe in mine if (probe.arm, probe.scope) == (arm, asked.scope)} for arm in of}
        for arm in arms:
            blocks = begun[arm] | begun[baseline]
            if arm == baseline or not blocks:
                continue
            pairs, trouble = _pairs(of[arm], of[baseline])
            clipped = any(held.top for held, _, _ in of[arm].values())
            estimate = _estimate(pairs, trouble, sure, looks, asked.resolution, clipped=clipped)
            rows.append(
                ComparisonRow(
                    run_id=run_id, arm=arm, category="capacity", metric=METRIC, scope=asked.scope, kind="ratio",
                    baseline_value=mean_interval([theirs for _, theirs in pairs], sure).value,
                    candidate_value=mean_interval([ours for ours, _ in pairs], sure).value,
                    estimate=estimate.value, low=estimate.low, high=estimate.high, confidence=sure, n=len(pairs),
                    n_missing=len(blocks) - len(pairs), gained=None, lost=None, method=estimate.method,
                )
            )  # fmt: skip
    return rows


def _pairs(ours: Found, theirs: Found) -> tuple[list[tuple[float, float]], str | None]:
    """Capacities of arm and baseline by block, and why nothing may be concluded from them, if so."""
    pairs: list[tuple[float, float]] = []
    trouble: str | None = None
    for block in sorted(ours.keys() & theirs.keys()):
        (mine, *times), (reference, *others) = ours[block], theirs[block]
        apart_s = (max(*times, *others) - min(*times, *others)).total_seconds()
        if not (mine.known and reference.known) or apart_s > MAX_APART_S:
            continue
        if reference.top or reference.rate is None:
            trouble = BASELINE_ABOVE if reference.top else BASELINE_BELOW
        elif mine.rate is None:
            trouble = trouble or ARM_BELOW
        pairs.append((mine.rate or 0.0, reference.rate or 0.0))
    return pairs, trouble


def _estimate(
    pairs: Sequence[tuple[float, float]],
    trouble: str | None,
    confidence: float,
    looks: Looks | None,
    step: float,
    *,
    clipped: bool,
) -> Estimate:
    if trouble is not None:
        return Estimate(None, None, None, len(pairs), trouble)
    found = ratio_interval(pairs, confidence) if looks is None else ratio_sequence(pairs, confidence, looks)
    low = None if found.low is None else found.low / step
    high = None if found.high is None or clipped else found.high * step
    name = f"{found.method}, widened by one step ({step:g})"
    return Estimate(found.value, low, high, found.n, f"{name}, the highest rate held" if clipped else name)
