"""`steelyard levers`: the catalogue on this machine, as the installed engine sees it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from steelyard.levers.available import Availability
from steelyard.reports.terminal import console_of

ORDER = ("serves", "accepted", "unknown")


def show(found: Sequence[Availability], *, as_json: bool) -> int:
    """Print them: those that may be pulled first, each with what to write; then why the others may not."""
    if as_json:
        print(json.dumps([_document(each) for each in found], indent=1, ensure_ascii=False))
        return 0
    from rich.table import Table

    console = console_of(180)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("lever", "kind", "here", "risk", "must face", "what to write", "what it changes"):
        table.add_column(head, overflow="fold", ratio=3 if head.startswith("what") else None)
    for each in sorted((each for each in found if each.here), key=lambda each: ORDER.index(each.state)):
        entry = each.entry
        changes = entry.changes if entry.needs is None else f"{entry.changes}; needs {entry.needs}"
        table.add_row(entry.name, entry.kind, each.state, entry.risk, entry.suites, written(each), changes)
    console.print(table)
    if any(each.state == "accepted" for each in found):
        console.print("\naccepted: its configuration is valid; `steelyard levers --try` starts an engine with each.")
    already = [each for each in found if each.state == "already"]
    missing = [each for each in found if not each.here and each.state != "already"]
    for head, rest in (("In force without being asked for:", already), ("Not here:", missing)):
        if rest:
            console.print(f"\n{head}", style="bold")
        for each in rest:
            console.print(f"- {each.entry.name} ({written(each)}): {each.why}", markup=False, highlight=False)
    return 0


def written(each: Availability) -> str:
    """What a candidate writes to pull it."""
    parts: list[str] = []
    if each.entry.engine != "vllm":
        parts.append(f"engine: {each.entry.engine}")
    given = {section: getattr(each.entry, section) for section in ("args", "env", "weights")}
    parts += [f"{section}: {json.dumps(dict(value))}" for section, value in given.items() if value]
    return "; ".join(parts)


def _document(each: Availability) -> dict[str, Any]:
    return {
        **dataclasses.asdict(each.entry), "suites": each.entry.suites, "state": each.state, "why": each.why,
        "changed": {name: list(pair) for name, pair in each.changed.items()},
    }  # fmt: skip
