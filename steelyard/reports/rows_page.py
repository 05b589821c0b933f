"""Pages of the reviewer's desk: runs, one run, and its exact rows, each with links to the rows it rests on.

They load nothing and run nothing, like the report; every link leads to another page of the same desk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import quote, urlencode

from steelyard.lineage import asset_of, made_of
from steelyard.lineage_rows import Where, behind
from steelyard.reports.page import rendered

NULL = "null"
"""In the query of a link: the column named by its value is NULL."""
PAGE_ROWS = 100
_DIGEST = re.compile("[0-9a-f]{64}")
CELL_CHARACTERS = 80
"""A longer text is cut in a table of many rows, and a digest is; the row's own page has all of it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the file describes it: DuckDB's type, and the comment with meaning and unit."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True, slots=True)
class Shown:
    """Rows `at` .. `at + len(rows)` of the `total` that were asked for; `sql` asks for all of them again.

    `key` are the columns that name a row of a table; a view has none.
    """

    table: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    total: int
    at: int
    sql: str


def rows_page(run_id: str, given: Mapping[str, str | None], shown: Shown) -> str:
    """Rows of one table of a run: a table of many, or all columns of one with their meanings and what is behind it."""
    one = shown.rows[0] if shown.total == 1 and shown.rows else None
    links = [] if one is None else behind(shown.table, one)
    # All rows are of this run, which stands above them.
    after = shown.at + len(shown.rows)
    listed = [column for column in shown.columns if column.name != "run_id"]
    return rendered(
        "rows.html.j2",
        run_id=run_id,
        shown=shown,
        given=given,
        one=None if one is None else [_described(shown.table, one, column) for column in shown.columns],
        columns=listed,
        rows=[[_cut(cell(row[column.name])) for column in listed] for row in shown.rows],
        numeric=[column.type in ("BIGINT", "DOUBLE", "HUGEINT") for column in listed],
        own=[_own(shown, row) for row in shown.rows],
        behind=[(what, table, href(table, where)) for what, table, where in links],
        before=href(shown.table, {**given, "at": max(0, shown.at - PAGE_ROWS)}) if shown.at else None,
        after=href(shown.table, {**given, "at": after}) if after < shown.total else None,
    )


def run_page(
    run: Mapping[str, Any],
    verdicts: Sequence[Mapping[str, Any]],
    counts: Sequence[tuple[str, str, int]],
    papers: Sequence[tuple[str, str]],
) -> str:
    """One run: its verdicts, its `papers` (name and file of packet and report), and its tables with how many rows."""
    return rendered("run.html.j2", run={name: cell(value) for name, value in run.items()}, verdicts=verdicts,
                    counts=counts, papers=papers)  # fmt: skip


def runs_page(runs: Sequence[Mapping[str, Any]]) -> str:
    """Every run, the newest first."""
    return rendered("runs.html.j2", runs=[{name: cell(value) for name, value in run.items()} for run in runs])


def problem_page(what: str, remedy: str | None) -> str:
    """Why there is no such page, and what to do."""
    return rendered("problem.html.j2", what=what, remedy=remedy)


def href(table: str, where: Where) -> str:
    """Link from one page of a run to rows of it."""
    given = [(name, value) if value is not None else (NULL, name) for name, value in where.items()]
    return quote(table) + (f"?{urlencode(given)}" if given else "")


def cell(value: Any) -> str | None:
    """A value as it is stored: no rounding, moments in UTC, a list one line an element; None for NULL."""
    if value is None:
        return None
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat(sep=" ").replace("+00:00", " UTC")
    if isinstance(value, bool | date):
        return str(value).lower() if isinstance(value, bool) else value.isoformat()
    if isinstance(value, list | tuple):
        return "\n".join("NULL" if each is None else str(cell(each)) for each in value)
    return repr(value) if isinstance(value, float) else str(value)


def _described(table: str, row: Mapping[str, Any], column: Column) -> tuple[Column, str | None, str | None]:
    """A column of a row, its value, and what that is made of."""
    return column, cell(row[column.name]), made_of(asset_of(table, row), column.name)


def _cut(text: str | None) -> str | None:
    if text is None:
        return None
    line = " ".join(text.split())
    if _DIGEST.fullmatch(line):
        return f"{line[:12]}…"
    return line if len(line) <= CELL_CHARACTERS else f"{line[: CELL_CHARACTERS - 1]}…"


def _own(shown: Shown, row: Mapping[str, Any]) -> str | None:
    names = [name for name in shown.key if name != "run_id"]
    return href(shown.table, {name: row[name] for name in names}) if names else None
