"""What a report is made of: the rows of one run, and the few ways a page looks them up.

The warehouse is not imported here: whoever holds it fills `Facts`. Nothing in this room computes a statistic that
decides anything; it arranges what was recorded.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from steelyard.errors import InputError
from steelyard.gates.policy import CATEGORIES
from steelyard.profiling.phases import plain_name
from steelyard.records import ArmRow, ComparisonRow, GateRow, PriceRow, PromotionRow, StudyRow, UnitCostRow, VerdictRow
from steelyard.records_incidents import IncidentEndRow, IncidentRow, ReinstatementRow, RevocationRow
from steelyard.records_keeping import ThinningRow
from steelyard.records_profile import (
    CeilingRow,
    OperatorRow,
    OpportunityRow,
    ProfileRow,
    ProfileStepRow,
    RooflineRow,
)
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.records_time import WallTimeRow
from steelyard.records_trials import EngineMetricRow, ProbeRow, RequestRow, TrialRow

VERDICT_ORDER = {"promote": 0, "inconclusive": 1, "reject": 2, "void": 3, None: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A data contract as it was checked on the rows of this run."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The rows of one run.

    `contracts` are the data contracts checked on them, in the order to show. `command` is the exact command that
    started the run, `study_path` the study's place relative to the checkout; both are shown, never executed.
    Raises InputError if a row belongs to another run, because two runs in one table would read as one.
    """

    study: StudyRow
    arms: Sequence[ArmRow] = ()
    trials: Sequence[TrialRow] = ()
    requests: Sequence[RequestRow] = ()
    suites: Sequence[SuiteRow] = ()
    samples: Sequence[SampleRow] = ()
    divergences: Sequence[DivergenceRow] = ()
    probes: Sequence[ProbeRow] = ()
    comparisons: Sequence[ComparisonRow] = ()
    gates: Sequence[GateRow] = ()
    verdicts: Sequence[VerdictRow] = ()
    prices: Sequence[PriceRow] = ()
    unit_costs: Sequence[UnitCostRow] = ()
    engine_metrics: Sequence[EngineMetricRow] = ()
    promotions: Sequence[PromotionRow] = ()
    profiles: Sequence[ProfileRow] = ()
    profile_steps: Sequence[ProfileStepRow] = ()
    operators: Sequence[OperatorRow] = ()
    ceilings: Sequence[CeilingRow] = ()
    rooflines: Sequence[RooflineRow] = ()
    opportunities: Sequence[OpportunityRow] = ()
    wall_times: Sequence[WallTimeRow] = ()
    thinnings: Sequence[ThinningRow] = ()
    incidents: Sequence[IncidentRow] = ()
    incident_ends: Sequence[IncidentEndRow] = ()
    revocations: Sequence[RevocationRow] = ()
    reinstatements: Sequence[ReinstatementRow] = ()
    contracts: Sequence[Contract] = ()
    command: str | None = None
    study_path: str | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in ("study", "contracts", "command", "study_path"):
                continue
            strangers = {row.run_id for row in value} - {self.study.run_id}
            if strangers:
                raise InputError(
                    f"{each.name} hold rows of run {min(strangers)}, the report is about run {self.study.run_id}.",
                    remedy="Read every table with the same run_id.",
                    field=each.name,
                )

    @cached_property
    def asked(self) -> dict[str, Any]:
        """The study as written; empty where it cannot be read, which only costs the page details."""
        return _object(self.study.study_json)

    @cached_property
    def policy(self) -> dict[str, Any]:
        """The policy as written."""
        return _object(self.study.policy_json)

    @cached_property
    def confidence(self) -> float | None:
        """Two-sided confidence of the policy's intervals."""
        value = self.policy.get("confidence")
        return float(value) if isinstance(value, int | float) else None

    @cached_property
    def arm_of(self) -> dict[str, ArmRow]:
        """Arms by name."""
        return {row.arm: row for row in self.arms}

    @cached_property
    def baseline(self) -> str | None:
        """Name of the baseline arm; None if the run died before it was recorded."""
        return next((row.arm for row in self.arms if row.role == "baseline"), None)

    @cached_property
    def verdict_of(self) -> dict[str, VerdictRow]:
        """Verdicts by arm."""
        return {row.arm: row for row in self.verdicts}

    @cached_property
    def gates_of(self) -> dict[str, list[GateRow]]:
        """Gates by arm, the gravest first, then by name and scope: never in the order they happened to be stored."""
        return _group(sorted(self.gates, key=lambda g: (CATEGORIES.index(g.category), g.gate, g.scope)), "arm")

    @cached_property
    def comparison(self) -> dict[tuple[str, str, str], ComparisonRow]:
        """Comparisons by (arm, metric, scope)."""
        return {(row.arm, row.metric, row.scope): row for row in self.comparisons}

    @cached_property
    def load_points(self) -> list[str]:
        """Load points in the study's order; those only the trials know come last, by name."""
        asked = []
        for workload in self.asked.get("workloads") or []:
            for load in workload.get("load") or []:
                closed = load.get("concurrency")
                rate = load.get("rate")
                if closed is not None:
                    asked.append(f"{workload.get('name')}@c{closed}")
                elif rate is not None:
                    asked.append(f"{workload.get('name')}@r{rate:g}")
        seen = {row.load_point for row in self.trials} | {row.load_point for row in self.unit_costs}
        return [*asked, *sorted(seen - set(asked))]

    @cached_property
    def workload_of(self) -> dict[str, dict[str, Any]]:
        """Workloads of the study by name."""
        return {str(each.get("name")): each for each in self.asked.get("workloads") or []}

    def slo(self, load_point: str) -> dict[str, float]:
        """SLO limits in force at a load point, seconds by ttft_s, itl_s, e2e_s; those not asked for are absent."""
        workload = self.workload_of.get(load_point.rpartition("@")[0], {})
        limits = workload.get("slo") or self.asked.get("slo") or {}
        return {key: float(value) for key, value in limits.items() if value is not None}

    @cached_property
    def trials_at(self) -> dict[tuple[str, str], list[TrialRow]]:
        """Trials by (arm, load point), in block order."""
        at: dict[tuple[str, str], list[TrialRow]] = defaultdict(list)
        for row in sorted(self.trials, key=lambda row: (row.block, row.position, row.trial_id)):
            at[row.arm, row.load_point].append(row)
        return dict(at)

    @cached_property
    def requests_of(self) -> dict[str, list[RequestRow]]:
        """Requests by trial."""
        return _group(self.requests, "trial_id")

    @cached_property
    def metrics_of(self) -> dict[str, dict[str, float]]:
        """Engine metrics by trial and name, without the engine's own prefix (`vllm:`) and a trailing `_total`."""
        of: dict[str, dict[str, float]] = defaultdict(dict)
        for row in self.engine_metrics:
            of[row.trial_id][plain_name(row.metric)] = row.value
        return dict(of)

    @cached_property
    def suite_of(self) -> dict[tuple[str, str], SuiteRow]:
        """Suites by (arm, suite)."""
        return {(row.arm, row.suite): row for row in self.suites}

    @cached_property
    def suite_names(self) -> list[str]:
        """Suites in the study's order, safety first, because harm is read first."""
        asked = [str(each.get("name")) for each in self.asked.get("suites") or []]
        category = {str(each.get("name")): each.get("category") for each in self.asked.get("suites") or []}
        category |= {row.suite: row.category for row in self.suites}
        names = [*asked, *sorted({row.suite for row in self.suites} - set(asked))]
        return sorted(names, key=lambda name: category.get(name) != "safety")

    @cached_property
    def samples_of(self) -> dict[str, dict[tuple[str, str, str], SampleRow]]:
        """Samples by arm, then by (suite, doc_hash, prompt_hash): the content they are paired on."""
        of: dict[str, dict[tuple[str, str, str], SampleRow]] = defaultdict(dict)
        for row in self.samples:
            of[row.arm][row.suite, row.doc_hash, row.prompt_hash] = row
        return dict(of)

    @cached_property
    def cost_of(self) -> dict[tuple[str, str], UnitCostRow]:
        """Unit costs by (arm, load point)."""
        return {(row.arm, row.load_point): row for row in self.unit_costs}

    @cached_property
    def judged(self) -> list[ArmRow]:
        """Every arm but the baseline: candidates by verdict and gain, then the identity, then known-bad controls."""
        roles = ("candidate", "identity", "known_bad")

        def key(row: ArmRow) -> tuple[int, int, float, str]:
            verdict = self.verdict_of.get(row.arm)
            gate = self.benefit(row.arm)
            gain = gate.estimate if gate is not None and gate.estimate is not None else 0.0
            if gate is not None and gate.bound_kind == "at_most" and gain:
                gain = 1 / gain
            return roles.index(row.role), VERDICT_ORDER.get(verdict.verdict if verdict else None, 4), -gain, row.arm

        return sorted((row for row in self.arms if row.role != "baseline"), key=key)

    @cached_property
    def arm_names(self) -> list[str]:
        """The baseline, then the judged arms in their order."""
        return [row.arm for row in self.arms if row.role == "baseline"] + [row.arm for row in self.judged]

    def benefit(self, arm: str) -> GateRow | None:
        """The gate that asks this arm for a gain: on its claimed load point, required and about speed if possible."""
        row = self.arm_of.get(arm)
        claim = row.claim if row else None
        asked = [gate for gate in self.gates_of.get(arm, []) if gate.benefit]
        ordered = sorted(asked, key=lambda gate: (not gate.required, gate.scope != claim, gate.category != "speed"))
        return ordered[0] if ordered else None

    def confidence_of(self, arm: str, metric: str, scope: str) -> float | None:
        """Confidence of an interval: the comparison's own, else the policy's."""
        row = self.comparison.get((arm, metric, scope))
        return row.confidence if row is not None else self.confidence


def _group(rows: Sequence[Any], key: str) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        groups[getattr(row, key)].append(row)
    return dict(groups)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
