"""The end of a run: its row, the seal of its evidence in the ledger, and the packet's page for who signs."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

from steelyard.digest import file_digest
from steelyard.home import packets_path
from steelyard.records import PromotionRow, StudyRow
from steelyard.records_review import LedgerRow
from steelyard.review.chain import PAGE, PROMOTION, RUN, Draft
from steelyard.review.evidence import row_digest
from steelyard.review.packet import packet
from warehouse.evidence import rows_of, sealed
from warehouse.facts import load_facts
from warehouse.ledger import recorded
from warehouse.store import Store
from warehouse.writing import insert


def conclude_sealed(store: Store, run: StudyRow, status: str, reason: str | None = None) -> StudyRow:
    """Mark how a run ended, and seal its evidence with its promotions: one transaction, so that no ended run of ours is
    without a seal.
    """
    ended = dataclasses.replace(run, status=status, reason=reason, finished_at=datetime.now(UTC))
    rows = {**rows_of(store, run.run_id), StudyRow: [ended]}
    drafts = [
        Draft(kind=RUN, run_id=run.run_id, payload=packet(rows)),
        *(promotion_draft(row) for row in store.read(PromotionRow, run_id=run.run_id)),
    ]
    with recorded(store, drafts) as connection:
        connection.execute("DELETE FROM studies WHERE run_id = ?", [run.run_id])
        insert(connection, StudyRow, [ended])
    return ended


def promotion_draft(row: PromotionRow) -> Draft:
    """The ledger's entry of a promotion."""
    payload = {"arm": row.arm, "deployment_digest": row.deployment_digest, "row": row_digest(row)}
    return Draft(kind=PROMOTION, run_id=row.run_id, payload=payload)


def write_packet(store: Store, run_id: str) -> Path | None:
    """Write the page of a sealed run's packet and record what it is to the byte; None without a seal."""
    seal = sealed(store, run_id)
    if seal is None:
        return None
    from steelyard.reports.packet_page import build

    path = build(load_facts(store, run_id), seal.packet, packets_path() / f"{run_id}.html")
    with recorded(store, [Draft(kind=PAGE, run_id=run_id, payload={"sha256": file_digest(path), "of": seal.digest})]):
        pass
    return path


def has_page(store: Store, run_id: str) -> bool:
    """Whether the page of the run's newest seal was written."""
    seal = sealed(store, run_id)
    if seal is None:
        return False
    pages = store.read(LedgerRow, run_id=run_id, kind=PAGE)
    return any(row.chain == seal.entry.chain and row.seq > seal.entry.seq for row in pages)
