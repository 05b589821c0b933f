"""What the bench says at its end: the last line, the results file, the page and its picture."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.client_truth_parts import plot
from benchmarks.client_truth_parts.cell import ITL_S, KEYS, TTFT_S, Result
from benchmarks.client_truth_parts.search import HONEST, Search
from benchmarks.pages import renew

PAGE = "client-truth.md"
OURS = "steelyard"
TIE = 0.002
"""Errors that differ by less than this fraction of the truth are alike."""

Grouped = Mapping[str, Mapping[int, Sequence[Result]]]


def grouped(results: Sequence[Result]) -> dict[str, dict[int, list[Result]]]:
    """By client and stream count, without runs that failed."""
    found: dict[str, dict[int, list[Result]]] = {}
    for each in results:
        if each.errors and each.cell.streams is not None:
            found.setdefault(each.client, {}).setdefault(each.cell.streams, []).append(each)
    return {client: dict(sorted(cells.items())) for client, cells in found.items()}


def median_error(runs: Sequence[Result], key: str, *, absolute: bool = False) -> float | None:
    """Median over rounds of a signed error, or of its size."""
    values = [each.errors[key] for each in runs if key in each.errors]
    return statistics.median(abs(value) if absolute else value for value in values) if values else None


def truer(cells: Grouped) -> list[str]:
    """Where another client is truer than ours: `client streams key`. Empty if ours is the truest everywhere."""
    found = []
    for count, ours in cells.get(OURS, {}).items():
        for client in cells:
            for key in KEYS:
                mine = median_error(ours, key, absolute=True)
                other = median_error(cells[client].get(count, ()), key, absolute=True)
                if client != OURS and mine is not None and other is not None and other < mine - TIE:
                    found.append(f"{client} {count} {key}")
    return found


def summary(
    results: Sequence[Result], searches: Mapping[str, Search], problems: Mapping[str, str], *, wall_s: float
) -> dict[str, object]:
    """What the last line says. Errors are medians over rounds, as signed fractions of the truth."""
    cells = grouped(results)
    said: dict[str, dict[str, object]] = {}
    for client, counts in cells.items():
        for count, runs in counts.items():
            keys = [*KEYS, "gap_p50_err", "gap_p99_err"]
            figures = {key: _rounded(median_error(runs, key)) for key in keys if median_error(runs, key) is not None}
            said.setdefault(client, {})[str(count)] = {
                **figures,
                "cpu_s": _rounded(statistics.median(each.cpu_s or 0.0 for each in runs)),
                "runs": len(runs),
                "flagged_itself": sum(bool(each.flagged) for each in runs),
                "server_late": sum(each.server_late for each in runs),
            }
    found = truer(cells)
    return {
        "bench": "client_truth",
        "true_ttft_s": TTFT_S,
        "true_itl_s": ITL_S,
        "clients": said,
        "highest_honest_rate_per_s": {
            client: {"rate": _rounded(search.rate), "capped": search.capped} for client, search in searches.items()
        },
        "honest_ttft_p99_err": HONEST,
        "ours_is_truest": bool(cells.get(OURS)) and len(cells) > 1 and not found,
        "truer_than_ours": found,
        "problems": dict(problems),
        "wall_s": round(wall_s, 1),
    }


def write(
    results: Sequence[Result],
    searches: Mapping[str, Search],
    problems: Mapping[str, str],
    said: Mapping[str, object],
    machine: Mapping[str, Any],
    docs: Path,
    data: Path,
) -> None:
    """results.json into `data`, page and picture into `docs`. The page's text around the tables stays as it is."""
    for folder in (docs, data):
        folder.mkdir(parents=True, exist_ok=True)
    shown = {key: machine[key] for key in ("cpu_model", "cpu_count", "platform", "python_version")}
    everything = {
        "summary": said,
        "machine": shown,
        "results": [dataclasses.asdict(each) for each in results],
        "searches": {client: dataclasses.asdict(search) for client, search in searches.items()},
    }
    (data / "results.json").write_text(json.dumps(everything, indent=1) + "\n", "utf-8")
    page = docs / PAGE
    cells = grouped(results)
    renew(page, generated(cells, searches, problems, shown))
    if cells:
        (docs / page.with_suffix(".svg").name).write_text(plot.svg(cells), "utf-8")


def generated(
    cells: Grouped, searches: Mapping[str, Search], problems: Mapping[str, str], machine: Mapping[str, Any]
) -> str:
    """The tables, as Markdown."""
    counts = sorted({count for each in cells.values() for count in each})
    parts = [
        f"Measured on {machine['cpu_count']} cores ({machine['cpu_model']}), Python {machine['python_version']}. "
        "Errors are medians over rounds, with the smallest and the largest in brackets, in percent of the truth. "
        '"flagged" counts the runs that the client itself called invalid, "server late" those in which the server sent '
        "a token of 1 % of the streams more than 5 ms late (the truth is what it did, so no client is charged for it).",
        *(_table(cells, count) for count in counts),
        "### Highest honest rate",
        _rates(searches),
    ]
    if problems:
        parts += ["### What could not be measured", *(f"- {name}: {text}" for name, text in problems.items())]
    return "\n\n".join(parts)


def _table(cells: Grouped, count: int) -> str:
    lines = [
        f"### {count} streams\n",
        "| client | TTFT p50 | TTFT p99 | ITL p50 | ITL p99 | true / said TTFT p50, ms | CPU s | flagged "
        "| server late |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for client, runs in ((client, each[count]) for client, each in cells.items() if count in each):
        true = statistics.median(each.true_ttft_p50_s or 0.0 for each in runs)
        said = statistics.median(each.said_ttft_p50_s or 0.0 for each in runs)
        cpu_s = statistics.median(each.cpu_s or 0.0 for each in runs)
        flagged, late = sum(bool(each.flagged) for each in runs), sum(each.server_late for each in runs)
        lines.append(
            f"| {client} | {' | '.join(_spread(runs, key) for key in KEYS)} | {true * 1000:.1f} / {said * 1000:.1f} | "
            f"{cpu_s:.1f} | {flagged} of {len(runs)} | {late} of {len(runs)} |"
        )
    return "\n".join(lines)


def _spread(runs: Sequence[Result], key: str) -> str:
    values = [each.errors[key] * 100 for each in runs]
    return f"{statistics.median(values):+.1f} [{min(values):+.1f}, {max(values):+.1f}]"


def _rates(searches: Mapping[str, Search]) -> str:
    lines = [
        f"The largest Poisson rate at which the 99th percentile of TTFT is within {HONEST:.0%} of the truth.\n",
        "| client | requests a second | runs |",
        "|---|---|---|",
    ]
    for client, search in sorted(searches.items()):
        rate = "none of those tried" if search.rate is None else f"{search.rate:.0f}"
        more = " or more: the server or the search ended there" if search.capped and search.rate is not None else ""
        lines.append(f"| {client} | {rate}{more} | {len(search.steps)} |")
    return "\n".join(lines)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
