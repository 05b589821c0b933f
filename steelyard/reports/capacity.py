"""What the searches of each arm found, as every display shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.capacity_comparisons import capacities
from steelyard.load.capacity import Held
from steelyard.records_trials import ProbeRow
from steelyard.reports import numerals
from steelyard.stats.paired import mean_interval
from steelyard.study_capacity import CapacitySearch


@dataclass(frozen=True, slots=True)
class FoundCapacity:
    """One arm and workload: arrivals per second by block (None: the lowest rate did not hold), their geometric mean
    (None if a block has none), the blocks as text, and how many probes were made.
    """

    scope: str
    arm: str
    by_block: dict[int, float | None]
    typical: float | None
    shown: str
    probes: int


def found_capacities(probes: Sequence[ProbeRow], searches: Sequence[CapacitySearch]) -> list[FoundCapacity]:
    """In the order of the searches, and of arms as their probes come."""
    rows = []
    for asked in searches:
        for arm in dict.fromkeys(probe.arm for probe in probes if probe.scope == asked.scope):
            found = dict(sorted(capacities(probes, asked, arm).items()))
            rates = {block: held.rate for block, held in found.items() if held.known}
            rows.append(
                FoundCapacity(
                    scope=asked.scope, arm=arm, by_block=rates,
                    typical=mean_interval([rate or 0.0 for rate in rates.values()], 0.95).value,
                    shown=", ".join(_shown(held) for held in found.values()),
                    probes=sum((probe.arm, probe.scope) == (arm, asked.scope) for probe in probes),
                )
            )  # fmt: skip
    return rows


def _shown(held: Held) -> str:
    if not held.known:
        return "n/a"
    if held.rate is None:
        return "none"
    return f"{'≥ ' if held.top else ''}{numerals.known(numerals.significant(held.rate))}"
