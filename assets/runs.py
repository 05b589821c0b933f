"""A run of a study: begun, resumed after a kill, concluded."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

from assets.sealing import conclude_sealed
from evals.harness import SUITES
from steelyard.digest import canonical, digest, file_digest
from steelyard.environment import describe, submitter
from steelyard.errors import InfrastructureError
from steelyard.records import PriceRow, PromotionRow, StudyRow
from steelyard.records_incidents import IncidentEndRow, IncidentRow, RevocationRow
from steelyard.study_file import LoadedStudy
from warehouse.evidence import sealed
from warehouse.ledger import refuse_rolled_back
from warehouse.store import Store

STABLE = (
    "steelyard_version", "packages_json", "python_version", "hostname_digest", "cpu_model", "accelerator",
    "driver_version",
)  # fmt: skip
"""What must not change within a run: evidence of two environments would be compared as if it were of one."""


def begin_run(store: Store, loaded: LoadedStudy, *, fresh: bool) -> StudyRow:
    """The unfinished run of exactly this study in exactly this environment, or a new one.

    A run is resumed only if study, policy and prices are unchanged (same digest) and so are machine, packages and
    suite files: evidence gathered under another question, or by another scorer, must not answer this one. An unfinished
    run that cannot go on, or that `fresh` gives up, is marked failed; its rows stay. Raises InfrastructureError for a
    clock that was set back, and for a warehouse that is older than what its ledger told: its runs could not be sealed.
    """
    refuse_rolled_back(store)
    now = new_run(loaded, datetime.now(UTC))
    unfinished = store.unfinished_run(loaded.study.study, loaded.study_digest)
    if unfinished is None:
        _refuse_clock_set_back(store, now)
    else:
        changed = changed_since(unfinished, loaded, now)
        if not fresh and not changed:
            return unfinished
        _refuse_clock_set_back(store, now)
        why = "a fresh run was asked for" if fresh else f"changed since it began: {', '.join(changed)}"
        take_back(store, unfinished.run_id)
        # One whose publishing failed has a seal, which must say how it ended, too.
        give_up = conclude if sealed(store, unfinished.run_id) is None else conclude_sealed
        give_up(store, unfinished, "failed", f"given up: {why}")
    store.write([now], price_rows(now.run_id, loaded))
    return now


def take_back(store: Store, run_id: str) -> None:
    """Remove what a run decided that is void or was given up: it must not promote, open, end or revoke anything."""
    for decided in (PromotionRow, IncidentRow, IncidentEndRow, RevocationRow):
        store.replace_run(run_id, decided, [])


def changed_since(run: StudyRow, loaded: LoadedStudy, now: StudyRow | None = None) -> list[str]:
    """Which of `STABLE` are other than in a run; `now` is a row of a run that would begin now."""
    now = now or new_run(loaded, datetime.now(UTC))
    return [name for name in STABLE if getattr(run, name) != getattr(now, name)]


def _refuse_clock_set_back(store: Store, now: StudyRow) -> None:
    """Which run is the newest, and so which promotion is in force, goes by when runs began."""
    latest = store.latest_start()
    if latest is not None and now.started_at < latest[1]:
        run_id, began = latest
        raise InfrastructureError(
            f"The clock says {now.started_at:%Y-%m-%d %H:%M:%S} UTC, but run {run_id} began at "
            f"{began:%Y-%m-%d %H:%M:%S} UTC: it was set back, or was ahead then.",
            remedy="Correct the clock; a run that seemed older than the last would never count as the newest. If that "
            "run's date is the wrong one, wait until it has passed.",
        )


def new_run(loaded: LoadedStudy, now: datetime) -> StudyRow:
    """A row for a run that begins now on this machine."""
    study = loaded.study
    here = describe()
    packages = {**json.loads(here.pop("packages_json")), "suites": suites_digest(loaded)}
    return StudyRow(
        # The date first: DuckDB keeps the least and greatest first eight bytes of a text for every part of a table, so
        # a query for a run reads its night and no other. The machine last: two may begin the same study at 02:00:00.
        run_id=f"{now:%Y%m%d-%H%M%S}-{study.study}-{digest([loaded.study_digest, here['hostname_digest']])[:6]}",
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
        packages_json=canonical(packages),
        submitted_by=submitter(loaded.root),
        **here,
    )


def suites_digest(loaded: LoadedStudy) -> str:
    """sha256 over the files of every suite folder the study uses: tasks, data, scorers, and what judges need."""
    folders = {loaded.root / suite.path if suite.path else SUITES for suite in loaded.study.suites}
    files = sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    )
    judges = [suite.judge for suite in loaded.study.suites if suite.judge is not None]
    files += [loaded.root / name for judge in judges for name in (judge.calibration, judge.template) if name]
    return digest([[path.name, file_digest(path)] for path in files])


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
            place=place,
        )
        for place, price in enumerate(loaded.prices.prices)
    ]


def conclude(store: Store, run: StudyRow, status: str, reason: str | None = None) -> StudyRow:
    """Mark how the run ended: complete, void or failed."""
    row = dataclasses.replace(run, status=status, reason=reason, finished_at=datetime.now(UTC))
    store.write([row])
    return row
