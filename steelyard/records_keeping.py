"""Rows about how the warehouse keeps other rows: what retention took away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from steelyard.records_base import RUN, Row, col


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinningRow(Row):
    TABLE = "thinnings"
    KEY = ("run_id",)
    MEANING = (
        "Runs whose request rows retention has thinned. Their trials, which were computed from all of them, stay; a "
        "failed request is never taken away."
    )

    run_id: str = col(RUN)
    thinned_at: datetime = col("When.", "UTC")
    after_days: int = col("Age from which the policy thins.", "days")
    keep: float = col("Share of a trial's good requests the policy keeps, evenly over the trial.", "0..1")
    requests_before: int = col("Request rows before the first thinning.", "requests")
    requests_kept: int = col("Request rows that are left.", "requests")


KEEPING_ROWS: tuple[type[Row], ...] = (ThinningRow,)
