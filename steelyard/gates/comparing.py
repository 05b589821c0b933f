"""Comparisons as a policy asks for them: at its confidence, and with its looks.

Whoever compares goes through here (the run, what is settled while it measures, whoever checks it later), so that all of
them compare alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.comparisons import compare_cost, compare_speed
from steelyard.divergence_comparisons import compare_divergence
from steelyard.gates.policy import Policy
from steelyard.gates.settled import looks_of
from steelyard.quality_comparisons import compare_quality
from steelyard.records import ComparisonRow, DivergenceRow, SampleRow, SuiteRow, TrialRow, UnitCostRow


@dataclass(frozen=True, slots=True)
class Comparing:
    """The named arms of a run against its baseline. `blocks` are those the study asked for."""

    run_id: str
    policy: Policy
    blocks: int
    arms: Sequence[str]
    baseline: str = "baseline"

    def speed(self, trials: Sequence[TrialRow]) -> list[ComparisonRow]:
        """`compare_speed`."""
        return compare_speed(
            self.run_id, trials, arms=self.arms, baseline=self.baseline, confidence=self.policy.confidence,
            looks=looks_of(self.policy, self.blocks),
        )  # fmt: skip

    def cost(self, costs: Sequence[UnitCostRow], trials: Sequence[TrialRow]) -> list[ComparisonRow]:
        """`compare_cost`."""
        return compare_cost(
            self.run_id, costs, trials, arms=self.arms, baseline=self.baseline, confidence=self.policy.confidence,
            looks=looks_of(self.policy, self.blocks),
        )  # fmt: skip

    def quality(self, samples: Sequence[SampleRow], suites: Sequence[SuiteRow]) -> list[ComparisonRow]:
        """`compare_quality`."""
        return compare_quality(
            self.run_id, samples, suites, arms=self.arms, baseline=self.baseline, confidence=self.policy.confidence,
            stop_early=self.policy.stop_early,
        )  # fmt: skip

    def divergence(self, divergences: Sequence[DivergenceRow]) -> list[ComparisonRow]:
        """`compare_divergence`."""
        return compare_divergence(self.run_id, divergences, arms=self.arms, confidence=self.policy.confidence)
