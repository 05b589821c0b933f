"""What is compared: each arm against the baseline in speed, quality and cost."""

from __future__ import annotations

import dagster as dg

from assets.common import common, key
from assets.metadata import definition_metadata, rows_metadata
from assets.session import Session
from assets.tracing import table_metadata, traced
from steelyard.finops.unit_cost import unit_costs
from steelyard.gates.comparing import Comparing
from steelyard.gates.policy import QUALITY
from steelyard.records import ArmRow, ComparisonRow, StudyRow, UnitCostRow
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.records_trials import ProbeRow, TrialRow
from steelyard.reports.markdown import comparison_table, cost_table
from steelyard.study_file import LoadedStudy


def compared_assets(loaded: LoadedStudy) -> list[dg.AssetsDefinition]:
    """`speed_comparisons`, `quality_comparisons`, `unit_costs`, `cost_comparisons`; `divergence_comparisons` and
    `capacity_comparisons` where the study asks for that screen and for capacities.
    """
    shared = common(loaded, "compared", "python", "duckdb")
    arms = [arm.name for arm in loaded.study.arms if arm.gated]
    price = loaded.prices.price(loaded.study.hardware.price)

    def comparing(session: Session, run: StudyRow) -> Comparing:
        rows = [row for row in session.store.read(ArmRow, run_id=run.run_id) if row.arm in arms]
        rows.sort(key=lambda row: arms.index(row.arm))
        return Comparing(run.run_id, loaded.policy, loaded.study.blocks, rows)

    @dg.asset(
        key=key(loaded, "speed_comparisons"),
        deps=[key(loaded, name) for name in ("trials", "requests", "engine_metrics")],
        description="Paired ratios over blocks, per load point and speed metric.",
        metadata=definition_metadata(ComparisonRow, "speed_comparisons"),
        **shared,
    )
    def speed_comparisons(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        rows = comparing(session, run).speed(session.store.read(TrialRow, run_id=run.run_id))
        return stored(session, loaded, run, rows, "speed")

    @dg.asset(
        key=key(loaded, "quality_comparisons"),
        deps=[key(loaded, "samples"), key(loaded, "suites")],
        description="Paired differences over samples, per suite; missing samples count against the arm.",
        metadata=definition_metadata(ComparisonRow, "quality_comparisons"),
        **shared,
    )
    def quality_comparisons(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        rows = comparing(session, run).quality(
            session.store.read(SampleRow, run_id=run.run_id), session.store.read(SuiteRow, run_id=run.run_id)
        )
        return stored(session, loaded, run, rows, *QUALITY)

    @dg.asset(
        key=key(loaded, "unit_costs"),
        deps=[key(loaded, name) for name in ("trials", "requests", "engine_metrics")],
        description=f"US dollars per million tokens at the price {price.name}: {price.source}, {price.dated}.",
        metadata=definition_metadata(UnitCostRow),
        **shared,
    )
    def unit_cost_rows(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        rows = unit_costs(
            run.run_id,
            session.store.read(ArmRow, run_id=run.run_id),
            session.store.read(TrialRow, run_id=run.run_id),
            price,
            loaded.policy.confidence,
        )
        session.store.replace_run(run.run_id, UnitCostRow, rows)
        told = table_metadata(loaded, run.run_id, "unit_costs", rows, cost_table(rows))
        return dg.MaterializeResult(metadata=told)

    @dg.asset(
        key=key(loaded, "cost_comparisons"),
        deps=[key(loaded, "unit_costs")],
        description="Paired ratios of unit costs over blocks.",
        metadata=definition_metadata(ComparisonRow, "cost_comparisons"),
        **shared,
    )
    def cost_comparisons(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        rows = comparing(session, run).cost(
            session.store.read(UnitCostRow, run_id=run.run_id), session.store.read(TrialRow, run_id=run.run_id)
        )
        return stored(session, loaded, run, rows, "cost")

    @dg.asset(
        key=key(loaded, "divergence_comparisons"),
        deps=[key(loaded, "divergences")],
        description="Mean KL and agreement with the baseline over the prompts of the screen, with intervals.",
        metadata=definition_metadata(ComparisonRow, "divergence_comparisons"),
        **shared,
    )
    def divergence_comparisons(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        rows = comparing(session, run).divergence(session.store.read(DivergenceRow, run_id=run.run_id))
        return stored(session, loaded, run, rows, "divergence")

    @dg.asset(
        key=key(loaded, "capacity_comparisons"),
        deps=[key(loaded, "probes")],
        description="Paired ratios over blocks of the largest arrival rates at which the SLO holds.",
        metadata=definition_metadata(ComparisonRow, "capacity_comparisons"),
        **shared,
    )
    def capacity_comparisons(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        probes = session.store.read(ProbeRow, run_id=run.run_id)
        rows = comparing(session, run).capacity(probes, loaded.study.capacity)
        return stored(session, loaded, run, rows, "capacity")

    found = [speed_comparisons, quality_comparisons, unit_cost_rows, cost_comparisons]
    found += [divergence_comparisons] if loaded.study.divergence is not None else []
    return [*found, capacity_comparisons] if loaded.study.capacity else found


def stored(
    session: Session, loaded: LoadedStudy, run: StudyRow, rows: list[ComparisonRow], *categories: str
) -> dg.MaterializeResult:
    """Replace the run's comparisons of these categories in one transaction; those of other categories stay."""
    others = [row for row in session.store.read(ComparisonRow, run_id=run.run_id) if row.category not in categories]
    session.store.replace_run(run.run_id, ComparisonRow, [*others, *rows])
    asset = "quality_comparisons" if categories == QUALITY else f"{categories[0]}_comparisons"
    only = {"category": categories[0]} if len(categories) == 1 else {}
    traces = traced(loaded, asset, run.run_id, "comparisons", **only)
    return dg.MaterializeResult(metadata={**rows_metadata(rows, comparison_table(rows)), **traces})
