"""The answer of `steelyard query`, for people and for other programs."""

from __future__ import annotations

import json
import sys
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
            text = json.dumps(json.loads(frame.to_json(orient="records", date_format="iso")), ensure_ascii=False) + "\n"
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

    console = console_of(160)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in frame.columns:
        numeric = frame[name].dtype.kind in "iuf"
        table.add_column(str(name), justify="right" if numeric else "left", overflow="fold")
    for row in frame.head(SHOWN).itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    console.print(table)
    if len(frame) > SHOWN:
        console.print(f"{len(frame) - SHOWN:,} more rows; --format csv has all", style="dim")


def _cell(value: Any) -> str:
    import numpy as np
    import pandas as pd

    if isinstance(value, list | np.ndarray):
        return ", ".join(_cell(each) for each in value)
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return str(value)
