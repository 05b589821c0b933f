"""The warehouse as Parquet: one file a table, and raw rows in one file a run, partitioned by study and night.

    requests/study=laptop/night=2026-11-21/20261121-020000-laptop-3f2a1c.parquet
    verdicts/data.parquet

Only raw rows are partitioned, because only they grow by thousands a night: a thousand files of ten verdicts each would
take a reader a second to open. A version is a complete tree that never changes. Runs whose raw rows are as they were
are hard links to the version before, so that a publish costs what the night cost and not what all nights did.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from steelyard.digest import digest
from steelyard.records import RAW
from warehouse.schema import APPLIED, quoted

PARQUET = "parquet"
"""Name of the tree beside a snapshot."""
VERSIONS = ".parquet-versions"
"""Beside them the folder of that tree's versions: a snapshot goes on reading the one it was published with."""
MANIFEST = "_manifest.json"
"""Beside the tables; what begins with an underscore is no data to readers of partitioned folders."""
NOWHERE = "__HIVE_DEFAULT_PARTITION__"
"""How partitioned folders write NULL."""
WHOLE = "data.parquet"

_RUNS = """
SELECT revisions.run_id, revisions.revision, studies.study, CAST(CAST(studies.started_at AS DATE) AS VARCHAR) AS night
FROM revisions LEFT JOIN studies USING (run_id)
ORDER BY revisions.run_id
"""


@dataclass(frozen=True, slots=True)
class Partition:
    """A run's place below each raw table, and the state its rows are in."""

    run_id: str
    revision: str
    study: str | None
    night: str | None

    @property
    def place(self) -> Path:
        """Where its file is, below the table's folder."""
        return Path(f"study={self.study or NOWHERE}", f"night={self.night or NOWHERE}", f"{self.run_id}.parquet")


def write_tree(
    connection: duckdb.DuckDBPyConnection, into: Path, before: Path | None = None, lost: Collection[str] = ()
) -> None:
    """Write every table of the connection's database into the new folder `into`, linking what `before` has already.

    Runs of `lost` are written anew, because a file of theirs is gone from `before`.
    Raises duckdb.Error or OSError; what was written by then stays for the caller to remove.
    """
    into.mkdir(parents=True)
    [(database,)] = connection.execute("SELECT current_database()").fetchall()
    schema = _schema_digest(connection)
    known = read_manifest(before)
    old = known["runs"] if known["schema"] == schema else {}
    runs = [Partition(*row) for row in connection.execute(_RUNS).fetchall()]
    there: dict[str, str] = {}
    for run in runs:
        unchanged = before if old.get(run.run_id) == run.revision and run.run_id not in lost else None
        written = [_raw(connection, row_class.TABLE, run, into, unchanged) for row_class in RAW]
        if any(written):
            there[run.run_id] = run.revision
    for row_class in RAW:
        if not (into / row_class.TABLE).is_dir():
            empty_file(connection, database, row_class.TABLE, into)
    whole_files(connection, database, into)
    told = {"complete": True, "schema": schema, "runs": there}
    (into / MANIFEST).write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    # One call for all: three thousand folders a version would each wait for the disk.
    os.sync()


def whole_files(
    connection: duckdb.DuckDBPyConnection, database: str, into: Path, runs: Sequence[str] | None = None
) -> None:
    """Write every table of an attached database that is not of raw rows, one file each; with `runs` only their rows."""
    for table, rows in whole_tables(connection, database, runs):
        _copy(connection, rows, into / table / WHOLE)


def whole_tables(
    connection: duckdb.DuckDBPyConnection, database: str, runs: Sequence[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Every table of an attached database that is not of raw rows, and the query of its rows; with `runs` of theirs."""
    raw = {row_class.TABLE for row_class in RAW}
    for table in tables(connection, database):
        if table not in raw:
            yield table, f'SELECT * FROM "{database}".main."{table}"{_of_runs(connection, database, table, runs)}'


def empty_file(connection: duckdb.DuckDBPyConnection, database: str, table: str, into: Path) -> Path:
    """A raw table's file without a row, for a table that has no other; its place below `into`.

    A reader's pattern must find something, and the columns' types, before there is any row.
    """
    place = Path(table, f"study={NOWHERE}", f"night={NOWHERE}", "empty.parquet")
    _copy(connection, f'SELECT * FROM "{database}".main."{table}" LIMIT 0', into / place)
    return place


def tables(connection: duckdb.DuckDBPyConnection, database: str) -> list[str]:
    """Tables of an attached database, by name."""
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE NOT internal AND database_name = ? ORDER BY 1", [database]
    ).fetchall()
    return [table for (table,) in found]


def _of_runs(connection: duckdb.DuckDBPyConnection, database: str, table: str, runs: Sequence[str] | None) -> str:
    """` WHERE run_id IN (...)` for a table that has runs, if some are named; else nothing."""
    if runs is None:
        return ""
    has_runs = connection.execute(
        "SELECT 1 FROM duckdb_columns() WHERE database_name = ? AND table_name = ? AND column_name = 'run_id'",
        [database, table],
    ).fetchall()
    if not has_runs:
        return ""
    return f" WHERE run_id IN ({', '.join(map(quoted, runs)) or 'NULL'})"


def pattern(tree: Path | str, table: str) -> str:
    """What finds the files of a raw table below a tree."""
    return f"{tree}/{table}/*/*/*.parquet"


def runs_of(tree: Path) -> Iterator[tuple[Path, str | None]]:
    """The files of raw rows below a tree, relative to it, each with its run; None for one that is there for nobody."""
    for row_class in RAW:
        for path in sorted((tree / row_class.TABLE).glob("*/*/*.parquet")):
            nobody = path.parent.name == f"night={NOWHERE}" and path.stem == "empty"
            yield path.relative_to(tree), None if nobody else path.stem


def _raw(connection: duckdb.DuckDBPyConnection, table: str, run: Partition, into: Path, unchanged: Path | None) -> bool:
    """Link or write a run's file of a raw table; whether it has rows there."""
    place = into / table / run.place
    if unchanged is not None:
        source = unchanged / table / run.place
        if source.is_file():
            _link(source, place)
        return source.is_file()
    if _copy(connection, f'SELECT * FROM "{table}" WHERE run_id = {quoted(run.run_id)}', place):
        return True
    place.unlink()
    _remove_empty(place.parent, into)
    return False


def _copy(connection: duckdb.DuckDBPyConnection, sql: str, file: Path) -> int:
    file.parent.mkdir(parents=True, exist_ok=True)
    copied = connection.execute(f"COPY ({sql}) TO {quoted(str(file))} (FORMAT parquet, COMPRESSION zstd)").fetchall()
    return int(copied[0][0])


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        # Not every file system has hard links; if the disk is full, the copy says so.
        shutil.copyfile(source, target)


def _remove_empty(folder: Path, up_to: Path) -> None:
    while folder != up_to and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _schema_digest(connection: duckdb.DuckDBPyConnection) -> str:
    """Of the migrations applied: after another one files of before may lack columns, and all are written again."""
    return digest([list(row) for row in connection.execute(APPLIED).fetchall()])


def read_manifest(tree: Path | None) -> dict[str, Any]:
    """What a version says of itself: `schema`, and `runs` with raw rows, each with its revision; none if unreadable."""
    try:
        text = (tree / MANIFEST).read_text("utf-8") if tree is not None else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    return parsed_manifest(text) or {"schema": None, "runs": {}}


def parsed_manifest(text: str | bytes) -> dict[str, Any]:
    """A manifest; empty for what is none."""
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) and isinstance(told.get("runs"), dict) else {}
