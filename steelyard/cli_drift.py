"""`steelyard drift`: what changed its level over the nights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from steelyard.drift import Drift, level
from steelyard.reports.terminal import console_of


def show(found: Sequence[Drift], *, followed: int, as_json: bool) -> int:
    """Print it; with `as_json` one array. 0 also where something is worse: that is a finding, and no failure."""
    if as_json:
        told = [{**dataclasses.asdict(each), "night": f"{each.night:%Y-%m-%d}"} for each in found]
        print(json.dumps(told, indent=1))
        return 0
    console = console_of(160)
    if not found:
        console.print(f"No change of level in {followed:,} comparisons of complete nights.")
        return 0
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("since", "study", "figure", "before", "after", "", "nights", "p", "first run"):
        table.add_column(name, justify="right" if name in ("before", "after", "nights", "p") else "left")
    for each in found:
        word = Text("worse", style="bold red") if each.worse else Text("better", style="green")
        table.add_row(
            f"{each.night:%Y-%m-%d}", each.study, each.name, level(each, each.before), level(each, each.after), word,
            str(each.nights), f"{each.p_value:.1g}", each.run_id,
        )  # fmt: skip
    console.print(table)
    return 0
