"""How good the predictions were: each beside what was measured afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.records import ComparisonRow
from steelyard.records_profile import OpportunityRow
from steelyard.stats.quantiles import quantile

METRIC = "output_tokens_per_s"


def best_of_each(opportunities: Sequence[OpportunityRow]) -> list[OpportunityRow]:
    """One row of each lever, by rank: at the load point where it promises most."""
    best: dict[str, OpportunityRow] = {}
    for row in sorted(opportunities, key=lambda row: (row.rank, -(row.predicted or 0.0), row.load_point)):
        best.setdefault(row.name, row)
    return list(best.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A prediction and its comparison. `error` is measured over predicted, less one; `inside` whether what was measured
    lies in the predicted interval, `meets` whether the two intervals have a value in common.
    """

    row: OpportunityRow
    comparison: ComparisonRow
    error: float
    inside: bool
    meets: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of all predictions of a run that were measured: how many, how many inside and met, the median size of the error
    (of the logarithm, as a share), and its mean with sign: above 0 means that levers brought more than predicted.
    """

    pairs: tuple[Scored, ...]
    inside: int
    met: int
    typical_error: float | None
    bias: float | None


def score(opportunities: Sequence[OpportunityRow], comparisons: Sequence[ComparisonRow]) -> Score:
    """Predictions held against the comparisons of output tokens/s of the same run, arm and load point."""
    measured = {
        (row.run_id, row.arm, row.scope): row
        for row in comparisons
        if row.metric == METRIC and row.estimate is not None and row.estimate > 0
    }
    pairs = []
    for row in opportunities:
        found = measured.get((row.run_id, row.tried_by or "", row.load_point))
        if row.predicted is None or row.low is None or row.high is None or found is None or found.estimate is None:
            continue
        low = found.low if found.low is not None else found.estimate
        high = found.high if found.high is not None else found.estimate
        pairs.append(
            Scored(
                row=row, comparison=found, error=found.estimate / row.predicted - 1,
                inside=row.low <= found.estimate <= row.high, meets=low <= row.high and row.low <= high,
            )
        )  # fmt: skip
    logs = [math.log1p(each.error) for each in pairs]
    typical = quantile([abs(each) for each in logs], 0.5)
    return Score(
        pairs=tuple(pairs), inside=sum(each.inside for each in pairs), met=sum(each.meets for each in pairs),
        typical_error=None if typical is None else math.expm1(typical),
        bias=math.expm1(math.fsum(logs) / len(logs)) if logs else None,
    )  # fmt: skip
