"""The schema: columns as `steelyard.records` declares them, and the SQL that brings a file up to date.

Two kinds of SQL, as in other migration tools. *Migrations* (`migrations/NNNN_*.sql`) run once, in order, each in its
own transaction, and are frozen by checksum: a file that was applied may never change, because two warehouses that
claim the same version would then differ. *Repeatables* (`views.sql`, and the comments made from the records) hold
no data, so they are written again whenever their text changes.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from steelyard.digest import text_digest
from steelyard.errors import InfrastructureError
from steelyard.records import ROWS, Row
from steelyard.records_trials import RequestRow

MIGRATIONS = Path(__file__).parent / "migrations"
VIEWS = Path(__file__).parent / "views.sql"

_TYPES: dict[Any, tuple[str, pa.DataType]] = {
    str: ("VARCHAR", pa.string()),
    int: ("BIGINT", pa.int64()),
    float: ("DOUBLE", pa.float64()),
    bool: ("BOOLEAN", pa.bool_()),
    datetime: ("TIMESTAMP", pa.timestamp("us")),
    date: ("DATE", pa.date32()),
    list[str]: ("VARCHAR[]", pa.list_(pa.string())),
    list[float]: ("DOUBLE[]", pa.list_(pa.float64())),
}

OWN_TABLES = {"schema_version": "name", "revisions": "run_id"}
"""Tables that the warehouse keeps for itself and no record describes, with their keys."""

APPLIED = "SELECT name, checksum FROM schema_version WHERE kind = 'migration' ORDER BY name"
"""Asks a file for the migrations that made its tables."""
_SCHEMA_VERSION = """
CREATE TABLE schema_version (
    name       VARCHAR NOT NULL,
    kind       VARCHAR NOT NULL,
    checksum   VARCHAR NOT NULL,
    applied_at TIMESTAMP NOT NULL,
    PRIMARY KEY (name)
);
COMMENT ON TABLE schema_version IS 'What made this schema: every migration and repeatable script applied to the file.';
COMMENT ON COLUMN schema_version.name IS 'File name, or comments for what is written from steelyard/records.py.';
COMMENT ON COLUMN schema_version.kind IS 'migration (runs once, frozen) or repeatable (runs again when it changes).';
COMMENT ON COLUMN schema_version.checksum IS 'sha256 of the script as it was applied.';
COMMENT ON COLUMN schema_version.applied_at IS 'When it was applied. [UTC]';
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its record field, seen by DuckDB and by Arrow."""

    name: str
    python_type: Any
    duckdb_type: str
    arrow_type: pa.DataType
    nullable: bool
    meaning: str
    unit: str | None

    @property
    def comment(self) -> str:
        """Meaning with the unit in brackets: what COMMENT ON COLUMN says."""
        return f"{self.meaning} [{self.unit}]" if self.unit else self.meaning


def columns(row_class: type[Row]) -> tuple[Column, ...]:
    """The columns of a row class of `steelyard.records.ROWS`, in order."""
    return _COLUMNS[row_class.TABLE]


def _columns_of(row_class: type[Row]) -> tuple[Column, ...]:
    hints = typing.get_type_hints(row_class)
    found = []
    for field in dataclasses.fields(row_class):  # type: ignore[arg-type]
        hint, nullable = hints[field.name], False
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            hint = next(each for each in typing.get_args(hint) if each is not type(None))
            nullable = True
        if hint == list[float | None]:
            # A list's elements are nullable in both anyway.
            hint = list[float]
        duckdb_type, arrow_type = _TYPES[hint]
        meaning, unit = field.metadata["meaning"], field.metadata["unit"]
        found.append(Column(field.name, hint, duckdb_type, arrow_type, nullable, meaning, unit))
    return tuple(found)


_COLUMNS = {row_class.TABLE: _columns_of(row_class) for row_class in ROWS}


@dataclasses.dataclass(frozen=True, slots=True)
class Script:
    """A piece of SQL with a name and a checksum."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """sha256 of the text, blind to the line ends of the checkout."""
        return text_digest(self.sql.replace("\r\n", "\n"))


def migrations(folder: Path = MIGRATIONS) -> tuple[Script, ...]:
    """The migrations, in order. Names must be NNNN_name.sql, counted from 0001 without a gap."""
    scripts = tuple(Script(path.name, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.sql")))
    expected = [f"{number:04d}_" for number in range(1, len(scripts) + 1)]
    if not scripts or [script.name[:5] for script in scripts] != expected:
        raise InfrastructureError(
            f"Migrations in {folder} are not numbered 0001, 0002, ... without a gap: "
            f"{', '.join(script.name for script in scripts) or 'there are none'}.",
            remedy="Restore the folder from the release; a new migration takes the next number.",
        )
    return scripts


def comments() -> Script:
    """COMMENT ON statements for every table and column, from the records."""
    lines = []
    for row_class in ROWS:
        lines.append(f"COMMENT ON TABLE {row_class.TABLE} IS {quoted(row_class.MEANING)};")
        lines += [
            f"COMMENT ON COLUMN {row_class.TABLE}.{column.name} IS {quoted(column.comment)};"
            for column in columns(row_class)
        ]
    return Script("comments", "\n".join(lines))


def migrate(connection: duckdb.DuckDBPyConnection, scripts: Sequence[Script] | None = None) -> list[str]:
    """Bring a database up to date and return the names of what was applied; nothing to do is the common, fast case.

    Raises InfrastructureError if an applied migration was edited, if the file comes from a newer Steelyard or is a
    published snapshot, or if a script fails; a failed script leaves no trace.
    """
    _refuse_snapshot(connection)
    if not is_warehouse(connection):
        _refuse_foreign(connection)
        connection.execute("BEGIN;" + _SCHEMA_VERSION + "COMMIT")
    applied = {
        name: (kind, checksum)
        for name, kind, checksum in connection.execute("SELECT name, kind, checksum FROM schema_version").fetchall()
    }
    wanted = migrations() if scripts is None else tuple(scripts)
    _check_history({name: checksum for name, (kind, checksum) in applied.items() if kind == "migration"}, wanted)
    done = []
    for script in wanted:
        if script.name not in applied:
            _apply(connection, script, "migration")
            done.append(script.name)
    views = Script(VIEWS.name, VIEWS.read_text(encoding="utf-8"))
    # A migration may have replaced a table or a column, so both repeatables follow every migration. Views come last:
    # their columns take the comments of the tables they show.
    for script in (comments(), views):
        if done or applied.get(script.name) != ("repeatable", script.checksum):
            _apply(connection, script, "repeatable", refresh_views=script.name == VIEWS.name)
            done.append(script.name)
    return done


def is_warehouse(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether a Steelyard made the open file: it then says which migrations it has had."""
    found = connection.execute(
        "SELECT 1 FROM duckdb_columns() WHERE table_name = 'schema_version' AND column_name = 'checksum' "
        "AND database_name = current_database()"
    )
    return bool(found.fetchall())


