"""What gates have proven of a gain: the bound, not the estimate."""

from __future__ import annotations

from collections.abc import Iterable

from steelyard.records import GateRow


def most_proven(rows: Iterable[GateRow]) -> float:
    """The largest ratio that one of the rows proved, where more is better; 0 without any."""
    found = [row.low if row.bound_kind == "at_least" else 1 / row.high if row.high else None for row in rows]
    return max((each for each in found if each is not None), default=0.0)
