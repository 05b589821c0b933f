"""What changed over the nights: incidents that this run ends, opens, and takes promotions back for."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from assets.common import common, key
from assets.metadata import definition_metadata
from assets.session import Session
from assets.tracing import table_metadata
from steelyard.confirmation import promoted_study
from steelyard.drift import FIGURES, figures_of
from steelyard.errors import InputError
from steelyard.home import nightly_path
from steelyard.incidents import CONFIRMED, ends, opened, revoked, standing, told
from steelyard.nightly.settings import Drifting, nightly_settings
from steelyard.records import ArmRow, PromotionRow, StudyRow
from steelyard.records_incidents import IncidentEndRow, IncidentRow, ReinstatementRow, RevocationRow
from steelyard.review.chain import REINSTATEMENT, Draft
from steelyard.review.evidence import row_digest
from steelyard.study_file import LoadedStudy
from warehouse.ledger import recorded
from warehouse.store import Store
from warehouse.writing import insert

OPEN = """
    SELECT incident FROM incidents
    WHERE (CAST($1 AS VARCHAR) IS NULL OR study = $1) AND run_id <> $2
        AND incident NOT IN (SELECT incident FROM incident_ends WHERE run_id <> $2)
"""


def incident_assets(loaded: LoadedStudy) -> list[dg.AssetsDefinition]:
    """`incidents`: after the verdicts, before anything is promoted."""
    asset_key = key(loaded, "incidents")

    @dg.asset(
        key=asset_key,
        deps=[key(loaded, "study_validity")],
        description="Figures that changed level over the nights: opened, measured again by the next run, acted upon.",
        metadata=definition_metadata(IncidentRow),
        check_specs=[
            dg.AssetCheckSpec("no_regression", asset=asset_key, description="No incident is open or was confirmed.")
        ],
        **common(loaded, "judged", "duckdb"),
    )
    def incidents(session: dg.ResourceParam[Session]) -> dg.MaterializeResult:
        run = session.run(loaded)
        settings = nightly_settings(nightly_path()).drift
        new, ended, taken = watch(session.store, run, promoted_study(loaded.study), settings)
        lines = [
            *(f"- opened: {told(row)}" for row in new),
            *(f"- {row.ending}: {row.reason}" for row in ended),
            *(f"- promotion of {row.arm} stands revoked by run {row.confirmed_by}" for row in taken),
        ]
        confirmed = [row for row in ended if row.ending == CONFIRMED]
        return dg.MaterializeResult(
            metadata=table_metadata(loaded, run.run_id, "incidents", new, "\n".join(lines) or "none"),
            check_results=[
                dg.AssetCheckResult(
                    check_name="no_regression",
                    passed=not (new or confirmed or taken),
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={"incidents": dg.MetadataValue.md("\n".join(lines) or "none")},
                )
            ],
        )

    return [incidents]


def open_incidents(store: Store, study: str | None = None, run_id: str = "") -> list[IncidentRow]:
    """Incidents that no run has ended, of a study or of all; what the run named wrote itself is left aside."""
    names = set(store.query(OPEN, [study, run_id]).incident)
    return [row for row in store.read(IncidentRow) if row.incident in names]


def watch(
    store: Store, run: StudyRow, promoted_as: str, settings: Drifting
) -> tuple[list[IncidentRow], list[IncidentEndRow], list[RevocationRow]]:
    """Store what the run says of the nights: incidents it opens, ends of earlier ones, revocations that stand.

    All of it follows from runs before and this one's comparisons, so that a killed run that is resumed writes the same.
    """
    now = datetime.now(UTC)
    figures = figures_of(store.query(FIGURES, [run.study, run.run_id]).to_dict("records"))
    open_before = open_incidents(store, run.study, run.run_id)
    arms = {row.arm for row in store.read(ArmRow, run_id=run.run_id)}
    ended = ends(figures, run.run_id, open_before, arms=arms, now=now)
    known = {row.incident: row.ending for row in [*_others(store, run.run_id), *ended]}
    new = opened(
        figures,
        run.run_id,
        earlier=[row for row in store.read(IncidentRow, study=run.study) if row.run_id != run.run_id],
        ended=known,
        promotions=store.read(PromotionRow, study=promoted_as),
        least_ratio=settings.least_ratio,
        least_difference=settings.least_difference,
        now=now,
    )
    fresh = revoked(run.run_id, ended, open_before, now=now)
    taken = [*fresh, *(row for row in carried(store, run, promoted_as) if row.arm not in {each.arm for each in fresh})]
    store.replace_run(run.run_id, IncidentRow, new)
    store.replace_run(run.run_id, IncidentEndRow, ended)
    store.replace_run(run.run_id, RevocationRow, taken)
    return new, ended, taken


def carried(store: Store, run: StudyRow, promoted_as: str) -> list[RevocationRow]:
    """Revocations by earlier runs that stand against arms of this one."""
    before = [row for row in store.read(RevocationRow, study=promoted_as) if row.run_id != run.run_id]
    arms = store.read(ArmRow, run_id=run.run_id)
    return standing(run.run_id, promoted_as, arms, before, store.read(ReinstatementRow))


def _others(store: Store, run_id: str) -> list[IncidentEndRow]:
    return [row for row in store.read(IncidentEndRow) if row.run_id != run_id]


def reinstate(store: Store, study: str, arm: str, *, by: str, because: str) -> ReinstatementRow:
    """Lift the revocation that stands against an arm. Raises InputError if there is none, or a reason is lacking."""
    lifted = {(row.run_id, row.arm) for row in store.read(ReinstatementRow)}
    standing_now = [
        row
        for row in store.read(RevocationRow, study=study, arm=arm)
        if row.run_id == row.confirmed_by and (row.run_id, row.arm) not in lifted
    ]
    if not standing_now:
        raise InputError(
            f"No revocation stands against {arm} of study {study}.",
            remedy="`steelyard query 'SELECT * FROM incident_log'` shows what was revoked.",
        )
    if not by.strip() or not because.strip():
        raise InputError("A reinstatement has a person and a reason.", remedy="Give --by and --because.")
    newest = max(standing_now, key=lambda row: row.revoked_at)
    rows = [
        ReinstatementRow(
            run_id=row.run_id, arm=arm, reinstated_by=by.strip(), reason=because.strip(),
            reinstated_at=datetime.now(UTC),
        )
        for row in standing_now
    ]  # fmt: skip
    drafts = [
        Draft(kind=REINSTATEMENT, run_id=row.run_id, payload={"arm": arm, "row": row_digest(row)}) for row in rows
    ]
    with recorded(store, drafts) as connection:
        insert(connection, ReinstatementRow, rows)
    return next(row for row in rows if row.run_id == newest.run_id)
