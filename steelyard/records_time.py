"""Rows of where a run's wall time went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from steelyard.records_base import RUN, Row, col


@dataclass(frozen=True, slots=True, kw_only=True)
class WallTimeRow(Row):
    TABLE = "wall_times"
    KEY = ("run_id", "began_at", "step", "engines")
    MEANING = (
        "Where the wall time of a run went: every second of each of its processes in one step and one state of the "
        "engines. The snapshot published at its end knows what was spent up to then, a later one all. What a killed "
        "process spent since its last finished step is in none."
    )

    run_id: str = col(RUN)
    began_at: datetime = col("When the process began that spent it: one for each time the run was resumed.", "UTC")
    step: str = col("arms, profile, screen, suites, trials, capacity, search; rest is judging and all between.")
    engines: str = col("answering: requests were under way; starting: engines came up or ended; idle: nobody worked.")
    wall_s: float = col("Wall time.", "s")
