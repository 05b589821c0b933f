"""The published DuckDB file: every table as it is, and over the raw rows views that read the Parquet beside it.

A copy of a hundred million raw rows would take minutes a night and the disk twice. As views they cost nothing, are
found by the same names, and one night of a thousand is read in a tenth of a second.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import duckdb

from steelyard.records import RAW, Row
from warehouse.parquet import PARQUET, VERSIONS, pattern, tables, whole_tables
from warehouse.schema import columns, quoted

# The oldest storage format DuckDB 2.0 writes (number 64 in the file header), read by clients from 0.10 on. The format
# DuckDB 2.0 would choose for itself is refused by every older client.
STORAGE_VERSION = "v1.0.0"
VARIABLE = "steelyard_parquet"
"""`SET VARIABLE steelyard_parquet = '/folder'` tells a snapshot that was moved where its Parquet is."""


def write_snapshot(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    file: Path,
    tree: Path,
    told: str | None = None,
    runs: Sequence[str] | None = None,
) -> None:
    """Write the attached database `source` into the new `file`; its raw rows are read from `tree`.

    With `told` readers find them there instead, in a folder or at a URL that this process need not reach; with `runs`
    only rows of these are written. Raises duckdb.Error or OSError.
    """
    connection.execute(f"ATTACH {quoted(str(file))} AS publishing (STORAGE_VERSION '{STORAGE_VERSION}')")
    try:
        connection.execute(f'COPY FROM DATABASE "{source}" TO publishing (SCHEMA)')
        for table, rows in whole_tables(connection, source, runs):
            connection.execute(f'INSERT INTO publishing."{table}" {rows}')
        # DuckDB looks at the files of a view it is given.
        connection.execute(f"SET VARIABLE {VARIABLE} = {quoted(_escaped(str(tree)))}")
        copied = tables(connection, "publishing")
        for row_class in RAW:
            kind = "TABLE" if row_class.TABLE in copied else "VIEW"
            connection.execute(f"DROP {kind} publishing.{row_class.TABLE}")
            for statement in _as_view(row_class, told or str(tree)):
                connection.execute(statement)
        connection.execute(f"RESET VARIABLE {VARIABLE}")
    finally:
        # Detaching writes the checkpoint, so that the file needs no write-ahead log beside it.
        connection.execute("DETACH publishing")


def relocated(connection: duckdb.DuckDBPyConnection, snapshot: Path) -> None:
    """Point a snapshot that lies elsewhere than it was published at the Parquet beside it, where there is any."""
    tree = tree_of(connection, snapshot)
    if tree.is_dir() and tree != _told(connection):
        connection.execute(f"SET VARIABLE {VARIABLE} = {quoted(_escaped(str(tree)))}")


def tree_of(connection: duckdb.DuckDBPyConnection, snapshot: Path) -> Path:
    """The Parquet that an attached or opened snapshot reads its raw rows from: that beside it, wherever it lies now.

    The folder it was published to comes last: another home may be there by now, whose versions have the same names.
    """
    told = _told(connection)
    beside = [snapshot.parent / PARQUET]
    if told is not None:
        beside = [snapshot.parent / VERSIONS / told.name, *beside, told]
    return next((each for each in beside if each.is_dir()), snapshot.parent / PARQUET)


def _told(connection: duckdb.DuckDBPyConnection) -> Path | None:
    found = connection.execute(
        "SELECT sql FROM duckdb_views() WHERE view_name = ? AND NOT internal", [RAW[0].TABLE]
    ).fetchall()
    told = re.search(rf"getvariable\('{VARIABLE}'\), '((?:[^']|'')*)'", found[0][0]) if found else None
    return Path(_unescaped(told[1].replace("''", "'"))) if told else None


def _as_view(row_class: type[Row], tree: str) -> list[str]:
    table = f"publishing.{row_class.TABLE}"
    names = ", ".join(column.name for column in columns(row_class))
    where = f"coalesce(getvariable('{VARIABLE}'), {quoted(_escaped(tree))}) || {quoted(pattern('', row_class.TABLE))}"
    return [
        f"CREATE VIEW {table} AS SELECT {names} FROM read_parquet({where}, hive_partitioning = false)",
        f"COMMENT ON VIEW {table} IS {quoted(row_class.MEANING)}",
        *(f"COMMENT ON COLUMN {table}.{each.name} IS {quoted(each.comment)}" for each in columns(row_class)),
    ]


def _escaped(folder: str) -> str:
    """A folder whose name has the signs of a pattern, so that only itself is meant."""
    return re.sub(r"[*?\[]", r"[\g<0>]", folder)


def _unescaped(text: str) -> str:
    return re.sub(r"\[([*?\[])\]", r"\1", text)
