"""Rows as somebody points at them: one table or view of a run, some columns given, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping

from steelyard.errors import InputError
from steelyard.records import ROWS
from steelyard.reports.rows_page import PAGE_ROWS, Column, Shown
from warehouse.schema import quoted
from warehouse.store import Store


def look(store: Store, table: str, given: Mapping[str, str | None], at: int = 0, limit: int = PAGE_ROWS) -> Shown:
    """Rows `at` .. of a table or view whose columns have the given values, each as text; None finds NULL.

    Raises InputError for a table or column that is not there, and for a text that is no value of its column.
    """
    meaning = tables(store).get(table)
    if meaning is None:
        raise InputError(f"There is no table {table}.", remedy="The data dictionary lists tables and views.")
    columns = _columns(store, table)
    known = {column.name: column for column in columns}
    for name, text in given.items():
        if name not in known:
            raise InputError(f"{table} has no column {name}.", remedy=f"It has {', '.join(known)}.")
        if text is not None and store.scalar(f"SELECT TRY_CAST($1 AS {known[name].type}) IS NULL", [text]):
            raise InputError(f"{text!r} is no {known[name].type}, which {table}.{name} is.", remedy="Follow a link.")
    where = " AND ".join(
        f'"{name}" IS NULL' if text is None else f'"{name}" = CAST(? AS {known[name].type})'
        for name, text in given.items()
    )
    key = next((each.KEY for each in ROWS if table == each.TABLE), ())
    # A view has no key, and pages of rows in no order would repeat some and leave out others.
    order = ", ".join(f'"{name}"' for name in key) or "ALL"
    source = f'FROM "{table}"' + (f" WHERE {where}" if where else "")
    values = [text for text in given.values() if text is not None]
    total = int(store.scalar(f"SELECT count(*) {source}", values))
    found = store.rows(f"SELECT * {source} ORDER BY {order} LIMIT {int(limit)} OFFSET {int(at)}", values)
    said = " AND ".join(
        f"{name} = {quoted(text)}" if text is not None else f"{name} IS NULL" for name, text in given.items()
    )
    sql = f"SELECT * FROM {table}" + (f" WHERE {said}" if said else "")
    return Shown(table, meaning, key, columns, tuple(found), total, max(0, at), sql)


def tables(store: Store) -> dict[str, str]:
    """Every table and view a reader finds, with what it holds."""
    found = store.rows(
        "SELECT table_name AS name, comment FROM duckdb_tables() WHERE NOT internal AND schema_name = 'main' "
        "UNION ALL SELECT view_name, comment FROM duckdb_views() WHERE NOT internal AND schema_name = 'main'"
    )
    return {row["name"]: row["comment"] or "" for row in found}


def _columns(store: Store, table: str) -> tuple[Column, ...]:
    found = store.rows(
        "SELECT column_name, data_type, comment FROM duckdb_columns() "
        "WHERE table_name = $1 AND schema_name = 'main' ORDER BY column_index",
        [table],
    )
    return tuple(Column(row["column_name"], row["data_type"], row["comment"] or "") for row in found)
