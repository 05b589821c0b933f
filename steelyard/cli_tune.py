"""The end of `steelyard tune`, as a terminal shows it, and its last line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steelyard.home import snapshot_path
from steelyard.reports.search_page import Searched, answer, lever_lines
from steelyard.reports.search_page import lede as told
from steelyard.reports.terminal import console_of


def show(found: Searched, *, study: Path | None, page: Path) -> None:
    """What each lever did, the answer, where to look; and one JSON object as the last line."""
    from rich.table import Table
    from rich.text import Text

    console = console_of(150)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("lever", "predicted", "alone", "in the stack", "interaction", "risk", "alone it is"):
        table.add_column(
            head, overflow="fold", justify="right" if head not in ("lever", "risk", "alone it is") else "left"
        )
    for line in lever_lines(found):
        words = f"{line['fate']}: {line['reason']}" if line["reason"] else line["fate"]
        cells = (line["predicted"], line["alone"], line["inside"], line["interaction"])
        name = Text(line["name"], style="bold" if line["taken"] else "")
        table.add_row(name, *(cell or "" for cell in cells), line["risk"], Text(words))
    console.print(table)
    console.print(f"\n{answer(found)}", style="bold", markup=False, highlight=False)
    console.print(told(found), markup=False, highlight=False)
    if study is not None:
        console.print(f"\nstudy      {study}", highlight=False, soft_wrap=True)
        if any(row.verdict == "promote" for row in (found.judged.verdicts if found.judged else ())):
            console.print(f"serve it   steelyard serve-promoted {study}", highlight=False, soft_wrap=True)
    console.print(f"report     {page}\nwarehouse  {snapshot_path()}\n", highlight=False, soft_wrap=True)
    print(json.dumps(summary(found, study)), flush=True)


def summary(found: Searched, study: Path | None) -> dict[str, Any]:
    """The machine-readable end of a search."""
    search, winner = found.search, found.winner
    return {
        "run_id": search.run_id,
        "winner": search.winner,
        "levers": winner.pulled if winner else [],
        "change": json.loads(winner.change_json) if winner else {},
        "gain": winner.total if winner else None,
        "fallback": search.fallback,
        "stopped": search.stopped,
        "spent_s": round(search.spent_s, 1),
        "study": str(study) if study else None,
        "confirmed_by": search.confirmed_by,
        "verdicts": {row.arm: row.verdict for row in (found.judged.verdicts if found.judged else ())},
    }
