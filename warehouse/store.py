"""The store: the only owner of a write connection to the live warehouse.

DuckDB lets one process write or many read, never both, so the live file belongs to the process that measures; anyone
else reads the published snapshot (`warehouse.publish`). Every write is one short transaction that replaces rows by
their key: a killed run resumes, writes again, and neither loses what was committed nor doubles it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import duckdb
import pandas as pd
import pyarrow as pa

from steelyard.errors import InfrastructureError, InputError
from steelyard.home import published_path, snapshot_path, warehouse_path
from steelyard.records import RAW, ROWS, Row, StudyRow
from warehouse.rows import checked_table, grouped, in_row_groups, python_value
from warehouse.schema import columns, is_warehouse, migrate
from warehouse.snapshot import relocated
from warehouse.writing import (
    CHILDREN,
    comes_with_parent,
    delete,
    found_by,
    insert,
    insert_all,
    insert_table,
    refuse_known,
    revise,
)

RowT = TypeVar("RowT", bound=Row)

# One for all stores of the process: two connections to one file share its data, so their writes must not race.
_LOCK = threading.RLock()

# DuckDB would fetch an extension from the internet when a query names one; the warehouse never leaves the machine. It
# would also take most of the memory, which is the engines'.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "memory_limit": "2GB",
}
_LOADING = "1GB"


class Store:
    """An open warehouse. Use it as a context manager: the lock on the file is given back whatever happens."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self._connection = connection
        self._known: dict[str, set[str]] = {}
        self.path = path

    @classmethod
    def open(cls, path: Path | None = None) -> Self:
        """Open the live file for writing, making and migrating it as needed. Default: `STEELYARD_HOME`.

        Raises InfrastructureError if another process holds the file (its pid is named where DuckDB knows it), if the
        file is no warehouse, or if its schema comes from a newer or an edited Steelyard.
        """
        path = (path or warehouse_path()).resolve()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = duckdb.connect(path, config=_CONFIG)
        except (duckdb.Error, OSError) as error:
            raise _cannot_open(path, error) from error
        try:
            with _LOCK:
                migrate(connection)
        except BaseException:
            connection.close()
            raise
        return cls(connection, path)

    @classmethod
    def open_published(cls, path: Path | None = None) -> Self:
        """Open the published snapshot for reading, beside whoever writes. Raises InputError if there is none yet."""
        path = (path or snapshot_path()).resolve()
        if not path.is_file():
            raise InputError(f"There is no published warehouse {path}.", remedy="Run a study first.")
        try:
            connection = duckdb.connect(path, read_only=True, config=_CONFIG)
            ours = is_warehouse(connection)
            relocated(connection, path)
        except duckdb.Error as error:
            raise _cannot_open(path, error) from error
        if not ours:
            connection.close()
            raise InputError(
                f"{path} is a DuckDB file, but no published warehouse of Steelyard.",
                remedy="Name the `steelyard.duckdb` of a `published` folder or an export.",
            )
        return cls(connection, path)

    def close(self) -> None:
        """Give the file back. Closing twice is harmless."""
        with _LOCK:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, rows: Sequence[Row], *more: Sequence[Row]) -> int:
        """Write rows of any types in one transaction, replacing rows of the same key; return how many were written.

        A trial written together with requests or engine metrics, and a suite written with samples, replaces all of
        that kind it had before. Raises InfrastructureError, and writes nothing, if a value does not fit its column
        (NULL where one is required, NaN, a moment without a time zone) or two rows of the call share a key.
        """
        groups = grouped([*rows, *(row for each in more for row in each)])
        if not self._added(groups):
            with self.transaction() as connection:
                for row_class in groups:
                    for child, key in CHILDREN.get(row_class, ()):
                        if child in groups:
                            delete(connection, child, key, row_class, groups[row_class])
                for row_class, found in groups.items():
                    delete(connection, row_class, found_by(row_class), row_class, found)
                insert_all(connection, groups)
        return sum(len(found) for found in groups.values())

    def extend(self, row: Row, more: Sequence[Row]) -> None:
        """Write `row`, in place of one of the same key, and `more` beside what it has: a suite after one more window.

        One transaction. Raises InfrastructureError, and writes nothing, as `write` does, or if one of `more` is there.
        """
        groups = grouped([row, *more])
        if not self._added(groups):
            with self.transaction() as connection:
                delete(connection, type(row), row.KEY, type(row), [row])
                for row_class, found in groups.items():
                    if row_class in RAW:
                        refuse_known(connection, row_class, found)
                insert_all(connection, groups)

    def _added(self, groups: Mapping[type[Row], Sequence[Row]]) -> bool:
        """Insert what is all new; False, and nothing written, where a key is there already.

        Nearly every write is of this kind, and looking for rows to delete reads whole tables: a trial would take the
        longer, the more nights there were. Raw rows have no index that could tell; a new parent has none to delete.
        """
        if not all(comes_with_parent(row_class, groups) for row_class in groups):
            return False
        try:
            with self.transaction() as connection:
                insert_all(connection, groups)
        except InfrastructureError as error:
            if isinstance(error.__cause__, duckdb.ConstraintException):
                return False
            raise
        return True

    def replace_run(self, run_id: str, row_class: type[Row], rows: Sequence[Row]) -> int:
        """Make `rows` all that a run has in one table, in one transaction: for tables derived from others.

        No rows empties the run's part of the table. Raises InputError for a row of another class or run.
        """
        for row in rows:
            if type(row) is not row_class or getattr(row, "run_id", None) != run_id:
                raise InputError(
                    f"A {type(row).__name__} of run {getattr(row, 'run_id', None)} was given to replace the "
                    f"{row_class.TABLE} of run {run_id}.",
                    remedy="Replace one table of one run at a time.",
                )
        groups = grouped(rows)
        with self.transaction() as connection:
            connection.execute(f"DELETE FROM {row_class.TABLE} WHERE run_id = ?", [run_id])
            if row_class in groups:
                insert(connection, row_class, groups[row_class])
            if row_class in RAW:
                revise(connection, {run_id})
        return len(rows)

    def load(self, runs: Mapping[str, Mapping[type[Row], pa.Table]], *, instead: Collection[str] = ()) -> int:
        """Add runs whose rows are columns already, such as those exported from another warehouse; how many rows.

        One transaction for all given. Runs of `instead` take the place of all that is there of them. Raises InputError
        if another run is there already or a table is not what its records say (columns, types, NULL, NaN, another
        run's rows, a key twice), and writes nothing then.
        """
        known = {run_id for (run_id,) in self._fetch("SELECT run_id FROM studies", [])}
        checked: dict[type[Row], list[pa.Table]] = {}
        for run_id, tables in runs.items():
            if run_id in known and run_id not in instead:
                raise InputError(f"Run {run_id} is in the warehouse already.", remedy="A run is loaded once.")
            for row_class, table in tables.items():
                checked.setdefault(row_class, []).append(checked_table(row_class, table, run_id))
        with self.transaction() as connection:
            if instead:
                for row_class in ROWS:
                    connection.execute(f"DELETE FROM {row_class.TABLE} WHERE run_id IN ?", [list(instead)])
            for row_class, found in checked.items():
                insert_table(connection, row_class, in_row_groups(found))
            raw = {run_id for run_id, tables in runs.items() if any(each in RAW for each in tables)}
            revise(connection, sorted(raw.union(instead)))
        return sum(table.num_rows for found in checked.values() for table in found)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While millions of rows are loaded: fewer checkpoints, since each writes the end of every table anew."""
        with _LOCK:
            self._connection.execute(f"SET checkpoint_threshold = '{_LOADING}'")
        try:
            yield
        finally:
            with _LOCK:
                self._connection.execute("RESET checkpoint_threshold")
        try:
            with _LOCK:
                self._connection.execute("CHECKPOINT")
        except duckdb.Error as error:
            raise _refused(error) from error

    def read(self, row_class: type[RowT], *, one_per: Sequence[str] = (), **equals: Any) -> list[RowT]:
        """Rows whose columns equal the given values (None finds NULL), ordered by key, equal to those written.

        Of rows that agree in the columns `one_per`, where there are any, only the first.
        """
        known = columns(row_class)
        names = [column.name for column in known]
        for name in (*equals, *one_per):
            if name not in names:
                raise InputError(
                    f"Table {row_class.TABLE} has no column {name}.", remedy=f"It has {', '.join(names)}.", field=name
                )
        where = " AND ".join(f"{name} IS NOT DISTINCT FROM ?" for name in equals) or "true"
        there = self._columns_there(row_class.TABLE)
        if not there:
            return []
        # A snapshot that an older Steelyard published lacks tables and columns that came later: unknown there.
        select = [c.name if c.name in there or not c.nullable else f"NULL AS {c.name}" for c in known]
        what = f"DISTINCT ON ({', '.join(one_per)}) " * bool(one_per) + ", ".join(select)
        sql = f"SELECT {what} FROM {row_class.TABLE} WHERE {where} ORDER BY {', '.join(row_class.KEY)}"
        found = self._fetch(sql, [_parameter(value) for value in equals.values()])
        return [
            row_class(**{column.name: python_value(column, value) for column, value in zip(known, row, strict=True)})
            for row in found
        ]

    def query(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> pd.DataFrame:
        """The result of one SELECT as a frame; moments are naive UTC. Raises InputError for anything but a SELECT."""
        with self._reading(sql, params) as result:
            return result.df()

    def rows(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """The result of one SELECT as Python values by column, NULL as None. Raises as `query` does."""
        with self._reading(sql, params) as result:
            names = [each[0] for each in result.description or []]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def table(self, sql: str) -> pa.Table:
        """The result of one SELECT as Arrow, every type as DuckDB has it. Raises InputError for anything else."""
        with self._asking(sql):
            return self._connection.sql(sql).to_arrow_table()

    def scalar(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """First column of the first row of one SELECT; None if there is no row."""
        with self._reading(sql, params) as result:
            row = result.fetchone()
        return row[0] if row else None

    def done_trials(self, run_id: str) -> set[str]:
        """Ids of the trials a run has stored, valid or not: what a resumed run need not repeat."""
        return {trial for (trial,) in self._fetch("SELECT trial_id FROM trials WHERE run_id = ?", [run_id])}

    def done_suites(self, run_id: str) -> set[tuple[str, str]]:
        """(arm, suite) pairs a run has stored complete."""
        return set(self._fetch("SELECT arm, suite FROM suites WHERE run_id = ?", [run_id]))

    def latest_start(self) -> tuple[str, datetime] | None:
        """Of the runs that could count as the newest: the one that began last, and when (UTC); None without one."""
        found = self._fetch(
            "SELECT run_id, started_at FROM studies WHERE status IN ('running', 'complete') "
            "ORDER BY started_at DESC LIMIT 1",
            [],
        )
        return (found[0][0], found[0][1].replace(tzinfo=UTC)) if found else None

    def unfinished_run(self, study: str, study_digest: str) -> StudyRow | None:
        """The newest run of exactly this study that never ended, to resume; None if there is none."""
        found = self.read(StudyRow, study=study, study_digest=study_digest, status="running")
        return max(found, key=lambda row: row.started_at, default=None)

    @contextmanager
    def exclusive(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The connection itself, nobody else using it meanwhile: for what is no row, such as publishing."""
        with _LOCK:
            yield self._connection

    def _columns_there(self, table: str) -> set[str]:
        if table not in self._known:
            found = self._fetch("SELECT column_name FROM duckdb_columns() WHERE table_name = ?", [table])
            self._known[table] = {name for (name,) in found}
        return self._known[table]

    def _fetch(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._reading(sql, params) as result:
            return result.fetchall()

    @contextmanager
    def _reading(self, sql: str, params: Sequence[Any] | Mapping[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._asking(sql):
            yield self._connection.execute(sql, params or None)

    @contextmanager
    def _asking(self, sql: str) -> Iterator[None]:
        """Around the execution of one SELECT: what is none is refused, and errors are told as ours."""
        with _LOCK:
            try:
                statements = self._connection.extract_statements(sql)
                if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                    raise InputError("A query must be one SELECT.", remedy="Rows are written by write or replace_run.")
                yield
            except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException) as error:
                raise InputError(
                    f"The query cannot be understood: {str(error).strip()}",
                    remedy="docs/reference/data-dictionary.md lists every table, view and column.",
                ) from error
            except duckdb.Error as error:
                raise InfrastructureError(
                    f"The warehouse could not answer: {str(error).strip()}",
                    remedy="docs/reference/data-dictionary.md lists every table, view and column.",
                ) from error

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The connection in a transaction, for what is no writing of rows; all of it or nothing.

        Raises InfrastructureError if DuckDB refuses.
        """
        with _LOCK:
            try:
                self._connection.execute("BEGIN")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                _roll_back(self._connection)
                if isinstance(error, duckdb.Error):
                    raise _refused(error) from error
                raise


def _refused(error: duckdb.Error) -> InfrastructureError:
    return InfrastructureError(
        f"The warehouse refused a write and kept nothing of it: {str(error).strip()}",
        remedy="Check the space left on the disk and the values named; then run again, it resumes.",
    )


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:
        # BEGIN or COMMIT itself failed, so no transaction is open; the first error is the one to tell.
        return


def _parameter(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def _cannot_open(path: Path, error: Exception) -> InfrastructureError:
    text = " ".join(str(error).split())
    if "lock" in text and (holder := re.search(r"held in (?P<program>.+?) \(PID (?P<pid>\d+)\)", text)):
        return InfrastructureError(
            f"Another process has the warehouse {path} open: pid {holder['pid']} ({holder['program']}).",
            remedy=f"Wait until it ends or close it. To read, open {snapshot_path()} read-only.",
        )
    if "lock" in text or "different configuration" in text:
        return InfrastructureError(
            f"The warehouse {path} is open elsewhere: {text}",
            remedy=f"Wait until it ends or close it. To read, open {snapshot_path()} read-only.",
        )
    return InfrastructureError(
        f"The warehouse {path} could not be opened: {text}",
        remedy="Check the path, its permissions and the space on the disk; of a damaged file, `steelyard "
        f"restore {published_path()}` into a new STEELYARD_HOME brings back what was published.",
    )
