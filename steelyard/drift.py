"""Drift over the nights: whether a promoted gain, a guarded quality, the baseline or the machine's noise changed level.

A night's verdict asks whether the arm still clears its bounds; it does not see that a gain of 1.8 became 1.4, nor that
the baseline itself is a tenth slower since Tuesday. Each figure is followed over the complete nights in which arm and
baseline were the same deployments as in the newest one, asked the same on the same machine: another deployment, longer
prompts, a stricter objective or a new driver make another figure, not a regression, and what an upgrade ends it ends
anyway (`steelyard.gates.expiry`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from steelyard.gates.policy import LESS_IS_BETTER
from steelyard.stats.change_points import ChangePoint, change_points

FAMILY_ERROR = 0.05
"""Probability of any false change among all figures looked at together (Bonferroni)."""
MAX_P = 0.001
"""And of a single one at most."""

FIGURES = """
    SELECT studies.study, studies.run_id, studies.started_at, comparisons.arm, arms.role, comparisons.metric,
        comparisons.scope, comparisons.kind, comparisons.estimate, comparisons.low, comparisons.high,
        comparisons.baseline_value, arms.deployment_digest AS deployment, baselines.deployment_digest AS baseline,
        md5(to_json(json_array(
            studies.accelerator, studies.driver_version, studies.cpu_model, studies.platform,
            to_json(regexp_extract_all(
                studies.packages_json, '"(flashinfer-python|tokenizers|torch|transformers|triton)":"[^"]*"'
            )),
            to_json(json_extract(studies.study_json, [
                '$.workloads', '$.slo', '$.suites', '$.divergence', '$.capacity', '$.hardware', '$.residency',
                '$.warmup_requests', '$.confirms.workloads'
            ])),
            CASE WHEN comparisons.category = 'cost'
                THEN (SELECT to_json(max(usd_per_hour)) FROM unit_costs WHERE unit_costs.run_id = studies.run_id) END
        ))) AS conditions
    FROM comparisons
    JOIN studies ON studies.run_id = comparisons.run_id AND (studies.status = 'complete' OR studies.run_id = $2)
    JOIN arms ON arms.run_id = comparisons.run_id AND arms.arm = comparisons.arm
    JOIN arms AS baselines ON baselines.run_id = comparisons.run_id AND baselines.role = 'baseline'
    WHERE (arms.role = 'identity' OR (studies.study, comparisons.arm) IN (SELECT study, arm FROM promotions))
        AND (CAST($1 AS VARCHAR) IS NULL OR studies.study = $1)
    ORDER BY studies.started_at, studies.run_id
"""
"""Every comparison that is followed, oldest night first: of arms once promoted, and of the identity control.

