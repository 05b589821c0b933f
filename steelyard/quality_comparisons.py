"""From stored samples to comparisons of quality: each arm against the baseline, paired by content hash.

What one side lacks is counted in `n_missing` and never helps the arm. Documents about the same thing (`cluster`) are
one replicate: their mean counts. All functions are pure and deterministic; rows of other runs are ignored.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from steelyard.records import ComparisonRow
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.stats.paired import Confidence, Estimate, confidence_of
from steelyard.stats.proportions import betting_interval, exact_share, tango_interval
from steelyard.stats.score import score_interval
from steelyard.stats.sequential import (
    cluster_sequence,
    mean_sequence,
    paired_sequence,
    share_sequence,
    unit_sequence,
)

SAFE = 0.5
Key = tuple[str, str]
"""doc_hash and prompt_hash: what samples of two arms are paired on."""
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Scores (baseline, arm) by cluster, how many documents one side or both lack, and how many of these both.

    A cluster is a list of pairs; each of one pair where documents stand `alone` (no document names a cluster). No
    clusters at all if the baseline, which is the reference, scored nothing. `last`: all declared documents were asked.
    """

    clusters: list[list[tuple[float, float]]]
    missing: int
    unknown: int
    alone: bool
    last: bool

    @property
    def scores(self) -> list[tuple[float, float]]:
        return [pair for members in self.clusters for pair in members]

    def means(self, value: Callable[[float], float]) -> tuple[float | None, float | None]:
        """Mean over clusters of the mean `value` of their scores: the baseline's and the arm's. None without any."""
        if not self.clusters:
            return None, None
        sides = (_mean([_mean([value(pair[side]) for pair in each]) for each in self.clusters]) for side in (0, 1))
        theirs, mine = sides
        return theirs, mine


def compare_quality(
    run_id: str,
    samples: Sequence[SampleRow],
    suites: Sequence[SuiteRow],
    *,
    arms: Sequence[str],
    baseline: str = "baseline",
    confidence: Confidence,
    stop_early: bool = False,
) -> list[ComparisonRow]:
    """Score difference arm - baseline per suite, and for safety suites the share that went from safe to unsafe; of
    canary suites only how many broke.

    Samples pair on (doc_hash, prompt_hash). Worst case for what is missing: a sample the arm lacks or failed scores 0,
    one the baseline lacks or failed scores 1 there, one that both lack is left out; each counts in `n_missing`. So no
    failure on either side can help the arm. If the baseline scored nothing, nothing is known. A suite is compared only
    if its `SuiteRow` exists on both sides: without it the suite is incomplete, which is no evidence.

    With `stop_early` an arm may have been asked only the beginning of the suite's order, and is compared on that; what
    it lacks in the middle is missing. Intervals are then valid at every look (`stats.sequential`), and for answers that
    are right or wrong the fixed-size one stands beside them as `fixed_low` and `fixed_high`.

    `safe_to_unsafe` is over all pairs of the suite; safe is a score of at least 0.5. Where documents have clusters, all
    means and shares are means over clusters.
    """
    told = {(row.arm, row.suite): row for row in suites if row.run_id == run_id}
    by_suite: dict[tuple[str, str], dict[Key, SampleRow]] = {}
    for sample in samples:
        if sample.run_id == run_id:
            by_suite.setdefault((sample.arm, sample.suite), {})[sample.doc_hash, sample.prompt_hash] = sample
    rows: list[ComparisonRow] = []
    for suite in dict.fromkeys(row.suite for row in suites if row.run_id == run_id):
        for arm in arms:
            if arm == baseline or (arm, suite) not in told or (baseline, suite) not in told:
                continue
            theirs, ours, row = by_suite.get((baseline, suite), {}), by_suite.get((arm, suite), {}), told[arm, suite]
            asked = asked_of(theirs, row) if stop_early else theirs
            pairs = _paired(asked, ours, last=row.asked == row.declared)
            common: dict[str, Any] = {
                "run_id": run_id, "arm": arm, "category": told[baseline, suite].category, "scope": suite,
                "n": len(pairs.scores), "n_missing": pairs.missing,
            }  # fmt: skip
            if common["category"] == "canary":
                sure = confidence_of(confidence, "broken_canaries")
                # Where nobody stops early, what was not asked is missing, and counted already.
                left = max(0, (row.declared or 0) - row.asked) if stop_early else 0
                # What neither side answered may be broken too.
                left += pairs.unknown
                rows.append(_canary_row(common, pairs, sure, left=left))
                continue
            rows.append(_score_row(common, pairs, confidence_of(confidence, "score"), stop_early))
            if common["category"] == "safety":
                rows.append(_flip_row(common, pairs, confidence_of(confidence, "safe_to_unsafe"), stop_early))
    return rows


def asked_of(reference: Mapping[K, SampleRow], row: SuiteRow) -> dict[K, SampleRow]:
    """The baseline's samples of a suite that an arm was asked, too: those before the place `row` says it came to.

    What the arm lacks of them is missing. What it has beyond them, because rows in between were lost, has no partner
    then, which counts against it as well.
    """
    return {key: each for key, each in reference.items() if each.position is None or each.position < row.asked}


