"""Digests of stored rows: what a packet, and so a signature, is about.

Everything a run stored is evidence, but for the account of its time and for what may come after it ended: promotions,
sign-offs, reinstatements, retention, and the ledger itself. Those have entries of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from steelyard.digest import canonical, text_digest
from steelyard.records import ROWS, PromotionRow
from steelyard.records_base import Row
from steelyard.records_incidents import ReinstatementRow
from steelyard.records_keeping import ThinningRow
from steelyard.records_review import LedgerRow, SignOffRow
from steelyard.records_time import WallTimeRow

LATER: frozenset[type[Row]] = frozenset({PromotionRow, ReinstatementRow, ThinningRow, SignOffRow, LedgerRow})
"""Rows that may be written about a run after it has ended."""
ACCOUNTS: frozenset[type[Row]] = frozenset({WallTimeRow})
"""Rows that decide nothing and go on after the seal: where the process's time went, publishing included."""
EVIDENCE: tuple[type[Row], ...] = tuple(row_class for row_class in ROWS if row_class not in LATER | ACCOUNTS)


def row_text(row: Row) -> str:
    """A row as canonical JSON. NULLs are left out, so that a column that comes later changes no digest of before."""
    return canonical({name: _plain(value) for name, value in row.as_dict().items() if value is not None})


def row_digest(row: Row) -> str:
    """sha256 of one row."""
    return text_digest(row_text(row))


def rows_digest(rows: Iterable[Row]) -> str:
    """sha256 over rows of one class, a line each, sorted: in whatever order they are read."""
    found = hashlib.sha256()
    for text in sorted(row_text(row) for row in rows):
        found.update(text.encode())
        found.update(b"\n")
    return found.hexdigest()


def evidence_of(rows: Mapping[type[Row], Sequence[Row]]) -> dict[str, dict[str, Any]]:
    """Rows and digest of each table of a run that has rows, by table."""
    return {
        row_class.TABLE: {"rows": len(found), "sha256": rows_digest(found)}
        for row_class in EVIDENCE
        if (found := rows.get(row_class))
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return moment(value)
    return value.isoformat() if isinstance(value, date) else value


def moment(value: datetime) -> str:
    """A moment as text, to the microsecond that the warehouse keeps."""
    return value.astimezone(UTC).isoformat(timespec="microseconds")
