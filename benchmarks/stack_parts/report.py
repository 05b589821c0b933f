"""The page of the bench of the stack."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.stack_parts.study import DEFAULTS, LEGACY, STACK
from steelyard.records import ArmRow, ComparisonRow
from steelyard.records_trials import TrialRow
from steelyard.reports import numerals
from steelyard.reports.markdown import table

ARMS = ("baseline", STACK, DEFAULTS, LEGACY)


def page(
    found: Mapping[str, Mapping[str, ComparisonRow]], trials: Sequence[TrialRow], arms: Sequence[ArmRow],
    summed: Mapping[str, object], *, where: str,
) -> str:  # fmt: skip
    """Ratios by load point, the figures behind them, and what did not serve."""
    points = list(dict.fromkeys(row.load_point for row in sorted(trials, key=lambda row: row.started_at)))
    ratio = table(
        ("load point", *(f"stack over {name.replace('_', ' ')}" for name in found)),
        [(point, *(_cell(rows.get(point)) for rows in found.values())) for point in points],
        range(1, 1 + len(found)),
    )
    figures = table(
        ("load point", "arm", "output tokens/s", "goodput/s", "met SLO", "valid blocks"),
        [_figures(point, arm, trials) for point in points for arm in ARMS],
        range(2, 6),
    )
    failed = [f"- {row.arm} did not serve: {row.error}" for row in arms if row.status != "served"]
    means = ", ".join(f"{value} over {name.split('_vs_')[1].replace('_', ' ')}" for name, value in summed.items()
                      if name.startswith("tokens_per_s_ratio_vs_"))  # fmt: skip
    return "\n".join(
        [f"Measured on {where}. Geometric means over the load points: {means}.", "", ratio, "", figures, *failed]
    )


def _cell(row: ComparisonRow | None) -> str | None:
    return None if row is None else numerals.ratio_within(row.estimate, row.low, row.high)


def _figures(point: str, arm: str, trials: Sequence[TrialRow]) -> tuple[str | None, ...]:
    rows = [row for row in trials if (row.load_point, row.arm) == (point, arm)]
    good = [row for row in rows if row.valid]

    def middle(name: str) -> float | None:
        values = [value for row in good if (value := getattr(row, name)) is not None]
        return statistics.median(values) if values else None

    return (
        point, arm, numerals.significant(middle("output_tokens_per_s")), numerals.significant(middle("goodput_per_s")),
        numerals.percent(middle("slo_share")), f"{len(good)} of {len(rows)}",
    )  # fmt: skip
