"""The page of the warehouse bench."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.warehouse import Size


def p95(took: Sequence[float]) -> float:
    """The 95th percentile by rank, upwards: of twenty rounds or fewer the longest."""
    return sorted(took)[min(len(took) - 1, int(0.95 * len(took)))]


def page(sizes: Sequence[Size], cores: int) -> str:
    """Two tables: what grows with the nights, and every documented view at the largest size."""
    last = sizes[-1]
    rounds = len(next(iter(last.views.values())))
    lines = [
        f"{cores} cores. {last.requests:,} requests over {last.nights:,} nights.",
        "",
        "| nights | requests | rows written | requests among them | published, one night new | published anew "
        "| slowest view | live | Parquet "
        "| snapshot | peak memory |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size in sizes:
        anew = f"{size.publish_all_s:.0f} s" if size.publish_all_s is not None else "n/a"
        lines.append(
            f"| {size.nights:,} | {size.requests / 1e6:,.0f} M | {size.rows_per_s:,.0f}/s "
            f"| {size.requests_per_s:,.0f}/s "
            f"| {size.publish_s:.1f} s | {anew} | {size.slowest[1]:.2f} s ({size.slowest[0]}) "
            f"| {_size(size.live_bytes)} | {_size(size.parquet_bytes)} | {_size(size.snapshot_bytes)} "
            f"| {_size(size.peak_bytes)} |"
        )
    lines += [
        "",
        f"Every documented view at {last.nights:,} nights: its example query, asked {rounds} times, each by a new "
        "connection; beside it the same question put to the same Parquet without views.",
        "",
        "| view | median | largest of 95 % | bare DuckDB, median | ratio |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for view, took in sorted(last.views.items()):
        high = p95(took)
        bare = f"{statistics.median(last.bare[view]) * 1e3:.0f} ms" if view in last.bare else ""
        ratio = f"{last.ratios[view]:.2f}" if view in last.ratios else ""
        lines.append(f"| {view} | {statistics.median(took) * 1e3:.0f} ms | {high * 1e3:.0f} ms | {bare} | {ratio} |")
    return "\n".join(lines)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
