"""The answer of `steelyard query`, for people and for other programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steelyard.errors import InfrastructureError
from steelyard.reports.terminal import console_of

SHOWN = 200
"""Rows of a table that a person is shown; the other formats hold all."""


def show(frame: Any, form: str, out: Path | None = None) -> None:
    """Print a frame as table, csv or json (one array of objects), or write it to a file.

    NULL is an empty cell in a table and in csv, null in json. Raises InfrastructureError if the file cannot be written.
    """
    try:
        if form == "parquet":
            frame.to_parquet(out, index=False)
            return
        text = frame.to_csv(index=False) if form == "csv" else None
        if form == "json":
            text = json.dumps([_document(row) for row in frame.to_dict("records")], ensure_ascii=False) + "\n"
        if out is not None:
            out.write_text(text if text is not None else frame.to_string(index=False) + "\n", "utf-8")
        elif text is not None:
            sys.stdout.write(text)
        else:
            _table(frame)
    except OSError as error:
        raise InfrastructureError(
            f"{out} cannot be written ({error.strerror}).", remedy="Choose another --out."
        ) from error


def _table(frame: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    console = console_of(160)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in frame.columns:
        numeric = frame[name].dtype.kind in "iuf"
        table.add_column(Text(str(name)), justify="right" if numeric else "left", overflow="fold")
    for row in frame.head(SHOWN).itertuples(index=False):
        table.add_row(*(Text(_cell(value)) for value in row))
    console.print(table)
    if len(frame) > SHOWN:
        console.print(f"{len(frame) - SHOWN:,} more rows; --format csv has all", style="dim")


def _document(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row as JSON holds it: every digit, moments as text, NULL as null."""
    return {str(name): _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    import numpy as np
    import pandas as pd

    if isinstance(value, list | np.ndarray):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return _document(value)
    if pd.isna(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else _text(value)


def _cell(value: Any) -> str:
    import numpy as np
    import pandas as pd

    if isinstance(value, list | np.ndarray):
        return ", ".join(_cell(each) for each in value)
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1e5 else f"{value:.4g}"
    return _text(value)


def _text(value: Any) -> str:
    """A day without the midnight that a frame gives it."""
    import pandas as pd

    return str(value.date()) if isinstance(value, pd.Timestamp) and value == value.normalize() else str(value)
