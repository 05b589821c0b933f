"""How rows get into tables within an open transaction: added, replaced by their key, or refused."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import duckdb
import pyarrow as pa

from steelyard.records import RAW, Row
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.records_trials import EngineMetricRow, RequestRow, TrialRow
from warehouse.rows import arrow_table

CHILDREN: dict[type[Row], tuple[tuple[type[Row], tuple[str, ...]], ...]] = {
    TrialRow: ((RequestRow, ("run_id", "trial_id")), (EngineMetricRow, ("run_id", "trial_id"))),
    SuiteRow: ((SampleRow, ("run_id", "arm", "suite")),),
}
"""Parent -> raw rows that come with it, and the columns that find them.

A parent written again with children of a kind replaces all it had of that kind, not only those whose key returns: a
trial repeated with fewer requests must not keep the tail of its first attempt.
"""
_PARENT = {child: (parent, key) for parent, children in CHILDREN.items() for child, key in children}


def insert(connection: duckdb.DuckDBPyConnection, row_class: type[Row], rows: Sequence[Row]) -> None:
    """Add rows of a class in the open transaction."""
    insert_table(connection, row_class, arrow_table(row_class, rows))


def insert_table(
    connection: duckdb.DuckDBPyConnection, row_class: type[Row], table: pa.Table | pa.RecordBatchReader
) -> None:
    """Add a table's rows to those of a class, column by name."""
    with _registered(connection, "incoming", table):
        connection.execute(f"INSERT INTO {row_class.TABLE} BY NAME SELECT * FROM incoming")


def insert_all(connection: duckdb.DuckDBPyConnection, groups: Mapping[type[Row], Sequence[Row]]) -> None:
    """Add rows of many classes; runs that get raw rows are revised."""
    for row_class, found in groups.items():
        insert(connection, row_class, found)
    revise(connection, {row.run_id for row_class in RAW for row in groups.get(row_class, ())})  # type: ignore[attr-defined]


def comes_with_parent(row_class: type[Row], groups: Mapping[type[Row], Sequence[Row]]) -> bool:
    """Whether every row of a class without an index has its trial or suite among what is written with it."""
    if row_class not in RAW:
        return True
    parent, key = _PARENT[row_class]
    known = {tuple(getattr(row, name) for name in key) for row in groups.get(parent, ())}
    return all(tuple(getattr(row, name) for name in key) in known for row in groups[row_class])


def found_by(row_class: type[Row]) -> tuple[str, ...]:
    """The columns that find a row: its key, and for raw rows the run, which spares reading all other nights."""
    return tuple(dict.fromkeys(("run_id", *row_class.KEY))) if row_class in RAW else row_class.KEY


def _same(row_class: type[Row], key: Sequence[str]) -> str:
    """The condition on which a row and one of `incoming_keys` agree."""
    return " AND ".join(f"{row_class.TABLE}.{name} = incoming_keys.{name}" for name in key)


def refuse_known(connection: duckdb.DuckDBPyConnection, row_class: type[Row], rows: Sequence[Row]) -> None:
    """Raise duckdb.ConstraintException if one of the rows is there: raw rows have no index that would."""
    key = found_by(row_class)
    same = _same(row_class, key)
    with _registered(connection, "incoming_keys", arrow_table(row_class, rows, only=key)):
        known = connection.execute(f"SELECT 1 FROM {row_class.TABLE} JOIN incoming_keys ON {same} LIMIT 1").fetchall()
    if known:
        raise duckdb.ConstraintException(f"a row of {row_class.TABLE} that was to be added is there already")


def revise(connection: duckdb.DuckDBPyConnection, run_ids: Iterable[str]) -> None:
    """Say in `revisions` that the raw rows of these runs are no longer what they were, in the open transaction."""
    for run_id in run_ids:
        # Random and not counted: a live file brought back from a backup must not repeat the name of another state.
        connection.execute("INSERT OR REPLACE INTO revisions VALUES (?, ?)", [run_id, secrets.token_hex(8)])


def delete(
    connection: duckdb.DuckDBPyConnection,
    target: type[Row],
    key: tuple[str, ...],
    row_class: type[Row],
    rows: Sequence[Row],
) -> None:
    """Delete from `target` what equals one of `rows` in the columns of `key`."""
    same = _same(target, key)
    with _registered(connection, "incoming_keys", arrow_table(row_class, rows, only=key)):
        connection.execute(f"DELETE FROM {target.TABLE} USING incoming_keys WHERE {same}")


@contextmanager
def _registered(
    connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table | pa.RecordBatchReader
) -> Iterator[None]:
    connection.register(name, table)
    try:
        yield
    finally:
        # In a transaction that an error has ended, which takes it back itself.
        with suppress(duckdb.TransactionException):
            connection.unregister(name)
