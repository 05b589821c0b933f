"""What the newest survey of a study expects of each lever, over the load points that are searched."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from steelyard.records_profile import OpportunityRow
from steelyard.tuning.levers import Pull


def predicted(pulls: Sequence[Pull], points: Sequence[str], rows: Sequence[OpportunityRow]) -> list[Pull]:
    """The levers with their predictions: geometric means over the load points. None where one of them has none."""
    return [dataclasses.replace(each, predicted=span_of(each.name, points, rows)) for each in pulls]


def span_of(name: str, points: Sequence[str], rows: Sequence[OpportunityRow]) -> tuple[float, float, float] | None:
    """One lever's prediction: low, middle, high; None where a load point lacks it."""
    # A survey tells a lever of the catalogue from a candidate of the same name in its own way.
    names = (name, name.removesuffix("-catalogue") + " (catalogue)" if name.endswith("-catalogue") else name)
    found = {row.load_point: row for row in rows if row.name in names}
    spans = [(row.low, row.predicted, row.high) for point in points if (row := found.get(point)) is not None]
    if len(spans) < len(points) or not spans or any(value is None for span in spans for value in span):
        return None
    low, middle, high = (
        math.exp(math.fsum(math.log(value) for value in values if value is not None) / len(spans))
        for values in zip(*spans, strict=True)
    )
    return low, middle, high
