"""What a study asks of the search for capacity: the largest arrival rate at which a workload's SLO holds."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from steelyard.stats.proportions import wilson_interval
from steelyard.study_base import Frozen, Name
from steelyard.study_rules import Misfit, Misfits

STEERING = 0.8
"""Two-sided confidence of the Wilson interval that steers a search. It decides where to go next and no verdict: the
error of a comparison is that of its blocks."""
PARTS = 3
"""Probes at one rate at most, whose requests count together."""
MOST_RATES = 1000
LEAST_REQUESTS = 16


class CapacitySearch(Frozen):
    """The largest Poisson arrival rate at which a share of all requests meets the SLO of a workload.

    Rates lie on one grid for all arms, from `lowest` in steps of `resolution` up to `highest`. The search halves it: at
    each rate probes of `seconds` are sent until a Wilson interval (80 %) lies above or below `share`; what three
    probes do not show to hold does not hold, nor does a rate at which the queue only grows. A queue needs time to
    reach a limit, so a probe overstates the rate that holds for ever by about the SLO's TTFT over 0.9 `seconds`: alike
    for all arms, because a probe is measured in seconds and not in requests.
    """

    workload: Name = Field(description="Name of a workload of the study: its prompts, lengths and SLO.")
    lowest: float = Field(gt=0, description="Lowest rate tried, arrivals per second; the baseline must hold it.")
    highest: float = Field(gt=0, description="Highest rate tried, arrivals per second; the baseline must not hold it.")
    share: float = Field(0.9, gt=0, lt=1, description="Share of requests that must meet the SLO.")
    seconds: float = Field(
        5.0, gt=0, description="Length of a probe, seconds of arrivals; ten times the longest limit of the SLO is good."
    )
    resolution: float = Field(
        1.05,
        ge=1.01,
        le=2,
        description="Step between neighbouring rates. A capacity is known to one step, which widens every interval.",
    )

    @model_validator(mode="after")
    def _searchable(self) -> CapacitySearch:
        if self.highest < self.lowest * self.resolution:
            remedy = f"Write more than {self.lowest * self.resolution:g}."
            raise Misfits(Misfit("there is no rate between lowest and highest.", remedy, ("highest",)))
        if math.log(self.highest / self.lowest) / math.log(self.resolution) > MOST_RATES:
            message = f"more than {MOST_RATES} rates lie between lowest and highest."
            raise Misfits(Misfit(message, "Write a larger resolution.", ("resolution",)))
        most = PARTS * self.requests(self.lowest)
        low = wilson_interval(most, most, STEERING).low
        if low is not None and low < self.share:
            message = f"at the lowest rate {PARTS} probes that all meet the SLO show a share of {low:.3f} at most."
            raise Misfits(Misfit(message, "Probe longer, or ask for a smaller share.", ("seconds",)))
        return self

    def requests(self, rate: float) -> int:
        """Requests of a probe at a rate."""
        return max(LEAST_REQUESTS, math.ceil(rate * self.seconds))

    @property
    def scope(self) -> str:
        """`chat@slo`: the name in tables, reports and gates."""
        return capacity_scope(self.workload)

    @property
    def rates(self) -> tuple[float, ...]:
        """The grid, rising, arrivals per second to four digits."""
        count = int(math.log(self.highest / self.lowest) / math.log(self.resolution) + 1e-9) + 1
        found = [float(f"{self.lowest * self.resolution**step:.4g}") for step in range(count)]
        return tuple(dict.fromkeys(found))


def capacity_scope(workload: str) -> str:
    """Scope of a workload's capacity."""
    return f"{workload}@slo"