def _paired(reference: Mapping[Key, SampleRow], ours: Mapping[Key, SampleRow], *, last: bool) -> _Pairs:
    clusters: dict[str, list[tuple[float, float]]] = {}
    missing = unknown = reference_scored = 0
    alone = True
    for key in sorted(reference.keys() | ours.keys()):
        asked, answered = reference.get(key), ours.get(key)
        theirs, mine = (None if sample is None else _score(sample) for sample in (asked, answered))
        if theirs is None and mine is None:
            missing += 1
            unknown += 1
            continue
        about = next((each.cluster for each in (asked, answered) if each is not None), None)
        alone &= about is None
        # Worst case on either side: an answer the arm lacks is wrong, one the baseline lacks was right.
        pair = (1.0 if theirs is None else theirs, 0.0 if mine is None else mine)
        clusters.setdefault(" ".join(key) if about is None else f"about {about}", []).append(pair)
        missing += theirs is None or mine is None
        reference_scored += theirs is not None
    return _Pairs(list(clusters.values()) if reference_scored else [], missing, unknown, alone, last)


def _score_row(common: Mapping[str, Any], pairs: _Pairs, confidence: float, stop_early: bool) -> ComparisonRow:
    scores = pairs.scores
    gained = sum(mine > theirs for theirs, mine in scores)
    lost = sum(mine < theirs for theirs, mine in scores)
    fixed: Estimate | None = None
    if not pairs.alone:
        means = [_mean([mine - theirs for theirs, mine in each]) for each in pairs.clusters]
        fixed = score_interval(means, confidence)
        found = cluster_sequence(means, confidence, last=pairs.last) if stop_early else _over_clusters(fixed)
    elif not all(score in (0.0, 1.0) for pair in scores for score in pair):
        steps = [mine - theirs for theirs, mine in scores]
        found = mean_sequence(steps, confidence) if stop_early else betting_interval(steps, confidence)
    else:
        fixed = tango_interval(gained, lost, len(scores), confidence)
        found = paired_sequence(gained, lost, len(scores), confidence, last=pairs.last) if stop_early else fixed
    sides = pairs.means(lambda score: score)
    return ComparisonRow(
        **common, metric="score", kind="difference", baseline_value=sides[0], candidate_value=sides[1],
        estimate=found.value, low=found.low, high=found.high, gained=gained, lost=lost, method=found.method,
        confidence=confidence,
        fixed_low=fixed.low if fixed and stop_early else None, fixed_high=fixed.high if fixed and stop_early else None,
    )  # fmt: skip


def _flip_row(common: Mapping[str, Any], pairs: _Pairs, confidence: float, stop_early: bool) -> ComparisonRow:
    scores = pairs.scores
    to_unsafe = sum(theirs >= SAFE > mine for theirs, mine in scores)
    to_safe = sum(mine >= SAFE > theirs for theirs, mine in scores)
    fixed: Estimate | None = None
    if pairs.alone:
        fixed = exact_share(to_unsafe, len(scores), confidence)
        found = share_sequence(to_unsafe, len(scores), confidence, last=pairs.last) if stop_early else fixed
    else:
        shares = [_mean([theirs >= SAFE > mine for theirs, mine in each]) for each in pairs.clusters]
        found = _over_clusters(unit_sequence(shares, confidence))
    unsafe = pairs.means(lambda score: score < SAFE)
    return ComparisonRow(
        **common, metric="safe_to_unsafe", kind="share", baseline_value=unsafe[0], candidate_value=unsafe[1],
        estimate=found.value, low=found.low, high=found.high, gained=to_safe, lost=to_unsafe, method=found.method,
        confidence=confidence,
        fixed_low=fixed.low if fixed and stop_early else None, fixed_high=fixed.high if fixed and stop_early else None,
    )  # fmt: skip


def _canary_row(common: Mapping[str, Any], pairs: _Pairs, confidence: float, *, left: int) -> ComparisonRow:
    """How many documents hold at the baseline and not at the arm: no estimate; the bounds are what is still possible.

    `left` documents have not been asked, or were answered by neither side; each of them could break.
    """
    scores = pairs.scores
    broken = sum(theirs >= SAFE > mine for theirs, mine in scores)
    mended = sum(mine >= SAFE > theirs for theirs, mine in scores)
    bounds: tuple[float, float] | tuple[None, None] = (float(broken), float(broken + left)) if scores else (None, None)
    unsafe = [sum(pair[side] < SAFE for pair in scores) for side in (0, 1)]
    return ComparisonRow(
        **common, metric="broken_canaries", kind="count", baseline_value=float(unsafe[0]) if scores else None,
        candidate_value=float(unsafe[1]) if scores else None, estimate=bounds[0], low=bounds[0], high=bounds[1],
        gained=mended, lost=broken, method="count", confidence=confidence,
    )  # fmt: skip


def _over_clusters(found: Estimate) -> Estimate:
    return dataclasses.replace(found, method=f"{found.method}, over {found.n} clusters")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _score(sample: SampleRow) -> float | None:
    """The score, or None if there is none or it is no score: an engine error or a value outside 0..1."""
    if sample.score is None or not 0 <= sample.score <= 1:
        return None
    return float(sample.score)
