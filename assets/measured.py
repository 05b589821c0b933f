"""What is measured on the served engines: arms, trials, divergences, suites, and the baseline's profile."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from assets.common import common, key
from assets.evaluating import measure_suites
from assets.measuring import measure_divergence, measure_trials, start_engines
from assets.metadata import definition_metadata, rows_metadata, table_specs
from assets.searching import measure_capacity
from assets.session import Session
from assets.surveyed import surveyed_keys
from assets.tracing import table_metadata
from steelyard.profiling.phases import profile
from steelyard.records import ArmRow, Row
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.records_trials import EngineMetricRow, ProbeRow, RequestRow, TrialRow
from steelyard.reports.markdown import (
    arm_table,
    capacity_table,
    divergence_table,
    profile_table,
    suite_table,
    trial_table,
)
from steelyard.study_file import LoadedStudy


def served_assets(loaded: LoadedStudy) -> list[dg.AssetsDefinition]:
    """`arms`: the engines up, with what each resolved to."""

    @dg.asset(
        key=key(loaded, "arms"),
        deps=[key(loaded, "deployments")],
        description="Every arm served once, with the configuration its engine resolved and its deployment digest.",
        metadata=definition_metadata(ArmRow),
        **common(loaded, "served", "python", "duckdb"),
    )
    def arms(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        with session.step("arms", run):
            rows = start_engines(session, loaded, run)
        return dg.MaterializeResult(metadata=table_metadata(loaded, run.run_id, "arms", rows, arm_table(rows)))

    return [arms]


def measured_assets(loaded: LoadedStudy) -> list[dg.AssetsDefinition]:
    """`trials` with `requests` and `engine_metrics`, `suites` with `samples`, `baseline_profile`; `divergences` and
    `probes` where the study asks for that screen and for capacities.
    """
    screens, searches = screen_assets(loaded), search_assets(loaded)
    shared = common(loaded, "measured", "python", "duckdb")
    group_name = shared["group_name"]

    @dg.multi_asset(
        name=f"{group_name}_suites",
        specs=table_specs(
            loaded,
            "measured",
            (SuiteRow, SampleRow),
            [key(loaded, "arms"), *surveyed_keys(loaded), *(key(loaded, "divergences") for _ in screens)],
        ),
    )
    def suites(session: dg.ResourceParam[Session]) -> Iterator[dg.MaterializeResult]:
        run = session.run(loaded)
        with session.step("suites", run):
            measure_suites(session, loaded, run)
        rows = session.store.read(SuiteRow, run_id=run.run_id)
        told = table_metadata(loaded, run.run_id, "suites", rows, suite_table(rows))
        yield dg.MaterializeResult(asset_key=key(loaded, "suites"), metadata=told)
        count = row_count(session, SampleRow, run.run_id)
        told = table_metadata(loaded, run.run_id, "samples", count)
        yield dg.MaterializeResult(asset_key=key(loaded, "samples"), metadata=told)

    @dg.multi_asset(
        name=f"{group_name}_trials",
        # After the suites: both need the machine for themselves, and an arm that they reject need not be timed.
        specs=table_specs(
            loaded,
            "measured",
            (TrialRow, RequestRow, EngineMetricRow),
            [key(loaded, name) for name in ("arms", "suites", "samples")],
        ),
    )
    def trials(session: dg.ResourceParam[Session]) -> Iterator[dg.MaterializeResult]:
        run = session.run(loaded)
        with session.step("trials", run):
            measure_trials(session, loaded, run)
        if not searches:
            session.close_engines()
        rows = session.store.read(TrialRow, run_id=run.run_id)
        invalid = sum(not row.valid for row in rows)
        told = table_metadata(loaded, run.run_id, "trials", rows, trial_table(rows), invalid=invalid)
        yield dg.MaterializeResult(asset_key=key(loaded, "trials"), metadata=told)
        for row_class in (RequestRow, EngineMetricRow):
            count = row_count(session, row_class, run.run_id)
            told = table_metadata(loaded, run.run_id, row_class.TABLE, count)
            yield dg.MaterializeResult(asset_key=key(loaded, row_class.TABLE), metadata=told)

    @dg.asset(
        key=key(loaded, "baseline_profile"),
        deps=[key(loaded, "engine_metrics"), key(loaded, "trials")],
        description="Where the baseline's time goes, by the engine's own account: queue, prefill, decode; cache hits.",
        **shared,
    )
    def baseline_profile(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        metrics = session.store.read(EngineMetricRow, run_id=run.run_id, arm="baseline")
        trials_of = session.store.read(TrialRow, run_id=run.run_id, arm="baseline")
        return dg.MaterializeResult(metadata=rows_metadata(len(metrics), profile_table(profile(metrics, trials_of))))

    return [*screens, suites, trials, *searches, baseline_profile]


def screen_assets(loaded: LoadedStudy) -> list[dg.AssetsDefinition]:
    """`divergences`, or nothing. First of all, because a screen is cheap and may reject."""
    if loaded.study.divergence is None:
        return []

    @dg.asset(
        key=key(loaded, "divergences"),
        deps=[key(loaded, "arms"), *surveyed_keys(loaded)],
        description=DivergenceRow.MEANING,
        metadata=definition_metadata(DivergenceRow),
        **common(loaded, "measured", "python", "duckdb"),
    )
    def divergences(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        with session.step("screen", run):
            measure_divergence(session, loaded, run)
        rows = session.store.read(DivergenceRow, run_id=run.run_id)
        arms = session.store.read(ArmRow, run_id=run.run_id)
        unknown = sum(row.error is not None for row in rows)
        table = divergence_table(rows, arms)
        told = table_metadata(loaded, run.run_id, "divergences", rows, table, unknown=unknown)
        return dg.MaterializeResult(metadata=told)

    return [divergences]


def search_assets(loaded: LoadedStudy) -> list[dg.AssetsDefinition]:
    """`probes`, or nothing. Last of all, because a search takes longest and rejected arms need none."""
    if not loaded.study.capacity:
        return []

    @dg.asset(
        key=key(loaded, "probes"),
        deps=[key(loaded, "trials")],
        description=ProbeRow.MEANING,
        metadata=definition_metadata(ProbeRow),
        **common(loaded, "measured", "python", "duckdb"),
    )
    def probes(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        with session.step("capacity", run):
            measure_capacity(session, loaded, run)
        session.close_engines()
        rows = session.store.read(ProbeRow, run_id=run.run_id)
        table = capacity_table(rows, loaded.study.capacity)
        invalid = sum(not row.valid for row in rows)
        return dg.MaterializeResult(metadata=table_metadata(loaded, run.run_id, "probes", rows, table, invalid=invalid))

    return [probes]


def row_count(session: Session, row_class: type[Row], run_id: str) -> int:
    """Rows of a run in a table, without reading them."""
    return int(session.store.scalar(f"SELECT count(*) FROM {row_class.TABLE} WHERE run_id = ?", [run_id]))
