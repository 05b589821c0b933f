"""Markdown tables of the profile, for Dagster's metadata."""

from __future__ import annotations

from collections.abc import Iterable

from steelyard.levers.score import best_of_each
from steelyard.records_profile import OpportunityRow, ProfileRow, RooflineRow
from steelyard.reports import numerals
from steelyard.reports.markdown import table


def profile_rows_table(rows: Iterable[ProfileRow]) -> str:
    """Batch, KV cache and the cost of tracing, by load point; the reason where there is no trace."""
    return table(
        ("load point", "requests in a step", "of at most", "KV tokens", "of", "preemptions", "tracing costs", "note"),
        [
            (
                row.load_point, numerals.significant(row.sequences, 2), numerals.count(row.max_sequences),
                numerals.whole(row.kv_tokens), numerals.count(row.kv_capacity_tokens),
                numerals.count(row.preemptions), numerals.percent(row.overhead), row.error or "",
            )
            for row in rows
        ],
        range(1, 7),
    )  # fmt: skip


def roofline_table(rows: Iterable[RooflineRow]) -> str:
    """Utilisation beside the ceiling, by load point and phase."""
    return table(
        ("load point", "phase", "MFU", "GFLOP/s", "of", "MBU", "of GB/s"),
        [
            (
                row.load_point, row.phase, numerals.percent(row.mfu), giga(row.operations / row.seconds),
                giga(row.peak_operations_per_s), numerals.percent(row.mbu), giga(row.peak_bytes_per_s),
            )
            for row in rows
        ],
        range(2, 7),
    )  # fmt: skip


def opportunity_table(rows: Iterable[OpportunityRow]) -> str:
    """The best prediction of each lever, ranked."""
    return table(
        ("rank", "lever", "load point", "predicted", "interval", "risk", "why", "evidence"),
        [
            (
                str(row.rank), row.name, row.load_point, numerals.ratio(row.predicted),
                numerals.interval("ratio", row.low, row.high), row.risk, row.mechanism, row.reason or row.evidence,
            )
            for row in best_of_each(list(rows))
        ],
        (0, 3),
    )  # fmt: skip


def giga(value: float | None) -> str | None:
    """A rate in 10^9 a second."""
    return numerals.significant(None if value is None else value / 1e9)
