"""What a study needs so that its gates can say yes, from the noise of its last run: told before measuring.

The noise of a block is that of the identity control, the share of documents on which arms differ is what each arm
showed. Power is that of the last look (`stats.power`); looking early can only add to it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from steelyard.capacity_comparisons import capacities
from steelyard.comparisons import MAX_APART_S, RATE_BEHIND_COST, paired_blocks
from steelyard.gates.policy import OVER_BLOCKS, Gate, Policy
from steelyard.gates.reasons import bound_of
from steelyard.gates.settled import looks_of
from steelyard.load.capacity import searches_of
from steelyard.records import ComparisonRow
from steelyard.reports.facts import Facts
from steelyard.stats.power import blocks_needed, documents_for_share, documents_needed, power_of_blocks
from steelyard.study import Candidate, Study, Suite
from steelyard.study_capacity import CapacitySearch

POWER = 0.9
MIN_BLOCKS = 3
"""Blocks of the identity control from which its noise is taken."""


@dataclass(frozen=True, slots=True)
class SpeedNeed:
    """A speed or cost gate at a load point. Ratios are such that larger is better, whatever the metric.

    `expected` is the declared gain of the candidates (`arms`) that claim the point, or 1 for a guard; None where none
    is declared. `smallest` is the least gain that the study's blocks would prove. `blocks` is None if unknown or beyond
    all reason.
    """

    gate: str
    required: bool
    load_point: str
    arms: tuple[str, ...]
    metric: str
    noise: float | None
    bound: float
    expected: float | None
    blocks: int | None
    smallest: float | None


@dataclass(frozen=True, slots=True)
class QualityNeed:
    """A quality gate on a suite: documents for an arm that differs as often as `discordance` and not in its mean.

    For the identity control, and for the arm that differs most and was not rejected.
    """

    gate: str
    required: bool
    suite: str
    arm: str
    identity: bool
    discordance: float
    margin: float
    documents: int | None
    declared: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All needs, how long the study would take at most, in seconds (None if unknown), and what cannot be decided."""

    source: str
    speed: list[SpeedNeed]
    quality: list[QualityNeed]
    seconds: float | None
    problems: list[str]


def plan(study: Study, policy: Policy, last: Facts) -> Plan:
    """The plan of a study from the rows of an earlier run, best its own last one."""
    speed = [
        need for gate in policy.gates if gate.category in OVER_BLOCKS for need in _speed(study, policy, gate, last)
    ]
    quality = [
        need
        for gate in policy.gates
        if gate.metric in ("score", "safe_to_unsafe")
        for need in _quality(study, policy, gate, last)
    ]
    problems = [*_problems(study, policy, speed, quality), *_slow_searches(study, last)]
    return Plan(last.study.run_id, speed, quality, _seconds(study, last), problems)


def noise_of(last: Facts, load_point: str, metric: str) -> float | None:
    """Standard deviation of the identity control's block log-ratios; None if it has too few blocks."""
    identity = next((arm.arm for arm in last.arms if arm.role == "identity"), None)
    at = [trial for trial in last.trials if trial.load_point == load_point]
    pairs = paired_blocks(
        [trial for trial in at if trial.arm == identity], [trial for trial in at if trial.arm == "baseline"],
        RATE_BEHIND_COST.get(metric, metric),
    )  # fmt: skip
    return _spread(pairs.values())


def noise_of_capacity(last: Facts, asked: CapacitySearch) -> float | None:
    """The same of its capacities, as the earlier run searched them; not less than what the grid itself adds.

    Both sides are rounded to a step, which adds the standard deviation of two uniform numbers.
    """
    then = next(
        (CapacitySearch.model_validate(each) for each in last.asked.get("capacity") or []
         if each.get("workload") == asked.workload),
        None,
    )  # fmt: skip
    if then is None:
        return None
    identity = next((arm.arm for arm in last.arms if arm.role == "identity"), "")
    mine, theirs = (capacities(last.probes, then, arm) for arm in (identity, "baseline"))
    rates = [(mine[block].rate, theirs[block].rate) for block in sorted(mine.keys() & theirs.keys())]
    found = _spread((ours, reference) for ours, reference in rates if ours is not None and reference is not None)
    return None if found is None else max(found, math.log(asked.resolution) / math.sqrt(6))


def _spread(pairs: Iterable[tuple[float, float]]) -> float | None:
    logs = [math.log(mine / theirs) for mine, theirs in pairs if mine > 0 and theirs > 0]
    return statistics.stdev(logs) if len(logs) >= MIN_BLOCKS else None


