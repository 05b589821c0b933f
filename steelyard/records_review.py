"""Rows about who decided, and the ledger in which every decision stands. Nothing here is ever changed or deleted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from steelyard.records_base import RUN, Row, col


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOffRow(Row):
    TABLE = "sign_offs"
    KEY = ("run_id", "sign_off")
    MEANING = (
        "What a named person decided about the packet of a run, in a role, signed (Ed25519, DSSE envelope). The newest "
        "of a person on an arm counts; none counts once the packet's digest is another."
    )

    run_id: str = col(RUN)
    sign_off: str = col("Name of the sign-off: the first 16 characters of the sha256 of its envelope.")
    packet_digest: str = col("sha256 of the packet that was signed: of every row that the run's evidence is.")
    person: str = col("Who signed: the e-mail by which the registry of reviewers knows the person.")
    as_role: str = col("Role in which the person signed, such as responsible-ai.")
    decision: str = col("approve, conditions (approved under conditions), reject or abstain.")
    about: str | None = col("The candidate it is about; NULL: every candidate of the run.")
    conditions: str | None = col("The conditions, or why it was rejected, in the person's words.")
    signed_at: datetime = col("When it was signed, by the signer's clock.", "UTC")
    expires_at: datetime = col("From when it counts no longer.", "UTC")
    ledger_head: str = col("Newest entry of the ledger that the signer saw, signed with the rest.")
    public_key: str = col("Key it was verified with, as the registry had it: ssh-ed25519 and base64.")
    envelope_json: str = col("The signed envelope itself (DSSE, payload an in-toto statement), as JSON.")
    received_at: datetime = col("When it was taken into the warehouse.", "UTC")

    @property
    def arm(self) -> str | None:
        """The candidate it is about; the column has another name, because every table's `arm` is the row's own."""
        return self.about

    @property
    def role(self) -> str:
        """Role of the signer; the column has another name than an arm's role."""
        return self.as_role


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow(Row):
    TABLE = "ledger"
    KEY = ("chain", "seq")
    MEANING = (
        "The append-only ledger: each entry holds the hash of the one before, so that none can be changed, left out or "
        "put in between without every later one being another."
    )

    chain: str = col("Name of the chain: random, one a live warehouse.")
    seq: int = col("Place in the chain, from 1.")
    recorded_at: datetime = col("When it was written.", "UTC")
    kind: str = col(
        "run (its evidence sealed), page (the packet's page written), sign_off, promotion, withdrawal (a promotion "
        "taken away), reinstatement or thinning."
    )
    run_id: str = col(RUN)
    payload_json: str = col("What is recorded, as canonical JSON.")
    previous: str = col("Hash of the entry before; 64 zeros for the first.")
    entry: str = col("sha256 of all other columns.")


REVIEW_ROWS: tuple[type[Row], ...] = (SignOffRow, LedgerRow)
