"""A run's evidence as it is stored: its rows, and the seal that the ledger has of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from steelyard.errors import InputError
from steelyard.records import ArmRow, StudyRow, VerdictRow
from steelyard.records_base import Row
from steelyard.records_review import LedgerRow
from steelyard.records_trials import RequestRow
from steelyard.review.chain import RUN, THINNING
from steelyard.review.evidence import EVIDENCE, evidence_of
from steelyard.review.packet import of_evidence, packet_digest
from warehouse.store import Store


@dataclass(frozen=True, slots=True)
class Seal:
    """What the ledger says of a run's evidence: the packet as it was when the run ended, and the entry."""

    packet: dict[str, Any]
    entry: LedgerRow

    @property
    def digest(self) -> str:
        """What is signed."""
        return packet_digest(self.packet)


def rows_of(store: Store, run_id: str) -> dict[type[Row], Sequence[Row]]:
    """Every row of a run that is evidence. Raises InputError if there is no such run."""
    found: dict[type[Row], Sequence[Row]] = {each: store.read(each, run_id=run_id) for each in EVIDENCE}
    if not found[StudyRow]:
        raise InputError(f"There is no run {run_id}.", remedy="`SELECT run_id FROM studies` lists the runs.")
    return found


def sealed(store: Store, run_id: str) -> Seal | None:
    """The newest seal of a run; None while it has none."""
    rows = store.read(LedgerRow, run_id=run_id, kind=RUN)
    newest = max(rows, key=lambda row: (row.recorded_at, row.seq), default=None)
    return None if newest is None else Seal(json.loads(newest.payload_json), newest)


@dataclass(frozen=True, slots=True)
class Thinned:
    """The requests of a run as retention left them: rows and digest; None where it left none."""

    requests: dict[str, Any] | None


def thinned_to(entries: Iterable[LedgerRow]) -> Thinned | None:
    """What retention left of a run, by its ledger entries; None if it was not thinned."""
    newest = max(
        (row for row in entries if row.kind == THINNING), key=lambda row: (row.recorded_at, row.seq), default=None
    )
    return None if newest is None else Thinned(json.loads(newest.payload_json)["requests"])


def digest_now(store: Store, run_id: str) -> str:
    """Digest of a run's packet by its rows as they are now: that of the seal, as long as nothing was changed.

    Requests that retention thinned, as the ledger says, count as those that were sealed: a run can be signed for as
    long as it is kept.
    """
    rows = rows_of(store, run_id)
    evidence, seal = evidence_of(rows), sealed(store, run_id)
    thinned = thinned_to(store.read(LedgerRow, run_id=run_id))
    if seal is not None and thinned is not None and evidence.get(RequestRow.TABLE) == thinned.requests:
        evidence[RequestRow.TABLE] = seal.packet["predicate"]["evidence"][RequestRow.TABLE]
    [study] = rows[StudyRow]
    return packet_digest(of_evidence(study, rows[ArmRow], rows[VerdictRow], evidence))  # type: ignore[arg-type]