def next_attempts(study: Study, last: Facts) -> dict[str, int]:
    """Which attempt each candidate would be in a run that follows `last` on the same baseline (`assets.attempts`)."""
    verdict_of = {row.arm: row.verdict for row in last.verdicts}
    before = {row.arm: row for row in last.arms if row.role == "candidate" and row.status == "served"}
    return {
        each.name: (before[each.name].attempt or 1) + (verdict_of.get(each.name) in ("reject", "inconclusive"))
        if each.name in before
        else 1
        for each in study.candidates
    }


def _speed(study: Study, policy: Policy, gate: Gate, last: Facts) -> list[SpeedNeed]:
    kind, bound = bound_of(gate)
    # An upper bound of a ratio is a lower bound of its inverse.
    target = 1 / bound if kind == "at_most" and bound > 0 else bound
    # What a candidate claims is a gain in tokens, and so in cost; any other gate guards what should stay as it is.
    gains = gate.benefit or gate.category == "cost"
    attempts = next_attempts(study, last)
    needs = []
    for point, claiming, noise, step in _places(study, gate, last):
        if gate.on == "claimed" and not claiming:
            continue
        judged = claiming if gate.on == "claimed" else study.candidates
        sure = policy.confidence_of(gate.metric, max(attempts[each.name] for each in judged))
        claimed: list[float | None] = [each.claim.gain for each in claiming] if gains else []
        if not gate.benefit and (not gains or len(claiming) < len(judged)):
            # A guard holds for those, too, who claim nothing there.
            claimed.append(1.0)
        for expected in dict.fromkeys(claimed or [None]):
            blocks = None
            if noise is not None and expected is not None:
                blocks = blocks_needed(
                    expected, target * step, noise, sure, POWER, first=policy.min_blocks, early=policy.stop_early
                )
            needs.append(
                SpeedNeed(
                    gate=gate.name, required=gate.required, load_point=point,
                    arms=tuple(each.name for each in claiming if gains and each.claim.gain == expected),
                    metric=gate.metric, noise=noise, bound=target, expected=expected, blocks=blocks,
                    smallest=None if noise is None else _smallest(study, policy, target * step, noise, sure),
                )
            )  # fmt: skip
    return needs


def _places(study: Study, gate: Gate, last: Facts) -> list[tuple[str, list[Candidate], float | None, float]]:
    """Where a gate holds: the name, who claims a gain there, its noise, and by which factor bounds are widened."""
    if gate.category == "capacity":
        return [
            (
                asked.scope, [each for each in study.candidates if each.claim.workload == asked.workload],
                noise_of_capacity(last, asked), asked.resolution,
            )
            for asked in study.capacity
        ]  # fmt: skip
    return [
        (
            point.name, [each for each in study.candidates if each.claim.load_point == point.name],
            noise_of(last, point.name, gate.metric), 1.0,
        )
        for point in study.load_points
    ]  # fmt: skip


def _smallest(study: Study, policy: Policy, bound: float, noise: float, sure: float) -> float | None:
    """The least ratio that the study's blocks prove to reach `bound`, to 1 %; None above tenfold."""
    looks = looks_of(policy, study.blocks)
    ratio = bound
    while ratio < 10 * bound:
        ratio *= 1.01
        if power_of_blocks(ratio, bound, noise, sure, looks, study.blocks) >= POWER:
            return ratio
    return None


def _quality(study: Study, policy: Policy, gate: Gate, last: Facts) -> list[QualityNeed]:
    _, margin = bound_of(gate)
    attempts = next_attempts(study, last)
    needs = []
    for suite in study.suites:
        if suite.category != gate.category or margin <= 0:
            continue
        found = [row for row in last.comparisons if row.scope == suite.name and row.metric == "score" and row.n > 0]
        declared = _declared(suite, last)
        about = [sample.cluster for sample in last.samples if (sample.arm, sample.suite) == ("baseline", suite.name)]
        # Documents about the same thing are one replicate.
        replicated = len({each for each in about if each is not None}) + about.count(None)
        crowd = len(about) / replicated if replicated else 1.0
        rejected = {row.arm for row in last.verdicts if row.verdict == "reject" and row.role != "identity"}
        asked = [row for row in found if row.arm not in rejected]
        identity = next((arm.arm for arm in last.arms if arm.role == "identity"), None)
        most = max(asked, key=lambda row: _share(row, gate), default=None)
        for row in [each for each in asked if each.arm == identity or each is most]:
            share = _share(row, gate)
            sure = policy.confidence_of(gate.metric, attempts.get(row.arm, 1))
            needed = documents_for_share if gate.metric == "safe_to_unsafe" else documents_needed
            replicates = needed(share, margin, sure, POWER, early=policy.stop_early)
            documents = None if replicates is None else math.ceil(replicates * crowd)
            needs.append(
                QualityNeed(
                    gate=gate.name, required=gate.required, suite=suite.name, arm=row.arm, identity=row.arm == identity,
                    discordance=share, margin=margin, documents=documents, declared=declared,
                )
            )  # fmt: skip
    return needs


