"""The warehouse after years: a hundred million requests over a thousand nights, on this machine.

Nights in the shape of a real one are written into a live warehouse as a restore writes them, published, and every
documented view is asked by a process of its own. Rows are made beforehand; only writing them is timed, checkpoint
included. What must hold: 500,000 rows a second, a publish in 30 s, each view in 1 s (95 of 100 times), 4 GiB of memory.

The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.command import finish
from benchmarks.pages import DOCS, renew
from benchmarks.warehouse_parts.nights import Nights
from benchmarks.warehouse_parts.report import p95, page
from steelyard.home import home
from steelyard.records_trials import RequestRow
from warehouse.example import EXAMPLE
from warehouse.parquet import PARQUET
from warehouse.publish import publish
from warehouse.store import Store

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What was found at one number of nights. Seconds and bytes."""

    nights: int
    requests: int
    rows_per_s: float
    requests_per_s: float
    publish_s: float
    publish_all_s: float | None
    views: dict[str, list[float]]
    bare: dict[str, list[float]]
    ratios: dict[str, float]
    live_bytes: int
    parquet_bytes: int
    snapshot_bytes: int
    peak_bytes: int

    @property
    def slowest(self) -> tuple[str, float]:
        """The view whose 95th percentile is the largest, and that."""
        return max(((view, p95(took)) for view, took in self.views.items()), key=lambda each: each[1])


def measured(options: argparse.Namespace, folder: Path) -> list[Size]:
    """Write night after night; look at each of the sizes asked for."""
    nights, sizes, number = iter(Nights(EXAMPLE / PARQUET, options.requests, options.template)), list[Size](), 0
    with Store.open(folder / "warehouse.duckdb") as store:
        for size in sorted(options.sizes):
            rows = requests = 0
            spent = 0.0
            with store.loading():
                while number < size - 1:
                    batch = dict(itertools.islice(nights, min(options.batch, size - 1 - number)))
                    began = time.perf_counter()
                    rows += store.load(batch)
                    spent += time.perf_counter() - began
                    requests += sum(tables[RequestRow].num_rows for tables in batch.values())
                    number += len(batch)
                    # Not kept while the next ones are made: the memory told is to be the warehouse's.
                    del batch
                began = time.perf_counter()
            spent += time.perf_counter() - began
            # What a nightly does: all nights but this one are published.
            publish(store, folder / "published")
            store.load(dict([next(nights)]))
            number += 1
            sizes.append(_size(store, folder, number, (rows / spent, requests / spent), options))
            log.info("%s", _told(sizes[-1]))
    return sizes


def _size(store: Store, folder: Path, number: int, rates: tuple[float, float], options: argparse.Namespace) -> Size:
    began = time.perf_counter()
    published = publish(store, folder / "published")
    publish_s = time.perf_counter() - began
    publish_all_s = None
    if options.publish_all:
        began = time.perf_counter()
        publish(store, folder / "anew")
        publish_all_s = time.perf_counter() - began
        shutil.rmtree(folder / "anew")
    asked = subprocess.run(
        [sys.executable, "-m", "benchmarks.warehouse_parts.ask", published / "steelyard.duckdb", str(options.rounds)],
        check=True, stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    told = json.loads(asked.stdout.splitlines()[-1])
    requests = int(store.scalar("SELECT count(*) FROM requests"))
    return Size(
        nights=number, requests=requests, rows_per_s=rates[0], requests_per_s=rates[1], publish_s=publish_s,
        publish_all_s=publish_all_s,
        views=told["views"], bare=told["bare"], ratios=told["ratios"], live_bytes=_bytes(folder / "warehouse.duckdb"),
        parquet_bytes=sum(_bytes(path) for path in (published / PARQUET).resolve().rglob("*.parquet")),
        snapshot_bytes=_bytes(published / "steelyard.duckdb"),
        peak_bytes=max(told["peak_bytes"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024),
    )  # fmt: skip


def _bytes(path: Path) -> int:
    return path.stat().st_size


def _told(size: Size) -> str:
    view, slowest = size.slowest
    return (
        f"{size.nights} nights, {size.requests / 1e6:.1f} M requests: {size.rows_per_s:,.0f} rows/s, published in "
        f"{size.publish_s:.1f} s, slowest view {view} {slowest:.2f} s, peak {size.peak_bytes / 2**30:.1f} GiB"
    )


def run(options: argparse.Namespace) -> dict[str, object]:
    """All sizes; what the last line says is about the largest."""
    folder = home() / "bench-warehouse"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        sizes = measured(options, folder)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    last = sizes[-1]
    if last.nights >= 1000 or options.page:
        renew(options.page or DOCS / "warehouse.md", page(sizes, os.cpu_count() or 0))
    return {
        "bench": "warehouse",
        "nights": last.nights,
        "requests": last.requests,
        "ingest_rows_per_s": round(last.rows_per_s),
        "ingest_requests_per_s": round(last.requests_per_s),
        "publish_s": round(last.publish_s, 1),
        "views_p95_s": round(last.slowest[1], 3),
        "slowest_view": last.slowest[0],
        "peak_gib": round(last.peak_bytes / 2**30, 2),
        "bare_duckdb_ratio": round(statistics.median(last.ratios.values()), 2),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 for unusable input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warehouse", description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000], help="nights to look at")
    parser.add_argument("--requests", type=int, default=100_000, help="requests a night")
    parser.add_argument("--batch", type=int, default=10, help="nights loaded in one transaction")
    parser.add_argument("--rounds", type=int, default=20, help="times each view is asked")
    parser.add_argument("--template", default=None, help="real run whose shape the nights have; default: the example's")
    parser.add_argument("--publish-all", action="store_true", help="also publish everything anew at each size")
    parser.add_argument("--keep", action="store_true", help="leave the warehouse where it was made")
    parser.add_argument("--page", type=Path, help="page to renew; default: the documentation's, from 1,000 nights on")
    options = parser.parse_args(arguments)
    return finish(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
