"""What every row is made of: columns with a meaning and a unit, a table and a key."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar


def col(meaning: str, unit: str | None = None) -> Any:
    """A column: what it means, and its unit where it has one."""
    return dataclasses.field(metadata={"meaning": meaning, "unit": unit})


def later(meaning: str, unit: str | None = None) -> Any:
    """A column that came after rows had been written: NULL in those, and the last of its table."""
    return dataclasses.field(default=None, metadata={"meaning": meaning, "unit": unit})


RUN = "Run of a study: one uninterrupted or resumed execution."
ARM = "Name of the arm in its study."
DOCUMENT = "sha256 of the document; in a suite of several tasks, under all but the first, of task and that."
DIGEST = (
    "Deployment digest: sha256 of weights, tokenizer, template, engine, resolved arguments and environment; it begins "
    "with imported- where another tool measured."
)


class Row:
    """Base of all rows. `TABLE` is the warehouse table, `KEY` what makes a row unique and writing idempotent."""

    TABLE: ClassVar[str]
    KEY: ClassVar[tuple[str, ...]]
    MEANING: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """The row by column name, values as they are (no deep copy)."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