def _refuse_foreign(connection: duckdb.DuckDBPyConnection) -> None:
    """A file with tables of somebody else: nothing of ours may be put among them."""
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE NOT internal AND database_name = current_database() "
        "UNION SELECT view_name FROM duckdb_views() WHERE NOT internal AND database_name = current_database() "
        "ORDER BY 1"
    ).fetchall()
    if found:
        raise InfrastructureError(
            f"The file holds {', '.join(name for (name,) in found[:3])}{' ...' if len(found) > 3 else ''} and no "
            "warehouse of Steelyard: another program made it. Nothing was written to it.",
            remedy="Move it away, or point STEELYARD_HOME at another folder.",
        )


def _refuse_snapshot(connection: duckdb.DuckDBPyConnection) -> None:
    """What analysts read has views in place of its largest tables: a run could write nothing there."""
    found = connection.execute(
        "SELECT 1 FROM duckdb_views() WHERE view_name = ? AND database_name = current_database()", [RequestRow.TABLE]
    ).fetchall()
    if found:
        raise InfrastructureError(
            "The file is a published snapshot, whose raw rows lie in Parquet beside it, and no live warehouse. Nothing "
            "was written to it.",
            remedy="Move it away, and bring its runs in with `steelyard restore` and the folder it was published in.",
        )


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def _check_history(applied: dict[str, str], wanted: Sequence[Script]) -> None:
    known = {script.name: script.checksum for script in wanted}
    for name, checksum in sorted(applied.items()):
        if name not in known:
            raise InfrastructureError(
                f"The warehouse has migration {name}, which this Steelyard does not know: a newer one wrote the file.",
                remedy="Use the newer Steelyard, or point STEELYARD_HOME at another folder.",
            )
        if known[name] != checksum:
            raise InfrastructureError(
                f"Migration {name} was edited after it had been applied to this warehouse.",
                remedy="Restore the file from the release and put the change into a new migration.",
            )
    pending = [script.name for script in wanted if script.name not in applied]
    if applied and pending and min(pending) < max(applied):
        raise InfrastructureError(
            f"Migration {min(pending)} is new but comes before {max(applied)}, which is applied already.",
            remedy="Give the new migration the next free number; migrations only run forward.",
        )


def _apply(connection: duckdb.DuckDBPyConnection, script: Script, kind: str, *, refresh_views: bool = False) -> None:
    connection.execute("BEGIN")
    try:
        if refresh_views:
            _drop_views(connection)
        connection.execute(script.sql)
        if refresh_views:
            _inherit_comments(connection)
        connection.execute(
            "INSERT OR REPLACE INTO schema_version VALUES (?, ?, ?, ?)",
            [script.name, kind, script.checksum, datetime.now(UTC).replace(tzinfo=None)],
        )
        connection.execute("COMMIT")
    except duckdb.Error as error:
        connection.execute("ROLLBACK")
        raise InfrastructureError(
            f"{script.name} could not be applied to the warehouse: {_first_line(error)}",
            remedy="Nothing of it was kept. Restore the file from the release, or correct it if it is new.",
        ) from error


def _drop_views(connection: duckdb.DuckDBPyConnection) -> None:
    names = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    for (name,) in names:
        connection.execute(f'DROP VIEW IF EXISTS "{name}"')


def _inherit_comments(connection: duckdb.DuckDBPyConnection) -> None:
    """Give a view's uncommented columns the comment of the table column of that name, where tables agree on it."""
    meanings: dict[str, set[str]] = {}
    for row_class in ROWS:
        for column in columns(row_class):
            meanings.setdefault(column.name, set()).add(column.comment)
    bare = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL"
    ).fetchall()
    for table, column_name in bare:
        meaning = meanings.get(column_name, set())
        if len(meaning) == 1:
            connection.execute(f'COMMENT ON COLUMN {table}."{column_name}" IS {quoted(next(iter(meaning)))}')


def _first_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error).strip().splitlines()[0])
