"""The search for the largest rate at which an SLO holds: a pure function of the probes so far.

Because nothing but probes goes in, a killed search goes on where it was, and a stored one can be followed again probe
by probe. The rate is known to one step of the grid; how sure a comparison of two arms is, blocks say and not probes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from steelyard.load.trial import MAX_FAILED_SHARE
from steelyard.records_trials import ProbeRow
from steelyard.stats.proportions import wilson_interval
from steelyard.study_capacity import PARTS, STEERING, CapacitySearch

INVALID = 2
"""Probes at one rate that the client could not vouch for, after which the search is given up."""

Outcome = Literal["holds", "broken", "open"]


@dataclass(frozen=True, slots=True)
class Step:
    """The next probe: at which rate (arrivals per second), and which of that rate's probes it is, from 0."""

    rate: float
    part: int


@dataclass(frozen=True, slots=True)
class Held:
    """What a search found: the largest rate shown to hold, arrivals per second.

    None: not even the lowest held. `top`: the highest did, so the capacity may be larger. `known` is False where the
    client could not measure.
    """

    rate: float | None
    top: bool = False
    known: bool = True


def next_step(asked: CapacitySearch, probes: Sequence[ProbeRow]) -> Step | Held:
    """Where a search of one arm in one block goes on, or what it found. The grid is halved, as if what holds at a rate
    held at every lower one.
    """
    grid = asked.rates
    below, above = -1, len(grid)
    while above - below > 1:
        middle = (below + above) // 2
        here = [probe for probe in probes if probe.rate == grid[middle]]
        outcome = outcome_of(asked, here)
        if outcome == "holds":
            below = middle
        elif outcome == "broken":
            above = middle
        elif sum(not probe.valid for probe in here) >= INVALID:
            return Held(None, known=False)
        else:
            return Step(grid[middle], len(here))
    return Held(grid[below] if below >= 0 else None, top=above == len(grid))


def outcome_of(asked: CapacitySearch, probes: Iterable[ProbeRow]) -> Outcome:
    """What the probes at one rate say together. Only valid ones count; a queue that only grows breaks the SLO later."""
    valid = [probe for probe in probes if probe.valid]
    if any(probe.saturated for probe in valid):
        return "broken"
    found = wilson_interval(sum(each.met for each in valid), sum(each.requests for each in valid), STEERING)
    if found.low is not None and found.low >= asked.share:
        return "holds"
    # Requests that failed once, and not at the next probe, say nothing about the rate.
    hiccup = len(valid) == 1 and valid[0].failed > MAX_FAILED_SHARE * valid[0].requests
    if (found.high is not None and found.high < asked.share and not hiccup) or len(valid) >= PARTS:
        return "broken"
    return "open"


def searches_of(probes: Iterable[ProbeRow]) -> dict[tuple[str, str, int], list[ProbeRow]]:
    """Probes by arm, scope and block, in the order in which they were made."""
    found: dict[tuple[str, str, int], list[ProbeRow]] = {}
    for probe in sorted(probes, key=lambda each: each.number):
        found.setdefault((probe.arm, probe.scope, probe.block), []).append(probe)
    return found
