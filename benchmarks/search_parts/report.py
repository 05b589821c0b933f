"""The page of the bench of the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.search_parts.sweep import Swept
from steelyard.records import ComparisonRow
from steelyard.records_trials import TrialRow
from steelyard.reports import numerals
from steelyard.reports.markdown import table


def page(
    summed: Mapping[str, object], swept: Swept, trials: Sequence[TrialRow], row: ComparisonRow | None, *, where: str
) -> str:
    """What both took and found; the grid's figures; both winners side by side."""
    points = list(next(iter(swept.speeds.values())))
    took = table(
        ("", "wall time", "requests under way", "configurations", "best"),
        [
            ("steelyard tune", numerals.seconds(float(str(summed["ours_s"]))),
             numerals.seconds(sum(trial.duration_s for trial in trials)), str(summed["ours_stacks"]),
             _said(summed["ours"])),
            ("vllm bench sweep serve", numerals.seconds(swept.wall_s), numerals.seconds(swept.requests_s),
             str(summed["combinations"]), _said(summed["grid"])),
        ],
        range(1, 4),
    )  # fmt: skip
    grid = table(
        (*(name for name, _ in next(iter(swept.speeds))), *points),
        [
            (*(str(value) for _, value in key), *(numerals.significant(speeds[point]) for point in points))
            for key, speeds in swept.speeds.items()
        ],
        range(len(next(iter(swept.speeds))), len(next(iter(swept.speeds))) + len(points)),
    )
    if row is None:
        pair = "Both found the same configuration."
    else:
        pair = (
            f"Side by side, in interleaved blocks: the search's over the grid's "
            f"{numerals.ratio_within(row.estimate, row.low, row.high)}."
        )
    return "\n".join([f"Measured on {where}.", "", took, "", pair, "", "Means of the grid, output tokens/s:", "", grid])


def _said(config: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in config.items()) if isinstance(config, Mapping) else ""
