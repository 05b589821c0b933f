"""A value of a JSON document as an importer asks for it: of the right type and range, or an error with its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steelyard.errors import InputError
from steelyard.importers.json_source import Document, Loc

MOST = 2**63 - 1
HUGE = 1e19
"""Beyond any count and any clock in nanoseconds: sums of what is smaller stay finite."""
UNCHANGED = "Give the file as the tool wrote it."


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a document and the path that leads to it. What is null counts as absent: unknown, never 0."""

    document: Document
    loc: Loc
    data: Any

    @classmethod
    def root(cls, document: Document) -> Field:
        """The document itself, which must be an object."""
        field = cls(document, (), document.data)
        if not isinstance(document.data, dict):
            raise field.wrong("an object")
        return field

    def problem(self, message: str, remedy: str = UNCHANGED) -> InputError:
        """An error at this value."""
        return self.document.problem(message, remedy, self.loc)

    def wrong(self, expected: str) -> InputError:
        """The error for a value of another type."""
        return self.problem(f"must be {expected}, and is {kind(self.data)}.")

    def get(self, *names: str) -> Field | None:
        """The member at a path of names; None where it, or anything on the way, is absent or null."""
        here = self
        for name in names:
            if not isinstance(here.data, dict):
                raise here.wrong("an object")
            value = here.data.get(name)
            if value is None:
                return None
            here = Field(here.document, (*here.loc, name), value)
        return here

    def need(self, *names: str, remedy: str = UNCHANGED) -> Field:
        """The member at a path of names. InputError if it is absent or null."""
        found = self.get(*names)
        if found is None:
            raise self.document.problem("is missing.", remedy, (*self.loc, *names))
        return found

    def number(self, least: float | None = 0.0) -> float:
        """A finite number, not below `least` (None: any)."""
        if isinstance(self.data, bool) or not isinstance(self.data, (int, float)):
            raise self.wrong("a number")
        try:
            value = float(self.data)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise self.problem(f"must be a finite number, and is {'NaN' if math.isnan(value) else 'infinite'}.")
        if abs(value) > HUGE:
            raise self.problem(f"is {value:g}, which nothing here can be.")
        if least is not None and value < least:
            raise self.problem(f"is {value:g}, less than {least:g}.")
        return value

    def integer(self, least: int = 0) -> int:
        """A whole number from `least` on; 3.0 counts as 3, as some writers have only floats."""
        value = self.number(None)
        if not value.is_integer():
            raise self.problem(f"must be a whole number, and is {value:g}.")
        exact = int(self.data)
        if not least <= exact <= MOST:
            raise self.problem(f"is {exact:.6g}, outside of {least} to 2^63.")
        return exact

    def string(self) -> str:
        """A text."""
        if not isinstance(self.data, str):
            raise self.wrong("a text")
        return self.data

    def items(self) -> list[Field]:
        """The entries of a list, null ones included."""
        if not isinstance(self.data, list):
            raise self.wrong("a list")
        return [Field(self.document, (*self.loc, n), value) for n, value in enumerate(self.data)]

    def members(self) -> dict[str, Field]:
        """The members of an object, those that are null left out."""
        if not isinstance(self.data, dict):
            raise self.wrong("an object")
        return {name: found for name in self.data if (found := self.get(name)) is not None}

    def numbers(self, least: float = 0.0) -> list[float]:
        """A list of finite numbers."""
        values = self.data
        if isinstance(values, list) and all(type(value) is float and least <= value <= HUGE for value in values):
            # The common case of millions of token times, without an object for each.
            return list(values)
        return [item.number(least) for item in self.items()]


def number_at(root: Field, *names: str, least: float | None = 0.0) -> float | None:
    """The number at a path; None where it is absent."""
    found = root.get(*names)
    return None if found is None else found.number(least)


def integer_at(root: Field, *names: str) -> int | None:
    """The whole number at a path; None where it is absent."""
    found = root.get(*names)
    return None if found is None else found.integer()


def text_at(root: Field, *names: str) -> str | None:
    """The text at a path; None where it is absent or empty."""
    found = root.get(*names)
    return None if found is None else found.string() or None


def first_text(root: Field, *paths: Sequence[str]) -> str | None:
    """The first of several places that holds a text; the others may be anything or absent."""
    for path in paths:
        here: Any = root.data
        for name in path:
            here = here.get(name) if isinstance(here, dict) else None
        if isinstance(here, str) and here.strip():
            return here
    return None


def kind(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return f'the text "{value[:40]}"'
    return "a list" if isinstance(value, list) else "an object"
