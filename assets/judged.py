"""Judgement: one asset per arm with its gate checks, and the study's own validity."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from assets.common import asset_safe, common, key
from assets.evidence import gates_of
from assets.metadata import definition_metadata, rows_metadata
from assets.session import Session
from assets.tracing import rows_link, traced
from steelyard.gates.verdict import verdicts, void, void_reasons
from steelyard.records import ArmRow, ComparisonRow, GateRow, StudyRow, UnitCostRow, VerdictRow
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.records_trials import ProbeRow, TrialRow
from steelyard.reports.markdown import gate_table, verdict_table
from steelyard.study import Arm
from steelyard.study_file import LoadedStudy
from warehouse.store import Store

ALWAYS_CHECKED = ("speed", "accuracy", "safety", "cost")


def categories_of(loaded: LoadedStudy) -> tuple[str, ...]:
    """The checks of every judged arm; canaries, the screen and capacities only where a required gate is on them."""
    asked = {gate.category for gate in loaded.policy.gates if gate.required}
    return (*ALWAYS_CHECKED, *(category for category in ("canary", "divergence", "capacity") if category in asked))


def judged_assets(loaded: LoadedStudy) -> list[dg.AssetsDefinition]:
    """A verdict per arm, and `study_validity` over all of them."""
    each = [verdict_asset(loaded, arm) for arm in loaded.study.arms if arm.gated]
    return [*each, validity_asset(loaded)]


def verdict_asset(loaded: LoadedStudy, arm: Arm) -> dg.AssetsDefinition:
    """The gates of one arm. A failed gate is a result: checks carry ERROR severity and do not fail the run."""
    asset_key = key(loaded, f"verdict_{arm.name}")
    categories = categories_of(loaded)
    compared = ["speed_comparisons", "quality_comparisons", "cost_comparisons"]
    if loaded.study.divergence is not None:
        compared.append("divergence_comparisons")
    if loaded.study.capacity:
        compared.append("capacity_comparisons")

    @dg.asset(
        key=asset_key,
        deps=[key(loaded, name) for name in compared],
        description=arm.note or f"{arm.role} {arm.name}",
        metadata=definition_metadata(VerdictRow, "verdict"),
        tags={"steelyard/role": arm.role, **({"steelyard/lever": arm.lever} if arm.lever else {})},
        check_specs=[
            dg.AssetCheckSpec(category, asset=asset_key, description=f"All required {category} gates pass.")
            for category in categories
        ],
        **common(loaded, "judged", "duckdb"),
    )
    def verdict(session: dg.ResourceParam[Session]) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        run = session.run(loaded)
        gates, row = judge(session, loaded, run, arm)
        yield dg.MaterializeResult(
            metadata={
                **rows_metadata(gates, gate_table(gates)),
                "verdict": row.verdict,
                "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in row.reasons)),
                "run_id": run.run_id,
                "deployment_digest": row.deployment_digest or "n/a",
                **traced(loaded, "verdict", run.run_id, "verdicts", arm=arm.name),
                "gates_rows": rows_link(run.run_id, "gate_results", {"arm": arm.name}),
                **{f"estimate/{asset_safe(gate.gate)}": gate.estimate for gate in gates if gate.estimate is not None},
            }
        )
        for category in categories:
            yield gate_check(category, gates)

    return verdict


def judge(session: Session, loaded: LoadedStudy, run: StudyRow, arm: Arm) -> tuple[list[GateRow], VerdictRow]:
    """Evaluate and store the gates and the verdict of one arm, from stored comparisons alone."""
    arms = session.store.read(ArmRow, run_id=run.run_id)
    own = next(row for row in arms if row.arm == arm.name)
    comparisons = session.store.read(ComparisonRow, run_id=run.run_id, arm=arm.name)
    gates = gates_of(loaded, run.run_id, arm.name, arms, comparisons)
    baseline = next(row for row in arms if row.role == "baseline")
    [row] = verdicts(run.run_id, loaded.policy, run.policy_digest, [baseline, own], gates, datetime.now(UTC))
    others = [gate for gate in session.store.read(GateRow, run_id=run.run_id) if gate.arm != arm.name]
    session.store.replace_run(run.run_id, GateRow, [*others, *gates])
    session.store.write([row])
    return gates, row


def gate_check(category: str, gates: list[GateRow]) -> dg.AssetCheckResult:
    """Fail-closed: a category passes only if it has required gates and all of them pass."""
    own = [gate for gate in gates if gate.category == category]
    required = [gate for gate in own if gate.required]
    worst = [gate for gate in required if gate.outcome != "pass"]
    return dg.AssetCheckResult(
        check_name=category,
        passed=bool(required) and not worst,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(gate.reason for gate in worst) or None,
        metadata={
            "gates": dg.MetadataValue.md(gate_table(own)),
            **{f"{gate.gate}/{gate.scope}": gate.estimate for gate in own if gate.estimate is not None},
        },
    )


def why_void(store: Store, run: StudyRow) -> list[str]:
    """Why no verdict of the run may be believed."""
    # Of samples only whose they are is asked, and there may be a million.
    whose = ("arm", "suite", "deployment_digest")
    return void_reasons(
        store.read(ArmRow, run_id=run.run_id),
        store.read(VerdictRow, run_id=run.run_id),
        store.read(GateRow, run_id=run.run_id),
        suites=store.read(SuiteRow, run_id=run.run_id),
        trials=store.read(TrialRow, run_id=run.run_id),
        samples=store.read(SampleRow, one_per=whose, run_id=run.run_id),
        costs=store.read(UnitCostRow, run_id=run.run_id),
        divergences=store.read(DivergenceRow, run_id=run.run_id),
        probes=store.read(ProbeRow, run_id=run.run_id),
    )


def validity_asset(loaded: LoadedStudy) -> dg.AssetsDefinition:
    """The study's own controls decide whether any verdict may be believed; if not, all become void."""
    asset_key = key(loaded, "study_validity")

    @dg.asset(
        key=asset_key,
        deps=[key(loaded, f"verdict_{arm.name}") for arm in loaded.study.arms if arm.gated],
        description="Identity control not promoted and unharmed, known-bad controls rejected; otherwise all is void.",
        metadata=definition_metadata(VerdictRow, "study_validity"),
        check_specs=[
            dg.AssetCheckSpec("controls_hold", asset=asset_key, blocking=True, description="No verdict is void.")
        ],
        **common(loaded, "judged", "duckdb"),
    )
    def validity(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        gates = session.store.read(GateRow, run_id=run.run_id)
        rows = session.store.read(VerdictRow, run_id=run.run_id)
        problems = why_void(session.store, run)
        if problems:
            rows = void(rows, problems)
            session.store.write(rows)
            session.void_reasons[run.run_id] = problems
        return dg.MaterializeResult(
            metadata={
                **rows_metadata(rows, verdict_table(rows, gates)),
                **traced(loaded, "study_validity", run.run_id, "verdicts"),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="controls_hold",
                    passed=not problems,
                    severity=dg.AssetCheckSeverity.ERROR,
                    metadata={"problems": dg.MetadataValue.md("\n".join(f"- {each}" for each in problems) or "none")},
                )
            ],
        )

    return validity
