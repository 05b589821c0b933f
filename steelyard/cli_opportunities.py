"""`steelyard opportunities`: the backlog of a study, from its newest survey; what was tried stands beside it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from steelyard.levers.score import Scored, best_of_each, score
from steelyard.records import ComparisonRow, VerdictRow
from steelyard.records_profile import OpportunityRow
from steelyard.reports import numerals
from steelyard.reports.terminal import console_of

NEWEST = """
    SELECT opportunities.run_id FROM opportunities JOIN studies USING (run_id)
    WHERE studies.study = ? ORDER BY studies.started_at DESC LIMIT 1
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The best row of each lever, by rank; what was measured of it there, and the verdict of the arm that tried it."""

    run_id: str
    rows: tuple[OpportunityRow, ...]
    scored: Mapping[str, Scored]
    verdicts: Mapping[str, str]


def backlog(
    run_id: str, opportunities: Sequence[OpportunityRow], comparisons: Sequence[ComparisonRow],
    verdicts: Sequence[VerdictRow],
) -> Backlog:  # fmt: skip
    """One line a lever: at the load point where it promises most."""
    best = best_of_each(opportunities)
    pairs = score(best, comparisons).pairs
    return Backlog(
        run_id=run_id, rows=tuple(best), scored={each.row.name: each for each in pairs},
        verdicts={row.arm: row.verdict for row in verdicts},
    )  # fmt: skip


def show(found: Backlog, *, as_json: bool) -> int:
    """Print it: what is worth trying next, what was tried, and what nothing is known of."""
    if as_json:
        print(json.dumps([_document(found, row) for row in found.rows], indent=1, ensure_ascii=False))
        return 0
    from rich.table import Table

    console = console_of(180)
    untried = [row for row in found.rows if row.tried_by is None and row.predicted is not None]
    tried = [row for row in found.rows if row.tried_by is not None]
    unknown = [row for row in found.rows if row.tried_by is None and row.predicted is None]
    for head, rows in (("Not tried yet", untried), ("Tried", tried)):
        if not rows:
            continue
        table = Table(title=head, title_justify="left", box=None, header_style="bold", pad_edge=False)
        for name in ("lever", "at", "predicted", "measured", "verdict", "risk", "why", "evidence"):
            table.add_column(name, overflow="fold", ratio=3 if name in ("why", "evidence") else None)
        for row in rows:
            table.add_row(*_cells(found, row))
        console.print(table)
        console.print()
    if unknown:
        console.print("Nothing can be predicted of:", style="bold")
    for row in unknown:
        console.print(f"- {row.name}: {row.reason}", markup=False, highlight=False)
    console.print(
        f"\nsurvey of run {found.run_id}; `steelyard levers` says what the engine takes here", highlight=False
    )
    return 0


def _cells(found: Backlog, row: OpportunityRow) -> tuple[str, ...]:
    scored = found.scored.get(row.name)
    measured = scored.comparison if scored else None
    return (
        row.name, row.load_point,
        numerals.ratio_within(row.predicted, row.low, row.high) or "n/a",
        numerals.known(numerals.ratio_within(measured.estimate, measured.low, measured.high)) if measured else "",
        found.verdicts.get(row.tried_by or "", ""), row.risk, row.mechanism, row.reason or row.evidence,
    )  # fmt: skip


def _document(found: Backlog, row: OpportunityRow) -> dict[str, Any]:
    scored = found.scored.get(row.name)
    made = {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.as_dict().items()
    }  # fmt: skip
    return {
        **made,
        "measured": scored.comparison.estimate if scored else None,
        "verdict": found.verdicts.get(row.tried_by or ""),
    }
