"""What leaves the house: promotions, the published snapshot, the report."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import dagster as dg

from assets.attempts import attempt_problems
from assets.common import common, key
from assets.incidents import carried
from assets.judged import why_void
from assets.metadata import definition_metadata, rows_metadata
from assets.runs import conclude
from assets.session import Session
from steelyard.confirmation import awaits_confirmation, promoted_study
from steelyard.errors import InfrastructureError, SteelyardError, StudyVoid
from steelyard.files import write_whole
from steelyard.gates.evaluate import scopes_in
from steelyard.gates.promotion import promotion_refusals
from steelyard.gates.recompute import recompute_problems
from steelyard.home import reports_path, snapshot_path
from steelyard.records import (
    ArmRow,
    ComparisonRow,
    DivergenceRow,
    GateRow,
    ProbeRow,
    PromotionRow,
    SampleRow,
    StudyRow,
    SuiteRow,
    TrialRow,
    UnitCostRow,
    VerdictRow,
)
from steelyard.records_incidents import IncidentEndRow, IncidentRow, RevocationRow
from steelyard.reports import build
from steelyard.study_file import LoadedStudy
from warehouse.facts import load_facts
from warehouse.publish import publish
from warehouse.store import Store


def released_assets(loaded: LoadedStudy) -> list[dg.AssetsDefinition]:
    """`promotions`, `published_snapshot`, `report`."""
    shared = common(loaded, "released", "duckdb")

    @dg.asset(
        key=key(loaded, "promotions"),
        deps=[key(loaded, "incidents")],
        description="Candidates in force: every gate evaluated again from stored rows; missing or stale means no.",
        metadata=definition_metadata(PromotionRow),
        **shared,
    )
    def promotions(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = releasable(session, loaded)
        rows, refused = promote(session.store, loaded, run)
        session.store.replace_run(run.run_id, PromotionRow, rows)
        table = "\n".join(
            [
                *(f"- promoted: {row.arm}" for row in rows),
                *(f"- refused: {arm}: {'; '.join(why)}" for arm, why in refused.items()),
            ]
        )
        return dg.MaterializeResult(metadata=rows_metadata(rows, table or "none"))

    @dg.asset(
        key=key(loaded, "published_snapshot"),
        deps=[key(loaded, "promotions"), key(loaded, "baseline_profile")],
        description="What analysts read: a DuckDB file and Parquet, swapped in atomically.",
        **common(loaded, "released", "duckdb", "parquet"),
    )
    def published_snapshot(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = releasable(session, loaded)
        session.keep_time(run)
        conclude(session.store, run, "complete")
        try:
            publish(session.store)
            path = snapshot_path()
        except BaseException:
            # Running again, so that the same command resumes and publishes what is measured.
            session.store.write([run])
            raise
        return dg.MaterializeResult(
            metadata={"path": dg.MetadataValue.path(str(path)), "run_id": run.run_id, "bytes": path.stat().st_size}
        )

    @dg.asset(
        key=key(loaded, "report"),
        deps=[published_snapshot],
        description="One self-contained page, made from the published snapshot.",
        **common(loaded, "released", "html"),
    )
    def report(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        path = write_report(session, run)
        return dg.MaterializeResult(
            metadata={"path": dg.MetadataValue.url(path.as_uri()), "bytes": path.stat().st_size, "run_id": run.run_id}
        )

    return [promotions, published_snapshot, report]


def releasable(session: Session, loaded: LoadedStudy) -> StudyRow:
    """The study's run, if it may be released: judged in full, and neither void nor given up.

    Asked again here and not only by blocking checks, because those gate within one Dagster run: an asset materialized
    alone would pass them by.
    """
    run = session.run(loaded)
    judged = {row.arm for row in session.store.read(VerdictRow, run_id=run.run_id)}
    missing = [arm.name for arm in loaded.study.arms if arm.gated and arm.name not in judged]
    problems = session.findings(run.run_id) or ([] if missing else why_void(session.store, run))
    if run.status in ("void", "failed") or problems:
        why = run.reason or "; ".join(problems)
        raise StudyVoid(f"Run {run.run_id} is {run.status}: {why}.", remedy="Nothing of it is released; run anew.")
    if missing:
        raise InfrastructureError(
            f"Run {run.run_id} has no verdict yet on {', '.join(missing)}.", remedy="Launch the study's whole job."
        )
    return run


def settle(session: Session) -> None:
    """Conclude and publish the runs that this session found void; their rows and their report say why.

    An infrastructure failure leaves a run `running`, hence resumable: what is measured stays, the same command goes on.
    """
    void = [run_id for run_id in session.run_ids if session.findings(run_id)]
    for run_id in void:
        [run] = session.store.read(StudyRow, run_id=run_id)
        for decided in (PromotionRow, IncidentRow, IncidentEndRow, RevocationRow):
            session.store.replace_run(run_id, decided, [])
        session.keep_time(run)
        concluded = conclude(session.store, run, "void", "; ".join(session.findings(run_id)))
        write_report(session, concluded)
    if void:
        publish(session.store)


def publish_late(session: Session) -> None:
    """Publish and report runs that a killed process had concluded and could not publish."""
    concluded = [row for row in session.store.read(StudyRow) if row.status in ("complete", "void")]
    published: set[str] = set()
    # A snapshot that cannot be read tells nothing, and the next publish puts a whole one in its place.
    with suppress(SteelyardError), Store.open_published() as snapshot:
        published = {row.run_id for row in snapshot.read(StudyRow) if row.status in ("complete", "void")}
    late = [row for row in concluded if row.run_id not in published]
    for row in late:
        if not (reports_path() / f"{row.run_id}.html").is_file():
            write_report(session, row)
    if late:
        publish(session.store)


def promote(store: Store, loaded: LoadedStudy, run: StudyRow) -> tuple[list[PromotionRow], dict[str, list[str]]]:
    """Promotions that stored evidence supports, and why the others whose verdict claims one are refused.

    The run is `releasable`: the reasons that would void it as a whole were asked for there.
    """
    rows: list[PromotionRow] = []
    refused: dict[str, list[str]] = {}
    verdicts = store.read(VerdictRow, run_id=run.run_id)
    if awaits_confirmation(loaded.study, loaded.policy):
        waits = "the policy promotes a campaign's winner only once it is confirmed: steelyard confirm"
        return rows, {row.arm: [waits] for row in verdicts if row.verdict == "promote"}
    # What earlier runs revoked is asked again: an asset materialized alone would pass `incidents` by.
    stands = [*carried(store, run, promoted_study(loaded.study)), *store.read(RevocationRow, run_id=run.run_id)]
    revoked = {row.arm: row for row in stands}
    refuse = partial(
        promotion_refusals,
        loaded.policy,
        loaded.policy_digest,
        run_id=run.run_id,
        **scopes_in(loaded.study),
        arms=store.read(ArmRow, run_id=run.run_id),
        comparisons=store.read(ComparisonRow, run_id=run.run_id),
        gates=store.read(GateRow, run_id=run.run_id),
        verdict_rows=verdicts,
        suite_rows=store.read(SuiteRow, run_id=run.run_id),
        problems=[*changed_evidence(store, loaded, run), *miscounted(store, loaded, run)],
    )
    for verdict in verdicts:
        if verdict.verdict != "promote":
            continue
        why = refuse(arm=verdict.arm)
        if taken := revoked.get(verdict.arm):
            why = [*why, f"run {taken.confirmed_by} took its promotion back: {taken.reason}"]
        if why or verdict.deployment_digest is None or verdict.baseline_digest is None:
            refused[verdict.arm] = why or ["a deployment digest is missing"]
            continue
        rows.append(
            PromotionRow(
                run_id=run.run_id,
                arm=verdict.arm,
                study=promoted_study(loaded.study),
                deployment_digest=verdict.deployment_digest,
                baseline_digest=verdict.baseline_digest,
                policy_digest=run.policy_digest,
                promoted_at=datetime.now(UTC),
            )
        )
    return rows, refused


def miscounted(store: Store, loaded: LoadedStudy, run: StudyRow) -> list[str]:
    """Attempts that are stored as less than they are, where the policy makes them cost something."""
    if loaded.policy.attempts == "free":
        return []
    return attempt_problems(store, store.read(ArmRow, run_id=run.run_id))


def changed_evidence(store: Store, loaded: LoadedStudy, run: StudyRow) -> list[str]:
    """Stored comparisons that the stored trials and samples no longer give."""
    return recompute_problems(
        run.run_id,
        loaded.policy,
        blocks=loaded.study.blocks,
        arms=store.read(ArmRow, run_id=run.run_id),
        trials=store.read(TrialRow, run_id=run.run_id),
        suites=store.read(SuiteRow, run_id=run.run_id),
        samples=store.read(SampleRow, run_id=run.run_id),
        costs=store.read(UnitCostRow, run_id=run.run_id),
        comparisons=store.read(ComparisonRow, run_id=run.run_id),
        price=loaded.prices.price(loaded.study.hardware.price),
        divergences=store.read(DivergenceRow, run_id=run.run_id),
        probes=store.read(ProbeRow, run_id=run.run_id),
        searches=loaded.study.capacity,
    )


def write_report(session: Session, run: StudyRow) -> Path:
    """The run's page under `reports/`, and `latest.html` beside it."""
    facts = dataclasses.replace(
        load_facts(session.store, run.run_id), contracts=tuple(session.contracts[run.run_id].values())
    )
    path = build(facts, reports_path() / f"{run.run_id}.html")
    write_whole(path.with_name("latest.html"), path.read_bytes())
    return path