Parameters: a study, or NULL for all; a run that has not ended and is to count, or NULL.
"""
SAME = ("deployment", "baseline", "conditions")
"""What two nights must share to be points of one figure. `conditions` are machine, packages, questions and price."""


class Named(Protocol):
    """What says which figure it is about: a change, or an incident."""

    @property
    def arm(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def scope(self) -> str: ...


def named(about: Named) -> str:
    """A figure, for people."""
    whose = {"gain": f"{about.metric} of {about.arm}", "baseline": f"{about.metric} of the baseline"}
    return f"{whose.get(about.what, f'noise of {about.metric}')} at {about.scope}"


def level(about: Named, value: float) -> str:
    """A level of a figure, for people."""
    return f"{value:.1%}" if about.what == "noise" else f"{value:.4g}"


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
        return named(self)


@dataclass(frozen=True, slots=True)
class Point:
    """A night's value of a figure, on the scale on which changes are looked for."""

    run_id: str
    night: datetime
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure over the nights like its newest one; `logarithmic` if its values are logarithms."""

    study: str
    arm: str
    what: str
    metric: str
    scope: str
    logarithmic: bool
    deployment: str | None
    baseline: str | None
    points: tuple[Point, ...]

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What tells it from other figures."""
        return self.study, self.arm, self.what, self.metric, self.scope

    def level(self, value: float) -> float:
        """A value of the scale as people read it."""
        if self.what == "noise":
            return math.expm1(value)
        return math.exp(value) if self.logarithmic else value

    def scaled(self, level: float) -> float:
        """The reverse of `level`."""
        if self.what == "noise":
            return math.log1p(level)
        return math.log(level) if self.logarithmic else level

    def worse(self, before: float, after: float) -> bool:
        """Whether the second of two values is worse than the first."""
        return (after > before) == (self.what == "noise" or self.metric in LESS_IS_BETTER)

    def last_change(self, max_p: float) -> Drift | None:
        """Its newest change of level; None without any."""
        return next(reversed(self.changes(max_p)), None)

    def changes(self, max_p: float = MAX_P) -> list[Drift]:
        """Its changes of level, oldest first."""
        found = change_points([point.value for point in self.points], max_p=max_p)
        return [self._drift(change) for change in found]

    def _drift(self, change: ChangePoint) -> Drift:
        first = self.points[change.at]
        return Drift(
            study=self.study, arm=self.arm, what=self.what, metric=self.metric, scope=self.scope, run_id=first.run_id,
            night=first.night, before=self.level(change.before), after=self.level(change.after),
            worse=self.worse(change.before, change.after), nights=len(self.points) - change.at, p_value=change.p_value,
        )  # fmt: skip


def drifts(rows: Iterable[Mapping[Any, Any]]) -> list[Drift]:
    """Every change of level among the rows of `FIGURES`, the newest first, then by how certain it is."""
    figures = figures_of(rows)
    found = [change for figure in figures for change in figure.changes(max_p_of(len(figures)))]
    return sorted(found, key=lambda each: (-each.night.timestamp(), each.p_value, each.name))


def max_p_of(figures: int) -> float:
    """The p-value that a change may have at most where so many figures are looked at together."""
    return min(MAX_P, FAMILY_ERROR / max(1, figures))


def figures_of(rows: Iterable[Mapping[Any, Any]]) -> list[Figure]:
    """The figures among the rows of `FIGURES`, each over the nights with deployments and conditions of its newest."""
    by_figure: dict[tuple[str, str, str, str], list[Mapping[Any, Any]]] = defaultdict(list)
    for row in rows:
        by_figure[row["study"], row["arm"], row["metric"], row["scope"]].append(row)
    figures = []
    for (study, arm, metric, scope), nights in by_figure.items():
        newest = nights[-1]
        same = [row for row in nights if all(row[name] == newest[name] for name in SAME)]
        ratio = newest["kind"] == "ratio"
        for what in ("baseline", "noise") if newest["role"] == "identity" else ("gain",):
            if what == "noise" and not ratio:
                continue
            points = tuple(
                Point(row["run_id"], _utc(row["started_at"]), value)
                for row in same
                if (value := _value(row, what, logarithmic=ratio)) is not None
            )
            figures.append(
                Figure(
                    study=study, arm=arm, what=what, metric=metric, scope=scope, logarithmic=ratio,
                    deployment=newest["deployment"], baseline=newest["baseline"], points=points,
                )
            )  # fmt: skip
    return figures


def _value(row: Mapping[Any, Any], what: str, *, logarithmic: bool) -> float | None:
    """The night's value, on the log scale where it is a ratio; None where it is unknown."""
    if what == "noise":
        low, high = _known(row["low"]), _known(row["high"])
        return math.log(high / low) / 2 if low and high and low > 0 else None
    value = _known(row["estimate"] if what == "gain" else row["baseline_value"])
    if value is None or not logarithmic:
        return value
    return math.log(value) if value > 0 else None


def _utc(moment: datetime) -> datetime:
    """The warehouse's moments are UTC and do not say so."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _known(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
