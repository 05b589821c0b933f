"""What leaves the house: promotions, the published snapshot, the report."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path

import dagster as dg

from assets.common import common, key
from assets.judged import why_void
from assets.metadata import definition_metadata
from assets.promoting import settle_promotions
from assets.runs import take_back
from assets.sealing import conclude_sealed, has_page, write_packet
from assets.session import Session
from assets.signing import take_in
from assets.tracing import rows_link, table_metadata
from steelyard.errors import InfrastructureError, SteelyardError, StudyVoid
from steelyard.files import write_whole
from steelyard.home import reports_path, snapshot_path
from steelyard.records import PromotionRow, StudyRow, VerdictRow
from steelyard.reports import build
from steelyard.study_file import LoadedStudy
from warehouse.evidence import sealed
from warehouse.facts import load_facts
from warehouse.publish import publish
from warehouse.schema import APPLIED
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
        rows, refused = settle_promotions(session.store, loaded, run)
        table = "\n".join(
            [
                *(f"- promoted: {row.arm}" for row in rows),
                *(f"- refused: {arm}: {'; '.join(why)}" for arm, why in refused.items()),
            ]
        )
        return dg.MaterializeResult(metadata=table_metadata(loaded, run.run_id, "promotions", rows, table or "none"))

    @dg.asset(
        key=key(loaded, "published_snapshot"),
        deps=[key(loaded, "promotions"), key(loaded, "baseline_profile")],
        description="What analysts read: a DuckDB file and Parquet, swapped in atomically.",
        **common(loaded, "released", "duckdb", "parquet"),
    )
    def published_snapshot(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = releasable(session, loaded)
        if run.status == "complete" and sealed(session.store, run.run_id) is not None:
            # Sealed once: rows that changed since are for `steelyard verify` to name, and not to be sealed anew.
            publish(session.store)
        else:
            _end(session, run)
        path = snapshot_path()
        return dg.MaterializeResult(
            metadata={
                "path": dg.MetadataValue.path(str(path)),
                "run_id": run.run_id,
                "bytes": path.stat().st_size,
                "packet": rows_link(run.run_id, "packet"),
            }
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
            metadata={
                "page": rows_link(run.run_id, "report"),
                "path": dg.MetadataValue.path(str(path)),
                "bytes": path.stat().st_size,
                "run_id": run.run_id,
            }
        )

    return [promotions, published_snapshot, report]


def _end(session: Session, run: StudyRow) -> None:
    """Seal a run that is judged, write its packet's page and publish it."""
    session.keep_time(run)
    conclude_sealed(session.store, run, "complete")
    try:
        write_packet(session.store, run.run_id)
        publish(session.store)
    except BaseException:
        # Running again, so that the same command resumes and publishes what is measured.
        session.store.write([run])
        raise


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
        take_back(session.store, run_id)
        session.keep_time(run)
        concluded = conclude_sealed(session.store, run, "void", "; ".join(session.findings(run_id)))
        write_packet(session.store, run_id)
        write_report(session, concluded)
    if void:
        publish(session.store)


def publish_late(session: Session) -> None:
    """Publish and report runs that a killed process had concluded and could not publish, take in sign-offs that waited
    for the warehouse, and publish anew what an older Steelyard published.
    """
    concluded = [row for row in session.store.read(StudyRow) if row.status in ("complete", "void")]
    published: set[str] = set()
    outdated = False
    # A snapshot that cannot be read tells nothing, and the next publish puts a whole one in its place.
    with suppress(SteelyardError), Store.open_published() as snapshot:
        # What reads it after an upgrade asks for tables that it has not.
        outdated = snapshot.query(APPLIED).name.tolist() != session.store.query(APPLIED).name.tolist()
        published = {row.run_id for row in snapshot.read(StudyRow) if row.status in ("complete", "void")}
    late = [row for row in concluded if row.run_id not in published]
    for row in late:
        if not (reports_path() / f"{row.run_id}.html").is_file():
            write_report(session, row)
        if not has_page(session.store, row.run_id):
            write_packet(session.store, row.run_id)
    taken = take_in(session.store, session.progress.say)
    if late or taken or outdated:
        publish(session.store)


def write_report(session: Session, run: StudyRow) -> Path:
    """The run's page under `reports/`, and `latest.html` beside it."""
    facts = dataclasses.replace(
        load_facts(session.store, run.run_id), contracts=tuple(session.contracts[run.run_id].values())
    )
    path = build(facts, reports_path() / f"{run.run_id}.html")
    write_whole(path.with_name("latest.html"), path.read_bytes())
    return path
