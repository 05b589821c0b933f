"""The largest rate at which a client still tells the truth: doubled until it does not, then halved in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HONEST = 0.05
"""Largest error of the 99th percentile of TTFT, as a fraction of the truth, that is still honest."""
FIRST_RATE, LAST_RATE = 50.0, 1600.0
BISECTIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One run at a rate a second. `error` is that of the TTFT's 99th percentile."""

    rate: float
    error: float | None
    server_late: bool = False
    flagged: bool = False
    problem: str | None = None

    @property
    def honest(self) -> bool:
        """Whether it told the truth of all requests."""
        return self.problem is None and self.error is not None and abs(self.error) <= HONEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Every run made, and the rate found: None if not even the first was honest. `capped` says that no rate that was
    tried, or that the server could serve in time, was too much: the client's own limit lies higher.
    """

    steps: Sequence[Step]
    rate: float | None
    capped: bool


def highest_rate(ask: Callable[[float, int], Step], *, most: int | None = None, tries: int = 3) -> Search:
    """Search with `ask(rate, attempt)`. A rate is honest if most of `tries` runs are: one late wake-up decides nothing.

    `most` limits how many rates are tried.
    """
    steps: list[Step] = []
    tried = 0

    def holds(rate: float) -> bool:
        nonlocal tried
        tried += 1
        needed, good, bad = tries // 2 + 1, 0, 0
        for attempt in range(tries):
            steps.append(ask(rate, attempt))
            good, bad = good + steps[-1].honest, bad + (not steps[-1].honest)
            if needed in (good, bad):
                break
        return good >= needed

    best, rate = None, FIRST_RATE
    while rate <= LAST_RATE and (most is None or tried < most):
        if not holds(rate):
            break
        best, rate = rate, rate * 2
    else:
        return Search(steps=steps, rate=best, capped=True)
    for _ in range(BISECTIONS if best is not None else 0):
        if best is None or (most is not None and tried >= most):
            break
        middle = math.sqrt(best * rate)
        if holds(middle):
            best = middle
        else:
            rate = middle
    capped = any(step.server_late for step in steps if step.rate == rate)
    return Search(steps=steps, rate=best, capped=capped)
