"""Data contracts: what every measured table must satisfy before anything is concluded from it.

Columns, types, required values, keys and row counts come from `steelyard.records`; the rules of each table are in
`warehouse.contract_rules`. Great Expectations evaluates them in an ephemeral context (no project folder, no
analytics, no progress bars). A contract guards a *table*; whether an arm is good is the gates' business.
"""

from __future__ import annotations

import functools
import math
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pandas as pd

from steelyard.errors import InputError
from steelyard.home import quiet
from steelyard.records import Row
from warehouse.contract_rules import ADDED, RULES, TABLES, Rule
from warehouse.schema import columns

EXAMPLES = 3
_LOCK = threading.Lock()

_PANDAS_TYPES: dict[Any, list[str]] = {
    str: ["str"],
    int: ["int", "int64", "int32"],
    float: ["float", "float64", "float32", "int", "int64"],
    bool: ["bool"],
    datetime: ["datetime64[us]", "datetime64[ns]", "datetime64[us, UTC]", "datetime64[ns, UTC]", "Timestamp"],
    date: ["date", "datetime64[s]", "datetime64[us]", "datetime64[ns]"],
    list[str]: ["list"],
    list[float]: ["list"],
}


@dataclass(frozen=True, slots=True)
class Contract:
    """What one table must satisfy: general rules from its record first, then its own."""

    table: str
    row_class: type[Row]
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractResult:
    """Outcome of one contract. `failures` are sentences: column, expectation, what was found, example rows."""

    success: bool
    table: str
    checked: int
    failures: list[str]


def _general(row_class: type[Row]) -> tuple[Rule, ...]:
    known = columns(row_class)
    key = list(row_class.KEY)
    rules = [Rule("ExpectTableRowCountToBeBetween", "at least one row", {"min_value": 1})]
    for column in known:
        kinds = {"column": column.name, "type_list": _PANDAS_TYPES[column.python_type]}
        rules.append(Rule("ExpectColumnValuesToBeInTypeList", f"only {column.duckdb_type} values", kinds))
        if not column.nullable:
            rules.append(Rule("ExpectColumnValuesToNotBeNull", "a value in every row", {"column": column.name}))
    once = f"each key ({', '.join(key)}) once"
    if len(key) == 1:
        rules.append(Rule("ExpectColumnValuesToBeUnique", once, {"column": key[0]}))
    else:
        rules.append(Rule("ExpectCompoundColumnsToBeUnique", once, {"column_list": key}))
    return tuple(rules)


CONTRACTS: dict[str, Contract] = {
    row_class.TABLE: Contract(row_class.TABLE, row_class, _general(row_class) + RULES[row_class.TABLE])
    for row_class in TABLES
}


def validate(table: str, frame: pd.DataFrame) -> ContractResult:
    """Hold a frame, as `Store.query` or `frame_of` gives it, against the contract of its table.

    An empty frame fails: no evidence is no good evidence. A frame with other columns fails for that alone, since
    nothing else could be read reliably. Raises InputError for a table without a contract.
    """
    contract = CONTRACTS.get(table)
    if contract is None:
        raise InputError(f"Table {table} has no contract.", remedy=f"Contracts exist for {', '.join(CONTRACTS)}.")
    expected = [column.name for column in columns(contract.row_class)]
    if sorted(map(str, frame.columns)) != sorted(expected):
        return ContractResult(
            success=False, table=table, checked=1, failures=[_wrong_columns(table, expected, list(frame.columns))]
        )
    if frame.empty:
        return ContractResult(success=False, table=table, checked=1, failures=[f"{table}: it has no row."])
    with _LOCK, warnings.catch_warnings():
        # Warnings of the validation library are about its own internals; what it finds is in the result.
        warnings.simplefilter("ignore")
        outcome = _validator(table)(_plain(frame, contract))
    failures = [_sentence(table, contract.row_class.KEY, result) for result in outcome.results if not result.success]
    return ContractResult(
        success=bool(outcome.success) and not failures, table=table, checked=len(outcome.results), failures=failures
    )


