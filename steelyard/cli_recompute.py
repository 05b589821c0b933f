"""`steelyard recompute`: a run's figures and verdicts once more, from its stored rows alone, compared bit for bit."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import date, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from steelyard.errors import StudyVoid
from steelyard.gates.recompute_diff import Difference, Recomputed
from steelyard.gates.recompute_run import recompute_run
from steelyard.records import ROWS
from steelyard.reports.facts import Facts

PIPED_WIDTH = 110
SHOWN = 50
"""Differences printed; `--json` gives all of them."""


def recompute(facts: Facts, *, as_json: bool = False, console: Console | None = None) -> int:
    """Recompute a run and print what became of it; 0 if every value agrees, 3 (as of a void study) if one does not.

    With `as_json` one JSON object goes to standard output and nothing else. Raises InputError if the stored study or
    policy cannot be read.
    """
    found = recompute_run(facts)
    if as_json:
        print(json.dumps(as_object(facts, found), ensure_ascii=False, default=_plain))
    else:
        show(facts, found, console or Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False))
    return StudyVoid.exit_code if found.differences else 0


def show(facts: Facts, found: Recomputed, console: Console) -> None:
    """A table of what was compared, then every difference as a sentence."""
    run = facts.study
    console.print(
        f"{found.run_id}  {run.status}, written by Steelyard {run.steelyard_version}"
        f" ({(run.git_commit or 'no checkout')[:12]})",
        markup=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(("table", "rows", "values recomputed", "differences")):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for name, rows, values, differences in counts(found):
        style = "bold red" if differences else ""
        table.add_row(name, f"{rows:,}", f"{values:,}" if values else "as stored", Text(str(differences), style=style))
    console.print(table)
    for line in found.notes:
        console.print(f"note: {line}", markup=False)
    for each in found.differences[:SHOWN]:
        console.print(str(each), markup=False, soft_wrap=True)
    more = len(found.differences) - SHOWN
    if more > 0:
        console.print(f"... and {more} more; --json gives all of them.", markup=False)
    console.print(Text(summary(found), style="bold red" if found.differences else "bold green"))


def summary(found: Recomputed) -> str:
    """One sentence for the whole run."""
    values, count = sum(found.values.values()), len(found.differences)
    if not count:
        return f"All {values:,} recomputed values are the stored ones, bit for bit."
    return f"{count} difference{'s' if count != 1 else ''}: the stored rows do not give what is stored."


def counts(found: Recomputed) -> list[tuple[str, int, int, int]]:
    """Table, stored rows, values recomputed, differences; tables in the order of the records."""
    differing = [each.table for each in found.differences]
    return [
        (row.TABLE, found.rows.get(row.TABLE, 0), found.values.get(row.TABLE, 0), differing.count(row.TABLE))
        for row in ROWS
        if row.TABLE in found.rows or row.TABLE in differing
    ]


def as_object(facts: Facts, found: Recomputed) -> dict[str, Any]:
    """Everything the command knows, for programs."""
    return {
        "run_id": found.run_id,
        "study": facts.study.study,
        "status": facts.study.status,
        "steelyard_version": facts.study.steelyard_version,
        "git_commit": facts.study.git_commit,
        "agrees": not found.differences,
        "tables": {
            name: {
                "rows": rows,
                "values": values,
                "differences": differences,
                "as_stored": list(found.as_stored.get(name, ())),
            }
            for name, rows, values, differences in counts(found)
        },
        "notes": found.notes,
        "differences": [_as_dict(each) for each in found.differences],
    }


def _as_dict(each: Difference) -> dict[str, Any]:
    return {**dataclasses.asdict(each), "sentence": str(each)}


def _plain(value: Any) -> str:
    if isinstance(value, date | datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON")
