"""A hash chain: entries of which each names the hash of the one before.

A chain proves only that it is consistent in itself; who can write to the database could write all of it anew. So every
head also goes outside: to a file, into the digest of the night, and under each signature (`warehouse.ledger`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from steelyard.digest import canonical, digest
from steelyard.records_review import LedgerRow
from steelyard.review.evidence import moment

RUN, PAGE, SIGN_OFF, PROMOTION, WITHDRAWAL = "run", "page", "sign_off", "promotion", "withdrawal"
REINSTATEMENT, THINNING = "reinstatement", "thinning"
FIRST = "0" * 64
"""What the first entry of a chain has before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is to be recorded."""

    kind: str
    run_id: str
    payload: dict[str, Any]


def entry_hash(row: LedgerRow) -> str:
    """sha256 over every other column of an entry."""
    return digest(
        [row.chain, row.seq, moment(row.recorded_at), row.kind, row.run_id, row.payload_json, row.previous]
    )  # fmt: skip


def appended(chain: str, last: LedgerRow | None, drafts: Iterable[Draft], now: datetime) -> list[LedgerRow]:
    """Entries that follow `last` in a chain."""
    rows: list[LedgerRow] = []
    for draft in drafts:
        before = rows[-1] if rows else last
        row = LedgerRow(
            chain=chain, seq=before.seq + 1 if before else 1, recorded_at=now, kind=draft.kind, run_id=draft.run_id,
            payload_json=canonical(draft.payload), previous=before.entry if before else FIRST, entry="",
        )  # fmt: skip
        rows.append(_sealed(row))
    return rows


def _sealed(row: LedgerRow) -> LedgerRow:
    return replace(row, entry=entry_hash(row))


def chain_problems(rows: Sequence[LedgerRow]) -> list[str]:
    """Where entries of any number of chains are changed, missing or double; empty if every chain is whole."""
    found = []
    for name in sorted({row.chain for row in rows}):
        own = sorted((row for row in rows if row.chain == name), key=lambda row: row.seq)
        previous, expected = FIRST, 1
        for row in own:
            where = f"ledger entry {row.seq} ({row.kind} of run {row.run_id})"
            if row.seq != expected:
                found.append(f"ledger entry {expected} of chain {name} is missing")
                expected = row.seq
            elif row.previous != previous:
                found.append(f"{where} does not follow the entry before it")
            if entry_hash(row) != row.entry:
                found.append(f"{where} was changed: its hash is not that of its contents")
            previous, expected = row.entry, expected + 1
    return found