def frame_of(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows of one class as a frame `validate` takes, without a warehouse in between. Needs at least one row."""
    if not rows:
        raise InputError("There are no rows to make a frame of.", remedy="Validate only tables that were measured.")
    known = columns(type(rows[0]))
    return pd.DataFrame(
        {column.name: pd.Series([getattr(row, column.name) for row in rows], dtype=object) for column in known}
    )


def prepare() -> None:
    """Import Great Expectations, which takes two seconds, so that the first `validate` need not."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _context()


@functools.cache
def _context() -> Any:
    quiet()
    import great_expectations as gx
    import great_expectations.expectations
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


@functools.cache
def _validator(table: str) -> Any:
    """A function from a plain frame to a validation result. Cached: making suites costs more than using them."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    # The context comes first, because a suite asks the current one where it would be saved.
    context, contract = _context(), CONTRACTS[table]
    suite = gx.ExpectationSuite(name=table)
    for rule in contract.rules:
        when = {"row_condition": rule.when, "condition_parser": "pandas"} if rule.when else {}
        suite.add_expectation(getattr(gxe, rule.expectation)(**rule.arguments, **when, meta={"says": rule.says}))
    asset = context.data_sources.add_pandas(f"warehouse_{table}").add_dataframe_asset(table)
    batches = asset.add_batch_definition_whole_dataframe(table)
    shown = {
        "result_format": "COMPLETE",
        "unexpected_index_column_names": list(contract.row_class.KEY),
        "partial_unexpected_count": EXAMPLES,
    }
    return lambda frame: batches.get_batch({"dataframe": frame}).validate(suite, result_format=shown)


def _plain(frame: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """A copy with plain Python values where pandas has several ways to say the same, and the added columns."""
    plain = {}
    for column in columns(contract.row_class):
        series = frame[column.name]
        if column.python_type in (list[str], list[float]):
            series = pd.Series([_as_list(value) for value in series], dtype=object)
        elif column.python_type in (int, bool) or series.dtype == object:
            series = pd.Series([_as_python(value) for value in series], dtype=object)
        plain[column.name] = series.reset_index(drop=True)
    known = pd.DataFrame(plain)
    for name, add in ADDED.get(contract.table, {}).items():
        known[name] = add(known)
    # A copy lays equal columns side by side. Every expectation copies what it is given, and would do so each time.
    return known.copy()


def _as_list(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _as_python(value: Any) -> Any:
    if value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, datetime):
        return pd.Timestamp(value)
    return value.item() if hasattr(value, "item") else value


def _wrong_columns(table: str, expected: list[str], found: list[Any]) -> str:
    missing = [name for name in expected if name not in found]
    strange = [str(name) for name in found if name not in expected]
    parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(strange)}"] * bool(strange)
    return f"{table}: the frame {' and '.join(parts) or 'has a column twice'}; the contract names every column."


def _sentence(table: str, key: Sequence[str], result: Any) -> str:
    arguments: Mapping[str, Any] = result.expectation_config.kwargs
    names = [arguments[name] for name in ("column", "column_A", "column_B") if name in arguments]
    subject = f"{table}.{names[0]}" if names else table
    says = result.expectation_config.meta["says"]
    found: Mapping[str, Any] = result.result or {}
    if result.exception_info and not found:
        return f"{subject}: expected {says}; it could not be evaluated: {_exception(result.exception_info)}."
    if "unexpected_count" not in found:
        return f"{subject}: expected {says}; found {_observed(found)}."
    examples = [
        f"{', '.join(f'{name}={row[name]}' for name in key if name in row)}"
        f"{''.join(f' has {name} {_short(row[name])}' for name in names if name not in key and name in row)}"
        for row in found.get("partial_unexpected_index_list") or ()
    ]
    shown = f", such as {'; '.join(examples[:EXAMPLES])}" if examples else ""
    return f"{subject}: expected {says}; {found['unexpected_count']} of {found['element_count']} rows differ{shown}."


def _observed(found: Mapping[str, Any]) -> str:
    missing = found.get("partial_missing_list")
    return f"none of {', '.join(map(str, missing))}" if missing else str(found.get("observed_value"))


def _exception(info: Mapping[str, Any]) -> str:
    inner = info if "exception_message" in info else next(iter(info.values()))
    return str(inner["exception_message"]).strip().splitlines()[0][:200]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
