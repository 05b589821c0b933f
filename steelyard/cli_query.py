"""The answer of `steelyard query`, for people and for other programs."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from steelyard.errors import InfrastructureError
from steelyard.reports.terminal import console_of

SHOWN = 200
"""Rows of a table that a person is shown; the other formats hold all."""


def show(answer: Any, form: str, out: Path | None = None) -> None:
    """Print an Arrow table as table, csv or json (one array of objects), or write it to a file.

    NULL is an empty cell in a table and in csv, null in json; a whole number stays one beside it. Raises
    InfrastructureError if the file cannot be written.
    """
    try:
        if form == "parquet":
            from pyarrow.parquet import write_table

            write_table(answer, out)
            return
        if form == "table" and out is None:
            _table(answer)
            return
        text = {"csv": _csv, "json": _json, "table": _plain_table}[form](answer)
        if out is None:
            sys.stdout.write(text)
        else:
            out.write_text(text, "utf-8")
    except OSError as error:
        raise InfrastructureError(
            f"{out} cannot be written ({error.strerror}).", remedy="Choose another --out."
        ) from error


def _csv(answer: Any) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(answer.column_names)
    writer.writerows([_exact(value) for value in row.values()] for row in answer.to_pylist())
    return stream.getvalue()


def _json(answer: Any) -> str:
    return json.dumps([_document(row) for row in answer.to_pylist()], ensure_ascii=False) + "\n"


def _plain_table(answer: Any) -> str:
    rows = [answer.column_names, *([_cell(value) for value in row.values()] for row in answer.to_pylist())]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)


def _table(answer: Any) -> None:
    from pyarrow import types
    from rich.table import Table
    from rich.text import Text

    console = console_of(160)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for field in answer.schema:
        numeric = types.is_integer(field.type) or types.is_floating(field.type) or types.is_decimal(field.type)
        table.add_column(Text(field.name), justify="right" if numeric else "left", overflow="fold")
    for row in answer.slice(0, SHOWN).to_pylist():
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    console.print(table)
    if answer.num_rows > SHOWN:
        console.print(f"{answer.num_rows - SHOWN:,} more rows; --format csv has all", style="dim")


def _document(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON holds it: every digit, moments as text, NULL as null."""
    return {str(name): _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return _document(value)
    if value is None or value != value:
        return None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value if isinstance(value, bool | int | float | str) else _text(value)


def _exact(value: Any) -> Any:
    """A cell of csv: every digit, a list or object as JSON."""
    plain = _plain(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, list | dict) else plain


def _cell(value: Any) -> str:
    """A cell of a table, for people."""
    if isinstance(value, list):
        return ", ".join(_cell(each) for each in value)
    if value is None or value != value:
        return ""
    if isinstance(value, Decimal):
        value = _plain(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1e5 else f"{value:.4g}"
    return _text(value)


def _text(value: Any) -> str:
    """A day without the midnight that a moment has."""
    midnight = isinstance(value, dt.datetime) and value.time() == dt.time()
    return str(value.date()) if midnight else str(value)
