"""Drift over the nights: whether a promoted gain, a guarded quality, the baseline or the machine's noise changed level.

A night's verdict asks whether the arm still clears its bounds; it does not see that a gain of 1.8 became 1.4, nor that
the baseline itself is a tenth slower since Tuesday. Each figure is followed over the complete nights in which arm and
baseline were the same deployments as in the newest one: another deployment is another figure, and ends the verdict
anyway (`steelyard.gates.expiry`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from steelyard.gates.policy import LESS_IS_BETTER
from steelyard.stats.change_points import change_points

FAMILY_ERROR = 0.05
"""Probability of any false change among all figures looked at together (Bonferroni)."""
MAX_P = 0.001
"""And of a single one at most."""

FIGURES = """
    SELECT studies.study, studies.run_id, studies.started_at, comparisons.arm, arms.role, comparisons.metric,
        comparisons.scope, comparisons.kind, comparisons.estimate, comparisons.low, comparisons.high,
        comparisons.baseline_value, arms.deployment_digest AS deployment, baselines.deployment_digest AS baseline
    FROM comparisons
    JOIN studies ON studies.run_id = comparisons.run_id AND studies.status = 'complete'
    JOIN arms ON arms.run_id = comparisons.run_id AND arms.arm = comparisons.arm
    JOIN arms AS baselines ON baselines.run_id = comparisons.run_id AND baselines.role = 'baseline'
    WHERE (arms.role = 'identity' OR (studies.study, comparisons.arm) IN (SELECT study, arm FROM promotions))
        AND (CAST($1 AS VARCHAR) IS NULL OR studies.study = $1)
    ORDER BY studies.started_at, studies.run_id
"""
"""Every comparison that is followed, oldest night first: of arms once promoted, and of the identity control."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A figure that changed its level between two nights.

    `what` is gain (an arm's comparison), baseline (its own value) or noise (half the width of the identity control's
    interval, as a share). Of gains and baselines that are ratios or rates `before` and `after` are geometric means.
    `nights` counts those since the change, the first with the new level included.
    """

    study: str
    arm: str
    what: str
    metric: str
    scope: str
    run_id: str
    night: datetime
    before: float
    after: float
    worse: bool
    nights: int
    p_value: float

    @property
    def name(self) -> str:
        """The figure, for people."""
        return {"gain": f"{self.metric} of {self.arm}", "baseline": f"{self.metric} of the baseline"}.get(
            self.what, f"noise of {self.metric}"
        ) + f" at {self.scope}"


@dataclass(frozen=True, slots=True)
class _Point:
    run_id: str
    night: datetime
    value: float


def drifts(figures: Iterable[Mapping[Any, Any]]) -> list[Drift]:
    """Every change of level among the rows of `FIGURES`, the newest first, then by how certain it is."""
    series = _series(figures)
    max_p = min(MAX_P, FAMILY_ERROR / max(1, len(series)))
    found = [
        _drift(key, points, change, logarithmic=logarithmic)
        for (key, logarithmic), points in series.items()
        for change in change_points([point.value for point in points], max_p=max_p)
    ]
    return sorted(found, key=lambda each: (-each.night.timestamp(), each.p_value, each.name))


_Key = tuple[str, str, str, str, str]


def _series(figures: Iterable[Mapping[Any, Any]]) -> dict[tuple[_Key, bool], list[_Point]]:
    """Values by figure (and whether they are logarithms), of nights with the deployments of its newest night."""
    rows: dict[tuple[str, str, str, str], list[Mapping[Any, Any]]] = defaultdict(list)
    for row in figures:
        rows[row["study"], row["arm"], row["metric"], row["scope"]].append(row)
    series: dict[tuple[_Key, bool], list[_Point]] = {}
    for (study, arm, metric, scope), nights in rows.items():
        newest = nights[-1]["deployment"], nights[-1]["baseline"]
        same = [row for row in nights if (row["deployment"], row["baseline"]) == newest]
        ratio = same[-1]["kind"] == "ratio"
        whats = ("baseline", "noise") if same[-1]["role"] == "identity" else ("gain",)
        for what in whats:
            if what == "noise" and not ratio:
                continue
            points = [
                _Point(row["run_id"], row["started_at"], value)
                for row in same
                if (value := _value(row, what, logarithmic=ratio)) is not None
            ]
            series[(study, arm, what, metric, scope), ratio] = points
    return series


def _value(row: Mapping[Any, Any], what: str, *, logarithmic: bool) -> float | None:
    """The night's value, on the log scale where it is a ratio; None where it is unknown."""
    if what == "noise":
        low, high = _known(row["low"]), _known(row["high"])
        return math.log(high / low) / 2 if low and high and low > 0 else None
    value = _known(row["estimate"] if what == "gain" else row["baseline_value"])
    if value is None or not logarithmic:
        return value
    return math.log(value) if value > 0 else None


def _known(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _drift(key: _Key, points: Sequence[_Point], change: Any, *, logarithmic: bool) -> Drift:
    study, arm, what, metric, scope = key
    first = points[change.at]
    levels = [change.before, change.after]
    if what == "noise":
        worse = change.after > change.before
        levels = [math.expm1(level) for level in levels]
    else:
        worse = (change.after > change.before) == (metric in LESS_IS_BETTER)
        levels = [math.exp(level) if logarithmic else level for level in levels]
    return Drift(
        study=study, arm=arm, what=what, metric=metric, scope=scope, run_id=first.run_id, night=first.night,
        before=levels[0], after=levels[1], worse=worse, nights=len(points) - change.at, p_value=change.p_value,
    )  # fmt: skip
