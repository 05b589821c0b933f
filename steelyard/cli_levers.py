"""`steelyard levers`: the catalogue on this machine, as the installed engine sees it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from steelyard.levers.available import Availability

WORDS = {True: "yes", False: "no", None: "perhaps"}


def show(found: Sequence[Availability], *, as_json: bool) -> int:
    """Print them: those that are here first, each with its arguments; then why the others are not."""
    if as_json:
        print(json.dumps([_document(each) for each in found], indent=1, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("lever", "kind", "here", "risk", "must face", "what to write", "what it changes"):
        table.add_column(head, overflow="fold", ratio=3 if head.startswith("what") else None)
    for each in sorted(found, key=lambda each: (each.here is False, each.here is None)):
        if each.here is not False:
            entry = each.entry
            changes = f"{entry.changes}; needs {each.why}" if each.here is None else entry.changes
            table.add_row(entry.name, entry.kind, WORDS[each.here], entry.risk, entry.suites, written(each), changes)
    console.print(table)
    console.print("\nNot on this machine:", style="bold")
    for each in found:
        if each.here is False:
            console.print(f"- {each.entry.name} ({written(each)}): {each.why}", markup=False, highlight=False)
    return 0


def written(each: Availability) -> str:
    """What a candidate writes to pull it."""
    parts: list[str] = []
    if each.entry.engine != "vllm":
        parts.append(f"engine: {each.entry.engine}")
    for section in ("args", "env", "weights"):
        if value := getattr(each.entry, section):
            parts.append(f"{section}: {json.dumps(dict(value))}")
    return "; ".join(parts)


def _document(each: Availability) -> dict[str, Any]:
    return {
        **dataclasses.asdict(each.entry), "suites": each.entry.suites, "here": each.here, "why": each.why,
        "changed": {name: list(pair) for name, pair in each.changed.items()},
    }  # fmt: skip
