"""Comparisons as a policy asks for them: at its gates' confidence, less what earlier attempts spent, with its looks.

Whoever compares goes through here (the run, what is settled while it measures, whoever checks it later), so that all of
them compare alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from steelyard.capacity_comparisons import compare_capacity
from steelyard.comparisons import compare_cost, compare_speed
from steelyard.divergence_comparisons import compare_divergence
from steelyard.gates.policy import CapacityMetric, CostMetric, DivergenceMetric, Policy, QualityMetric, SpeedMetric
from steelyard.gates.settled import looks_of
from steelyard.quality_comparisons import compare_quality
from steelyard.records import ArmRow, ComparisonRow, UnitCostRow
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.records_trials import ProbeRow, TrialRow
from steelyard.study_capacity import CapacitySearch

GROUPS = (SpeedMetric, CapacityMetric, CostMetric, QualityMetric, DivergenceMetric)
METRICS: tuple[str, ...] = tuple(name for group in GROUPS for name in get_args(group))


@dataclass(frozen=True, slots=True)
class Comparing:
    """`arms` of a run against its baseline; `blocks` are those the study asked for."""

    run_id: str
    policy: Policy
    blocks: int
    arms: Sequence[ArmRow]
    baseline: str = "baseline"

    def speed(self, trials: Sequence[TrialRow]) -> list[ComparisonRow]:
        """`compare_speed`."""
        looks = looks_of(self.policy, self.blocks)
        return self._each(lambda **of: compare_speed(self.run_id, trials, baseline=self.baseline, looks=looks, **of))

    def capacity(self, probes: Sequence[ProbeRow], searches: Sequence[CapacitySearch]) -> list[ComparisonRow]:
        """`compare_capacity`."""
        looks = looks_of(self.policy, self.blocks)
        return self._each(
            lambda **of: compare_capacity(self.run_id, probes, searches, baseline=self.baseline, looks=looks, **of)
        )

    def cost(self, costs: Sequence[UnitCostRow], trials: Sequence[TrialRow]) -> list[ComparisonRow]:
        """`compare_cost`."""
        looks = looks_of(self.policy, self.blocks)
        return self._each(
            lambda **of: compare_cost(self.run_id, costs, trials, baseline=self.baseline, looks=looks, **of)
        )

    def quality(self, samples: Sequence[SampleRow], suites: Sequence[SuiteRow]) -> list[ComparisonRow]:
        """`compare_quality`."""
        early = self.policy.stop_early
        return self._each(
            lambda **of: compare_quality(self.run_id, samples, suites, baseline=self.baseline, stop_early=early, **of)
        )

    def divergence(self, divergences: Sequence[DivergenceRow]) -> list[ComparisonRow]:
        """`compare_divergence`."""
        return self._each(lambda **of: compare_divergence(self.run_id, divergences, **of))

    def _each(self, compare: Callable[..., list[ComparisonRow]]) -> list[ComparisonRow]:
        """What `compare` gives for each attempt's arms at the confidence of that attempt."""
        rows: list[ComparisonRow] = []
        by_attempt: dict[int, list[str]] = {}
        for arm in self.arms:
            by_attempt.setdefault(arm.attempt or 1, []).append(arm.arm)
        for attempt, names in by_attempt.items():
            confidence: dict[str, Any] = {name: self.policy.confidence_of(name, attempt) for name in METRICS}
            rows += compare(arms=names, confidence=confidence)
        return rows
