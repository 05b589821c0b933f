"""Where a run's wall time went, summed: for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from steelyard.records_time import WallTimeRow
from steelyard.reports import numerals
from steelyard.wall_time import Engines, Step


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums over the rows of one run."""

    rows: Sequence[WallTimeRow]

    def of(self, state: str | None = None, step: str | None = None) -> float:
        """Seconds in a state of the engines, in a step, or in both."""
        return sum(row.wall_s for row in self.rows if state in (None, row.engines) and step in (None, row.step))

    def share(self, state: str) -> str | None:
        """Share of a state in all of it, in words; None of nothing."""
        total = self.of()
        return numerals.percent(self.of(state) / total) if total else None

    @property
    def steps(self) -> list[str]:
        """Steps that took any time, in their order."""
        return [step for step in get_args(Step) if self.of(step=step)]

    @property
    def sittings(self) -> int:
        """How many processes it took."""
        return len({row.began_at for row in self.rows})

    def lines(self) -> list[dict[str, str | None]]:
        """A line for each step: seconds of each state, in words."""
        states = get_args(Engines)
        return [
            {"step": step, **{each: numerals.seconds(self.of(each, step)) for each in states}} for step in self.steps
        ]

    def __str__(self) -> str:
        """All of it in one line."""
        return (
            f"{numerals.seconds(self.of())}: engines answered {self.share('answering')}, "
            f"started or ended {self.share('starting')}, idle {self.share('idle')}"
        )
