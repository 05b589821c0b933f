"""Stored rows beside recomputed ones: every value that is not the same bit for bit, named."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from steelyard.records import Row

ABSENT = "no row"
PRESENT = "a row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One stored value that its evidence does not give.

    `key` names the row by the columns that make it unique, the run left out. `column` is None where the whole row is
    missing, surplus or doubled; `stored` and `recomputed` then say how often it is there.
    """

    table: str
    key: str
    column: str | None
    stored: Any
    recomputed: Any

    def __str__(self) -> str:
        what = f"{self.table}, {self.key}: "
        if self.column is not None:
            return f"{what}{self.column} {_beside(self.stored, self.recomputed)}."
        if self.stored == ABSENT:
            return f"{what}the row is not stored, though its evidence is."
        if self.recomputed == ABSENT:
            return f"{what}the row is stored, but nothing stored gives it."
        return f"{what}{self.stored} are stored, recomputed {self.recomputed}."


@dataclass(slots=True, kw_only=True)
class Recomputed:
    """What became of recomputing a run.

    `rows` and `values` count, by table, what was compared; `as_stored` names the columns of these tables that no other
    stored row gives, so they were taken as they are. `notes` say what could not be recomputed at all, and why.
    """

    run_id: str
    rows: dict[str, int] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    as_stored: dict[str, tuple[str, ...]] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def compare(
        self, table: type[Row], again: Sequence[Row], stored: Sequence[Row], *, skip: Collection[str] = (),
        whole: bool = True,
    ) -> None:  # fmt: skip
        """Hold the stored rows of a table against the recomputed ones, column by column.

        Columns in `skip` are taken as stored. A column that came with a later Steelyard and is unknown in every stored
        row was not recorded then: it is not compared, and a note says so. Unless the table is `whole`, because the run
        never came that far, a row that is not stored is no difference. Key columns are compared by finding the row.
        """
        names = [each.name for each in dataclasses.fields(table)]  # type: ignore[arg-type]
        columns = [name for name in names if name not in skip]
        unrecorded = _unrecorded(table, columns, again, stored)
        if unrecorded:
            self.notes.append(
                f"{table.TABLE}: {', '.join(unrecorded)} not compared: unknown in the whole run, as in older rows."
            )
        compared = [name for name in columns if name not in table.KEY and name not in unrecorded]
        fresh = {_key(row): row for row in again}
        kept = {_key(row): row for row in stored}
        for key in sorted(fresh.keys() | kept.keys(), key=str):
            if key not in kept:
                if whole:
                    self.differ(fresh[key], None, ABSENT, PRESENT)
                continue
            if key not in fresh:
                self.differ(kept[key], None, PRESENT, ABSENT)
                continue
            for name in compared:
                then, now = getattr(kept[key], name), getattr(fresh[key], name)
                if not same(then, now):
                    self.differ(kept[key], name, then, now)
        self.once(stored)
        self.rows[table.TABLE] = self.rows.get(table.TABLE, 0) + len(stored)
        self.values[table.TABLE] = self.values.get(table.TABLE, 0) + len(compared) * len(fresh.keys() & kept.keys())
        self.as_stored[table.TABLE] = tuple(name for name in names if name in skip)

    def once(self, stored: Iterable[Row]) -> None:
        """Note every row of a table whose key stands more than once."""
        first: dict[tuple[Any, ...], Row] = {}
        times = Counter(_key(first.setdefault(_key(row), row)) for row in stored)
        for key, count in times.items():
            if count > 1:
                self.differ(first[key], None, f"{count} rows", "1 row")

    def differ(self, row: Row, column: str | None, stored: Any, recomputed: Any) -> None:
        """Note one difference of a row."""
        self.differences.append(
            Difference(table=row.TABLE, key=key_text(row), column=column, stored=stored, recomputed=recomputed)
        )


def skipped_blocks(places: Iterable[tuple[str, str, int]], what: str) -> list[str]:
    """Blocks that an arm skipped, from the (arm, place, block) it measured; `what` names a place.

    An arm that stops early has the first blocks, so one in between was lost.
    """
    blocks: dict[tuple[str, str], set[int]] = defaultdict(set)
    for arm, place, block in places:
        blocks[arm, place].add(block)
    return [
        f"arm {arm}, {what} {place}, block {block}"
        for (arm, place), seen in sorted(blocks.items())
        for block in sorted(set(range(max(seen))) - seen)
    ]


def _unrecorded(table: type[Row], columns: Collection[str], again: Sequence[Row], stored: Sequence[Row]) -> list[str]:
    later = [each.name for each in dataclasses.fields(table) if each.default is None]  # type: ignore[arg-type]
    return [
        name
        for name in later
        if name in columns
        and stored
        and all(getattr(row, name) is None for row in stored)
        and any(getattr(row, name) is not None for row in again)
    ]


def key_text(row: Row) -> str:
    """`arm int8, scope chat@c8`: what makes the row unique within its run."""
    names = [name for name in row.KEY if name != "run_id"] or ["run_id"]
    return ", ".join(f"{name} {getattr(row, name)}" for name in names)


def same(stored: Any, recomputed: Any) -> bool:
    """Equal to the last bit; unknown equals unknown only."""
    if isinstance(stored, list | tuple) and isinstance(recomputed, list | tuple):
        return len(stored) == len(recomputed) and all(map(same, stored, recomputed))
    return bool(stored == recomputed)


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in row.KEY)


def _beside(stored: Any, recomputed: Any) -> str:
    """Both values; of two lists the first entry that differs, of two numbers how far apart they are."""
    if isinstance(stored, list) and isinstance(recomputed, list):
        shared = min(len(stored), len(recomputed))
        at = next((i for i in range(shared) if not same(stored[i], recomputed[i])), shared)
        first, second = (_shown(side[at]) if at < len(side) else "nothing" for side in (stored, recomputed))
        return f"differs from entry {at + 1} on: stored {first}, recomputed {second}"
    apart = ""
    if isinstance(stored, float) and isinstance(recomputed, float):
        apart = f" (apart by {abs(stored - recomputed) / max(abs(stored), abs(recomputed)):.1e} of it)"
    return f"is stored as {_shown(stored)}, recomputed {_shown(recomputed)}{apart}"


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    return repr(value) if isinstance(value, str) else str(value)
