"""From stored divergences to comparisons: each arm against the baseline, over the prompts that both answered.

A prompt is the replicate: the positions of one answer share their prompt and their errors, so an answer counts once, by
its mean. Other than with samples, what is missing is left out and counted in `n_missing`, because there is no worst
value for a divergence; the gates take too many missing prompts for no evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import get_args

from steelyard.gates.policy import DIVERGENCE_SCOPE, DivergenceMetric
from steelyard.records import ArmRow, ComparisonRow
from steelyard.records_quality import DivergenceRow
from steelyard.stats.nonnegative import nonnegative_mean
from steelyard.stats.paired import Confidence, Estimate, confidence_of
from steelyard.stats.proportions import betting_interval, exact_share

DIVERGENCE_METRICS: tuple[str, ...] = get_args(DivergenceMetric)


def compare_divergence(
    run_id: str, rows: Sequence[DivergenceRow], *, arms: Sequence[str], confidence: Confidence
) -> list[ComparisonRow]:
    """For every arm that was asked: mean KL in nats, mean top-1 agreement, and the share of same answers.

    Intervals are over prompts, which are taken as draws from the study's documents. `kl_nats`: `nonnegative_mean`,
    whose lower bound holds for every distribution and whose upper one is Student's. `top1_agreement`, in 0..1: by
    betting. `same_answer`: exact (Clopper-Pearson), `lost` counts the answers that changed. The baseline's own value is
    not measured, so it is None; the identity control is the floor. Rows of other runs are ignored.
    """
    found: list[ComparisonRow] = []
    mine = sorted((row for row in rows if row.run_id == run_id), key=lambda r: (r.doc_hash, r.prompt_hash, r.suite))
    for arm in arms:
        asked = [row for row in mine if row.arm == arm]
        if not asked:
            continue
        for metric in DIVERGENCE_METRICS:
            values = [float(value) for row in asked if (value := getattr(row, metric)) is not None]
            sure = confidence_of(confidence, metric)
            estimate = _estimate(metric, values, sure)
            found.append(
                ComparisonRow(
                    run_id=run_id, arm=arm, category="divergence", metric=metric, scope=DIVERGENCE_SCOPE,
                    kind="nats" if metric == "kl_nats" else "share", baseline_value=None,
                    candidate_value=estimate.value, estimate=estimate.value, low=estimate.low, high=estimate.high,
                    confidence=sure, n=len(values), n_missing=len(asked) - len(values), gained=None,
                    lost=sum(value == 0 for value in values) if metric == "same_answer" else None,
                    method=estimate.method,
                )
            )  # fmt: skip
    return found


def _estimate(metric: str, values: Sequence[float], confidence: float) -> Estimate:
    if metric == "kl_nats":
        return nonnegative_mean(values, confidence)
    if metric == "same_answer":
        return exact_share(sum(value == 1 for value in values), len(values), confidence)
    return mean_share(values, confidence)


def mean_share(shares: Sequence[float], confidence: float) -> Estimate:
    """Mean of shares in 0..1 by betting, in an order that ignores them: their distances from one half, doubled."""
    found = betting_interval([2 * share - 1 for share in shares], confidence)
    low, high = (None if bound is None else (bound + 1) / 2 for bound in (found.low, found.high))
    value = math.fsum(shares) / len(shares) if shares else None
    if value is not None and low is not None and high is not None:
        # Doubling and halving must not push the mean out of its own interval.
        low, high = min(low, value), max(high, value)
    return Estimate(value, low, high, found.n, "betting, mean of shares")


def divergence_problems(arms: Sequence[ArmRow], rows: Iterable[DivergenceRow]) -> list[str]:
    """Where divergences are of another deployment than the arm's, or from another baseline. Empty if nowhere."""
    digests = {(arm.run_id, arm.arm): arm.deployment_digest for arm in arms}
    baselines = {arm.run_id: arm.deployment_digest for arm in arms if arm.role == "baseline"}
    found = set()
    for row in rows:
        if digests.get((row.run_id, row.arm)) != row.deployment_digest:
            found.add(f"{row.arm}: divergences are of {row.deployment_digest[:12]}, which is not the arm's deployment")
        if baselines.get(row.run_id) != row.baseline_digest:
            found.add(f"{row.arm}: divergences are from {row.baseline_digest[:12]}, which is not the baseline's")
    return sorted(found)
