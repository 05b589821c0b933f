"""A run of a study: begun, resumed after a kill, concluded."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

from steelyard.digest import canonical
from steelyard.environment import describe
from steelyard.records import PriceRow, StudyRow
from steelyard.study_file import LoadedStudy
from warehouse.store import Store


def begin_run(store: Store, loaded: LoadedStudy, *, fresh: bool) -> StudyRow:
    """The unfinished run of exactly this study, or a new one.

    A run is resumed only if study, policy and prices are unchanged (same digest): evidence gathered under another
    question must not answer this one. `fresh` gives an unfinished run up, marked failed, and begins anew.
    """
    unfinished = store.unfinished_run(loaded.study.study, loaded.study_digest)
    if unfinished is not None and not fresh:
        return unfinished
    if unfinished is not None:
        conclude(store, unfinished, "failed", "given up: a fresh run was asked for")
    row = new_run(loaded, datetime.now(UTC))
    store.write([row], price_rows(row.run_id, loaded))
    return row


def new_run(loaded: LoadedStudy, now: datetime) -> StudyRow:
    """A row for a run that begins now on this machine."""
    study = loaded.study
    return StudyRow(
        run_id=f"{study.study}-{now:%Y%m%d-%H%M%S}-{loaded.study_digest[:6]}",
        study=study.study,
        owner=study.owner,
        study_digest=loaded.study_digest,
        policy_digest=loaded.policy_digest,
        study_json=canonical(study.model_dump(mode="json")),
        policy_json=canonical(loaded.policy.model_dump(mode="json")),
        seed=study.seed,
        blocks=study.blocks,
        residency=study.residency,
        residency_reason=None,
        started_at=now,
        finished_at=None,
        status="running",
        reason=None,
        **describe(),
    )


def price_rows(run_id: str, loaded: LoadedStudy) -> list[PriceRow]:
    """The price book as this run uses it."""
    return [
        PriceRow(
            run_id=run_id,
            price=price.name,
            usd_per_hour=price.usd_per_hour,
            source=price.source,
            dated=price.dated,
            note=price.note,
            used=price.name == loaded.study.hardware.price,
        )
        for price in loaded.prices.prices
    ]


def conclude(store: Store, run: StudyRow, status: str, reason: str | None = None) -> StudyRow:
    """Mark how the run ended: complete, void or failed."""
    row = dataclasses.replace(run, status=status, reason=reason, finished_at=datetime.now(UTC))
    store.write([row])
    return row