def _declared(suite: Suite, last: Facts) -> int | None:
    """Documents the study would ask of a suite: as many as last time, unless its limit was changed since."""
    before = [each for each in last.asked.get("suites") or [] if each.get("name") == suite.name]
    told = next((row.declared for row in last.suites if row.suite == suite.name), None)
    if before and before[0].get("limit") == suite.limit:
        return told or suite.limit
    return suite.limit


def _share(row: ComparisonRow, gate: Gate) -> float:
    """Share of documents on which the arm's answer counts otherwise than the baseline's, as the gate sees it."""
    flips = row.lost or 0 if gate.metric == "safe_to_unsafe" else (row.gained or 0) + (row.lost or 0)
    return flips / row.n


def _seconds(study: Study, last: Facts) -> float | None:
    """At most: every block of every arm, every declared document; by the pace of the earlier run."""
    if len(last.trials) < 2 or not last.suites:
        return None
    starts = sorted(trial.started_at for trial in last.trials)
    steps = [(later - earlier).total_seconds() for earlier, later in pairwise(starts)]
    trials = study.blocks * len(study.load_points) * len(study.arms) * statistics.median(steps)
    pace = {row.suite: (row.duration_s or 0.0) / row.documents for row in last.suites if row.arm == "baseline"}
    limits = {row.suite: row.declared or row.documents for row in last.suites}
    suites = sum(
        pace.get(suite.name, 0.0) * (_declared(suite, last) or limits.get(suite.name, 0)) * len(study.arms)
        for suite in study.suites
    )
    searches = sum(_search_seconds(asked, last) for asked in study.capacity) * study.blocks * len(study.arms)
    return trials + suites + searches


def _search_seconds(asked: CapacitySearch, last: Facts) -> float:
    """Seconds of one search, by how long those of the earlier run took; without any, by the length of its probes."""
    own = [probe for probe in last.probes if probe.scope == asked.scope]
    took = [sum(probe.duration_s for probe in each) for each in searches_of(own).values()]
    return statistics.median(took) if took else math.log2(len(asked.rates) + 1) * asked.seconds


def _slow_searches(study: Study, last: Facts) -> list[str]:
    """Searches of which a block takes so long that its first and last arm are no pair any more."""
    return [
        f"capacity of {asked.workload}: a block of {len(study.arms)} arms takes about {seconds / 3600:.1f} hours, and "
        f"two searches further apart than {MAX_APART_S / 3600:g} hours are no pair. Probe shorter, or fewer arms."
        for asked in study.capacity
        for seconds in (_search_seconds(asked, last) * len(study.arms),)
        if seconds > MAX_APART_S
    ]


def _problems(study: Study, policy: Policy, speed: Sequence[SpeedNeed], quality: Sequence[QualityNeed]) -> list[str]:
    """Required gates that the study as written could not decide in favour of an arm that deserves it, and guards that
    noise alone breaks.
    """
    found = [
        f"gate {gate.name}: its bound is the baseline itself, so noise breaks it in "
        f"{50 * (1 - policy.confidence_of(gate.metric)):.2g} % of nights at every "
        "load point, for the identity control too, which voids the night. Leave it slack, such as "
        f"{'at_most: 1.05' if bound_of(gate)[0] == 'at_most' else 'at_least: 0.95'}."
        for gate in policy.gates
        if gate.required and gate.category in OVER_BLOCKS and not gate.benefit and bound_of(gate)[1] == 1
    ]
    for need in speed:
        if not need.required or need.noise is None or need.expected is None:
            continue
        if need.blocks is None or need.blocks > study.blocks:
            wanted = "more blocks than any study has" if need.blocks is None else f"{need.blocks} blocks"
            found.append(
                f"gate {need.gate} at {need.load_point}: to prove {need.bound:.3g} where the truth is "
                f"{need.expected:.3g}, with block noise of {100 * need.noise:.1f} %, takes {wanted}; the study runs "
                f"{study.blocks}."
            )
    for each in quality:
        if not each.required or not each.identity or each.declared is None:
            continue
        if each.documents is None or each.documents > each.declared:
            wanted = "more documents than any suite has" if each.documents is None else f"{each.documents:,} documents"
            found.append(
                f"gate {each.gate} on {each.suite}: a margin of {100 * each.margin:g} points takes {wanted} even for "
                f"the baseline against itself; the suite asks {each.declared:,}."
            )
    return list(dict.fromkeys(found))
