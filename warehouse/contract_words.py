"""The words contracts are written in: a rule, and short ways to say the usual ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation of Great Expectations, by class name, and the words for it."""

    expectation: str
    says: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    when: str | None = None


def between(column: str, low: float | None, high: float | None, says: str, when: str | None = None) -> Rule:
    return Rule("ExpectColumnValuesToBeBetween", says, {"column": column, "min_value": low, "max_value": high}, when)


def at_least(low: float, *names: str) -> tuple[Rule, ...]:
    return tuple(between(name, low, None, f"at least {low:g}") for name in names)


def above_zero(*names: str) -> tuple[Rule, ...]:
    return tuple(
        Rule("ExpectColumnValuesToBeBetween", "more than 0", {"column": name, "min_value": 0, "strict_min": True})
        for name in names
    )


def share(*names: str) -> tuple[Rule, ...]:
    return tuple(between(name, 0, 1, "a value from 0 to 1") for name in names)


def one_of(column: str, *values: str) -> Rule:
    return Rule(
        "ExpectColumnValuesToBeInSet", f"one of {', '.join(values)}", {"column": column, "value_set": list(values)}
    )


def digest(*names: str) -> tuple[Rule, ...]:
    return tuple(
        Rule("ExpectColumnValuesToMatchRegex", "64 hex digits", {"column": name, "regex": "^[0-9a-f]{64}$"})
        for name in names
    )


def matches(column: str, regex: str, says: str) -> Rule:
    return Rule("ExpectColumnValuesToMatchRegex", says, {"column": column, "regex": regex})


def required(column: str, when: str, says: str) -> Rule:
    return Rule("ExpectColumnValuesToNotBeNull", says, {"column": column}, when)


def absent(column: str, when: str, says: str) -> Rule:
    return Rule("ExpectColumnValuesToBeNull", says, {"column": column}, when)


def not_less(larger: str, smaller: str) -> Rule:
    return Rule(
        "ExpectColumnPairValuesAToBeGreaterThanB",
        f"it not to be less than {smaller}",
        {"column_A": larger, "column_B": smaller, "or_equal": True, "ignore_row_if": "either_value_is_missing"},
    )


def sound(column: str, says: str) -> Rule:
    return Rule("ExpectColumnValuesToBeInSet", says, {"column": column, "value_set": [True]})


def length(column: str, most: int) -> Rule:
    arguments = {"column": column, "max_value": most}
    return Rule("ExpectColumnValueLengthsToBeBetween", f"at most {most} characters", arguments)


def each(predicate: Callable[..., bool], *names: str) -> Callable[[pd.DataFrame], pd.Series]:
    """A column that says whether `predicate` holds of the named columns, row by row; what it cannot read is unsound."""

    def sound(*values: Any) -> bool:
        try:
            return bool(predicate(*values))
        except TypeError:
            return False

    return lambda frame: pd.Series(
        [sound(*values) for values in zip(*(frame[name] for name in names), strict=True)], dtype=object
    )
