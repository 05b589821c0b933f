"""Rows to Arrow and back. Everything a column may not hold is refused here, by name, before a transaction sees it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from steelyard.errors import InfrastructureError, InputError
from steelyard.records import Row
from warehouse.schema import Column, columns

ROW_GROUP = 122_880
"""Rows that DuckDB stores together, its default."""


def grouped(rows: Sequence[Row]) -> dict[type[Row], list[Row]]:
    """Rows by their class, in order. Raises InfrastructureError if two rows of a class share a key.

    The last of two would silently win otherwise, and a pair that is compared later would have lost its partner.
    """
    groups: dict[type[Row], list[Row]] = {}
    for row in rows:
        groups.setdefault(type(row), []).append(row)
    for row_class, found in groups.items():
        seen: set[tuple[Any, ...]] = set()
        for row in found:
            key = tuple(getattr(row, name) for name in row_class.KEY)
            if key in seen:
                raise InfrastructureError(
                    f"Two rows for {row_class.TABLE} have the same key {dict(zip(row_class.KEY, key, strict=True))}.",
                    remedy="Nothing was written. What makes the rows must make each of them once.",
                )
            seen.add(key)
    return groups


def arrow_table(row_class: type[Row], rows: Sequence[Row], *, only: Sequence[str] | None = None) -> pa.Table:
    """Rows as an Arrow table with exactly the column types of the warehouse; `only` names the columns wanted."""
    wanted = [column for column in columns(row_class) if only is None or column.name in only]
    return pa.table({column.name: _array(row_class, column, rows) for column in wanted})


def checked_table(row_class: type[Row], table: pa.Table, run_id: str) -> pa.Table:
    """A table of one run from elsewhere, with exactly the columns and types of the warehouse.

    Columns that came later than the file are NULL. Raises InputError for what the warehouse would not hold: a column it
    does not know, NULL where a value is required, NaN, rows of another run, or a key twice.
    """
    known = {column.name: column for column in columns(row_class)}
    if strange := [name for name in table.column_names if name not in known]:
        raise _unloadable(row_class, f"has a column {strange[0]}, which this Steelyard does not know")
    arrays = {}
    for name, column in known.items():
        if name in table.column_names:
            try:
                arrays[name] = table[name].cast(column.arrow_type)
            except (pa.ArrowException, TypeError) as error:
                raise _unloadable(row_class, f"{name} is no {column.duckdb_type}: {error}") from error
        else:
            arrays[name] = pa.chunked_array([pa.nulls(table.num_rows, column.arrow_type)])
        if not column.nullable and arrays[name].null_count:
            raise _unloadable(row_class, f"{name} is NULL, but every row needs a value")
        floats = pc.list_flatten(arrays[name]) if pa.types.is_list(column.arrow_type) else arrays[name]
        if pa.types.is_floating(floats.type) and pc.all(pc.is_finite(floats)).as_py() is False:
            raise _unloadable(row_class, f"{name} is NaN or infinite; unknown is NULL")
    found = pa.table(arrays)
    if "run_id" in known and pc.all(pc.equal(found["run_id"], run_id)).as_py() is False:
        raise _unloadable(row_class, f"has rows of another run than {run_id}")
    if found.select(list(row_class.KEY)).group_by(list(row_class.KEY)).aggregate([]).num_rows < found.num_rows:
        raise _unloadable(row_class, f"has a key ({', '.join(row_class.KEY)}) twice")
    return found


def in_row_groups(tables: Sequence[pa.Table]) -> pa.RecordBatchReader:
    """Tables as one, in pieces of the size in which DuckDB stores rows: its threads then need not wait for each other
    to keep the order, which makes an insert almost twice as fast. Read once; a piece is put together when it is asked
    for, so that the rows are never in memory twice.
    """
    whole = pa.concat_tables(tables)
    pieces = (whole.slice(start, ROW_GROUP).combine_chunks() for start in range(0, whole.num_rows, ROW_GROUP))
    return pa.RecordBatchReader.from_batches(whole.schema, (batch for each in pieces for batch in each.to_batches()))


def _unloadable(row_class: type[Row], what: str) -> InputError:
    return InputError(
        f"Table {row_class.TABLE} {what}.", remedy="Nothing was written. Load what a Steelyard exported, unchanged."
    )


def python_value(column: Column, value: Any) -> Any:
    """A value as DuckDB returns it, as the record holds it: moments aware, in UTC."""
    if column.python_type is datetime and value is not None:
        return value.replace(tzinfo=UTC)
    return value


def _array(row_class: type[Row], column: Column, rows: Sequence[Row]) -> pa.Array:
    where = f"{row_class.TABLE}.{column.name}"
    values = [getattr(row, column.name) for row in rows]
    if not column.nullable and any(value is None for value in values):
        raise _refused(where, "NULL, but every row needs a value")
    if column.python_type is datetime:
        values = [_utc(where, value) for value in values]
    if column.python_type is int and any(isinstance(value, float) and not value.is_integer() for value in values):
        # Arrow would cut the fraction off without a word.
        raise _refused(where, "a value that is no BIGINT: it has a fraction")
    try:
        array = pa.array(values, column.arrow_type)
    except (pa.ArrowException, TypeError, OverflowError, UnicodeError) as error:
        raise _refused(where, f"a value that is no {column.duckdb_type}: {' '.join(str(error).split())}") from error
    floats = pc.list_flatten(array) if pa.types.is_list(array.type) else array
    if pa.types.is_floating(floats.type) and pc.all(pc.is_finite(floats)).as_py() is False:
        raise _refused(where, "NaN or infinity; unknown is None")
    return array


def _utc(where: str, value: Any) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise _refused(where, f"{value!r}, which is no moment with a time zone")
    return value.astimezone(UTC).replace(tzinfo=None)


def _refused(where: str, what: str) -> InfrastructureError:
    return InfrastructureError(
        f"{where} was given {what}.",
        remedy="Nothing was written. Correct what makes the row; records.py is the contract.",
    )
