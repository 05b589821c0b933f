"""The ledger as it is stored: appended in the transaction of what it records, its heads written down outside.

`heads.jsonl` beside the live file has a line for each time something was appended, on disk before anything goes on. A
live file that was edited, replaced by an older one, or whose entries were all written anew has not those heads. A kill
between the transaction and the line leaves the file one head short, never the database.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from steelyard.errors import InfrastructureError
from steelyard.records_review import LedgerRow
from steelyard.review.chain import Draft, appended
from warehouse.store import Store, insert

HEADS = "heads.jsonl"
FOLDER = "ledger"


@dataclass(frozen=True, slots=True)
class Head:
    """Newest entry of a chain at some moment."""

    chain: str
    seq: int
    entry: str


@contextmanager
def recorded(store: Store, drafts: Sequence[Draft]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A transaction that appends to the ledger whatever else is done in it, or does neither. `drafts` are read at its
    end, so that what it did can be added to them.

    Raises InfrastructureError if the ledger does not end as it was told outside: then nothing is recorded, nothing
    promoted and nothing signed until a person has looked.
    """
    path = heads_path(store)
    told = heads(path)
    last = _last(store, told)
    chain = last.chain if last else secrets.token_hex(8)
    with store.transaction() as connection:
        yield connection
        rows = appended(chain, last, drafts, datetime.now(UTC))
        if rows:
            insert(connection, LedgerRow, rows)
    if rows:
        _tell(path, Head(chain, rows[-1].seq, rows[-1].entry))


def refuse_rolled_back(store: Store) -> None:
    """Raise InfrastructureError if the ledger does not end as it was told outside: what a run would find at its end."""
    _last(store, heads(heads_path(store)))


def _last(store: Store, told: Sequence[Head]) -> LedgerRow | None:
    """The entry to go on from. Without a head outside a new chain begins: one's own is not known from another's."""
    if not told:
        return None
    known = told[-1]
    rows = store.read(LedgerRow, chain=known.chain, seq=known.seq)
    if not rows or rows[0].entry != known.entry:
        found = "another one" if rows else "not there"
        raise InfrastructureError(
            f"Entry {known.seq} of the ledger is {found}: the warehouse was edited, or is older than what it recorded.",
            remedy="`steelyard verify` says what else differs. Bring the newest copy back with `steelyard restore`; "
            f"to go on with this one all the same, move {heads_path(store)} away: a new chain begins.",
        )
    seq = int(store.scalar("SELECT max(seq) FROM ledger WHERE chain = ?", [known.chain]))
    return store.read(LedgerRow, chain=known.chain, seq=seq)[0]


def head_of(store: Store, chain: str | None = None) -> Head | None:
    """Head of a chain, by default the newest, in an open warehouse, also a published one; None while there is none."""
    found = store.query(
        "SELECT chain, seq, entry FROM ledger WHERE CAST($1 AS VARCHAR) IS NULL OR chain = $1 "
        "ORDER BY recorded_at DESC, seq DESC LIMIT 1",
        [chain],
    )
    return None if found.empty else Head(str(found.chain[0]), int(found.seq[0]), str(found.entry[0]))


def heads_path(store: Store) -> Path:
    """Where the heads of a live warehouse are written down."""
    return store.path.parent / FOLDER / HEADS


def heads(path: Path) -> list[Head]:
    """Every head that was told, oldest first; a last line that a crash cut short is none."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            said = json.loads(line)
            found.append(Head(str(said["chain"]), int(said["seq"]), str(said["entry"])))
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines) or text.endswith("\n"):
                raise InfrastructureError(
                    f"{path}:{number} is no head of a ledger: the file was edited.",
                    remedy="Take it from a backup, or from the digests of the nights.",
                ) from error
    return found


def _tell(path: Path, head: Head) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            # A line that a crash cut short goes: its entry is in the database, and this head comes after it.
            text = path.read_bytes()
            stream.truncate(text.rfind(b"\n") + 1)
            line = json.dumps({**asdict(head), "at": datetime.now(UTC).isoformat(timespec="seconds")})
            stream.write(f"{line}\n".encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise InfrastructureError(
            f"The ledger's head could not be written to {path} ({error.strerror}).",
            remedy="Correct that and run the same command again: the ledger itself is whole.",
        ) from error
