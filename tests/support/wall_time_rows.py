"""Wall times of a run of ten minutes: seven of answers, two of starts, one of our own."""

from __future__ import annotations

from datetime import datetime

from steelyard.records_time import WallTimeRow

SPENT = {
    ("arms", "starting"): 110.0, ("suites", "answering"): 180.0, ("suites", "idle"): 20.0,
    ("trials", "answering"): 240.0, ("trials", "starting"): 10.0, ("rest", "idle"): 40.0,
}  # fmt: skip


def wall_time_rows(run_id: str, began_at: datetime) -> list[WallTimeRow]:
    return [
        WallTimeRow(run_id=run_id, began_at=began_at, step=step, engines=engines, wall_s=wall_s)
        for (step, engines), wall_s in SPENT.items()
    ]
