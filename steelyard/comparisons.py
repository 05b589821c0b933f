"""From stored rows to comparisons of speed and cost: each arm against the baseline, paired by block, with intervals.

What one side lacks is counted in `n_missing` and never helps the arm; two trials of a block that were measured far
apart are no pair and count the same way. All functions are pure and deterministic; rows of other runs are ignored.
Quality is compared in `quality_comparisons`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from steelyard.gates.policy import SpeedMetric
from steelyard.records import ArmRow, ComparisonRow, UnitCostRow
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.records_trials import ProbeRow, TrialRow
from steelyard.stats.paired import Confidence, Estimate, confidence_of, ratio_interval
from steelyard.stats.sequential import Looks, ratio_sequence

SPEED_METRICS: tuple[str, ...] = get_args(SpeedMetric)
RATE_BEHIND_COST: Mapping[str, str] = {
    "usd_per_million_output_tokens": "output_tokens_per_s",
    "usd_per_million_slo_tokens": "slo_tokens_per_s",
}
MAX_APART_S = 7200.0
"""Seconds between the starts of two trials above which they are no pair: pairing cancels only what both sides met."""

Values = dict[int, float]
"""A metric by block; blocks without a usable value are absent."""


def trials_by_point(run_id: str, trials: Iterable[TrialRow]) -> dict[str, dict[str, list[TrialRow]]]:
    """Trials of the run by load point (in order of first appearance), then by arm."""
    found: dict[str, dict[str, list[TrialRow]]] = {}
    for trial in trials:
        if trial.run_id == run_id:
            found.setdefault(trial.load_point, {}).setdefault(trial.arm, []).append(trial)
    return found


def values_of(trials: Iterable[TrialRow], metric: str) -> Values:
    """The metric by block over valid trials that have it."""
    return {
        trial.block: float(value)
        for trial in trials
        if trial.valid and (value := getattr(trial, metric)) is not None and math.isfinite(value)
    }


def paired_blocks(ours: Sequence[TrialRow], theirs: Sequence[TrialRow], metric: str) -> dict[int, tuple[float, float]]:
    """The metric of both sides by block, in the order of blocks.

    A block is a pair if both trials are valid, have the metric, and started at most `MAX_APART_S` apart. A resumed run
    may have measured one side of a block hours before the other, when the machine was in another state.
    """
    mine, reference = values_of(ours, metric), values_of(theirs, metric)
    started, reference_started = (
        {trial.block: trial.started_at for trial in side if trial.valid} for side in (ours, theirs)
    )
    return {
        block: (mine[block], reference[block])
        for block in sorted(mine.keys() & reference.keys())
        if abs((started[block] - reference_started[block]).total_seconds()) <= MAX_APART_S
    }


def _ratio(pairs: Sequence[tuple[float, float]], confidence: float, looks: Looks | None) -> Estimate:
    return ratio_interval(pairs, confidence) if looks is None else ratio_sequence(pairs, confidence, looks)


def _typical(values: Sequence[float]) -> float | None:
    if not values:
        return None
    if min(values) > 0:
        return math.exp(math.fsum(map(math.log, values)) / len(values))
    return math.fsum(values) / len(values)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def compare_speed(
    run_id: str,
    trials: Sequence[TrialRow],
    *,
    arms: Sequence[str],
    baseline: str = "baseline",
    confidence: Confidence,
    looks: Looks | None = None,
) -> list[ComparisonRow]:
    """Ratio arm / baseline of every speed metric at every load point, paired by block.

    Only trials that are valid on both sides and were measured together count (`paired_blocks`). `n` is the paired
    blocks, `n_missing` the blocks that were run by either side but are no pair. The two values are geometric means over
    the paired blocks, so that their ratio is the estimate. Seconds and per second. With `looks` the interval is that of
    the look which so many blocks are (`stats.sequential`); without, it is for this one look.
    """
    rows: list[ComparisonRow] = []
    for point, by_arm in trials_by_point(run_id, trials).items():
        for arm in arms:
            if arm == baseline:
                continue
            ours, theirs = by_arm.get(arm, []), by_arm.get(baseline, [])
            blocks = {trial.block for trial in (*ours, *theirs)}
            for metric in SPEED_METRICS:
                pairs = list(paired_blocks(ours, theirs, metric).values())
                sure = confidence_of(confidence, metric)
                estimate = _ratio(pairs, sure, looks)
                rows.append(
                    ComparisonRow(
                        run_id=run_id, arm=arm, category="speed", metric=metric, scope=point, kind="ratio",
                        baseline_value=_typical([reference for _, reference in pairs]),
                        candidate_value=_typical([candidate for candidate, _ in pairs]),
                        estimate=estimate.value, low=estimate.low, high=estimate.high, confidence=sure,
                        n=estimate.n, n_missing=len(blocks) - len(pairs), gained=None, lost=None,
                        method=estimate.method,
                    )
                )  # fmt: skip
    return rows


def compare_cost(
    run_id: str,
    costs: Sequence[UnitCostRow],
    trials: Sequence[TrialRow],
    *,
    arms: Sequence[str],
    baseline: str = "baseline",
    confidence: Confidence,
    looks: Looks | None = None,
) -> list[ComparisonRow]:
    """Ratio arm / baseline of unit costs at every load point, paired by block; below 1 is cheaper.

    In one block the ratio is (price of arm / price of baseline) * (token rate of baseline / token rate of arm): the
    interval is that of the paired rates (`paired_blocks`), not of two separate unit costs. `costs` gives the prices; a
    side without a cost row makes the ratio unknown. Values are USD per million tokens over the paired blocks.
    """
    prices = {(cost.arm, cost.load_point): cost.usd_per_hour for cost in costs if cost.run_id == run_id}
    rows: list[ComparisonRow] = []
    for point, by_arm in trials_by_point(run_id, trials).items():
        for arm in arms:
            if arm == baseline:
                continue
            ours, theirs = prices.get((arm, point)), prices.get((baseline, point))
            blocks = {trial.block for trial in (*by_arm.get(arm, []), *by_arm.get(baseline, []))}
            for metric, rate in RATE_BEHIND_COST.items():
                priced = ours is not None and theirs is not None
                found = paired_blocks(by_arm.get(arm, []), by_arm.get(baseline, []), rate) if priced else {}
                pairs = list(found.values())
                # Cost is price over rate, so the sides change places.
                sure = confidence_of(confidence, metric)
                estimate = _ratio([(reference, candidate) for candidate, reference in pairs], sure, looks)
                relative = (ours or 0.0) / theirs if theirs else 1.0
                rows.append(
                    ComparisonRow(
                        run_id=run_id, arm=arm, category="cost", metric=metric, scope=point, kind="ratio",
                        baseline_value=usd_per_million(theirs, _typical([reference for _, reference in pairs])),
                        candidate_value=usd_per_million(ours, _typical([candidate for candidate, _ in pairs])),
                        estimate=_scaled(estimate.value, relative), low=_scaled(estimate.low, relative),
                        high=_scaled(estimate.high, relative), confidence=sure,
                        n=estimate.n, n_missing=len(blocks) - len(pairs), gained=None, lost=None,
                        method=f"price times {estimate.method}",
                    )
                )  # fmt: skip
    return rows


def usd_per_million(usd_per_hour: float | None, tokens_per_s: float | None) -> float | None:
    """USD per million tokens of a machine that gives so many tokens a second; None if it gives none or is unknown."""
    if usd_per_hour is None or not tokens_per_s:
        return None
    return usd_per_hour / (tokens_per_s * 3600) * 1e6


def deployment_problems(
    arms: Sequence[ArmRow],
    trials: Iterable[TrialRow],
    suites: Iterable[SuiteRow],
    samples: Iterable[SampleRow] = (),
    unit_costs: Iterable[UnitCostRow] = (),
    probes: Iterable[ProbeRow] = (),
) -> list[str]:
    """Where speed, quality or cost do not come from the deployment the arm recorded. Empty when all of them do.

    A unit cost without a digest is right only for an arm that has none itself.
    """
    digests = {(arm.run_id, arm.arm): arm.deployment_digest for arm in arms}
    seen = {(row.run_id, row.arm, f"trials at {row.load_point}", row.deployment_digest) for row in trials}
    seen |= {(row.run_id, row.arm, f"suite {row.suite}", row.deployment_digest) for row in suites}
    seen |= {(row.run_id, row.arm, f"samples of suite {row.suite}", row.deployment_digest) for row in samples}
    seen |= {(row.run_id, row.arm, f"probes of {row.scope}", row.deployment_digest) for row in probes}
    costs = {(row.run_id, row.arm, f"unit cost at {row.load_point}", row.deployment_digest) for row in unit_costs}
    wrong = [each for each in seen | costs if each[:2] not in digests or digests[each[:2]] != each[3]]
    return [
        f"{arm}: {what} measured {f'deployment {digest[:12]}' if digest else 'no deployment'}, "
        "which is not the one recorded for the arm"
        for _, arm, what, digest in sorted(wrong, key=lambda each: (*each[:3], each[3] or ""))
    ]
