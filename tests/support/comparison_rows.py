"""Comparisons of output tokens/s with a tenth around the estimate."""

from __future__ import annotations

from steelyard.records import ComparisonRow


def speed_comparison(
    arm: str, point: str, value: float | None, *, run_id: str = "r", metric: str = "output_tokens_per_s",
    spread: float = 0.1,
) -> ComparisonRow:  # fmt: skip
    """An arm over the baseline at a load point: `value`, and as much as `spread` of it to either side."""
    return ComparisonRow(
        run_id=run_id, arm=arm, category="speed", metric=metric, scope=point, kind="ratio", baseline_value=1.0,
        candidate_value=value, estimate=value, low=value and value * (1 - spread), high=value and value * (1 + spread),
        confidence=0.95, n=3, n_missing=0, gained=None, lost=None, method="t",
    )  # fmt: skip
