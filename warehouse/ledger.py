"""The ledger as it is stored: appended in the transaction of what it records, its heads written down outside.

`heads.jsonl` beside the live file has two lines for each time something was appended: the entry that is about to be
written, and that it was. Both are on disk before anything goes on. A live file that was edited, replaced by an older
one, or whose entries were all written anew has not those heads; entries that no line announced were appended by
somebody else. A kill between the transaction and its second line leaves the file one head short, never the database.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from steelyard.errors import InfrastructureError
from steelyard.records_review import LedgerRow
from steelyard.review.chain import Draft, appended
from warehouse.store import Store
from warehouse.writing import insert

HEADS = "heads.jsonl"
FOLDER = "ledger"


INTENDED, RECORDED, PUBLISHED = "intended", "recorded", "published"


@dataclass(frozen=True, slots=True)
class Head:
    """Newest entry of a chain at some moment: about to be written, written, or in the snapshot too."""

    chain: str
    seq: int
    entry: str
    state: str = RECORDED


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
            _tell(path, Head(chain, rows[-1].seq, rows[-1].entry, INTENDED))
    if rows:
        _tell(path, Head(chain, rows[-1].seq, rows[-1].entry))


def tell_published(store: Store) -> None:
    """Note that the snapshot has all that was recorded until now."""
    path = heads_path(store)
    told = [each for each in heads(path) if each.state != INTENDED]
    if told and told[-1].state != PUBLISHED:
        _tell(path, replace(told[-1], state=PUBLISHED))


def refuse_rolled_back(store: Store) -> None:
    """Raise InfrastructureError if the ledger does not end as it was told outside: what a run would find at its end."""
    _last(store, heads(heads_path(store)))


def _last(store: Store, told: Sequence[Head]) -> LedgerRow | None:
    """The entry to go on from. Without a head outside a new chain begins: one's own is not known from another's."""
    said = [each for each in told if each.state != INTENDED]
    intended = {each.entry for each in told if each.state == INTENDED}
    if not said:
        # A kill may have come between the very first entry and its head.
        begun = [row for each in told[-1:] for row in store.read(LedgerRow, chain=each.chain, seq=each.seq)]
        return next((row for row in begun if row.entry in intended), None)
    known = said[-1]
    rows = store.read(LedgerRow, chain=known.chain, seq=known.seq)
    if not rows or rows[0].entry != known.entry:
        found = "another one" if rows else "not there"
        raise InfrastructureError(
            f"Entry {known.seq} of the ledger is {found}: the warehouse was edited, or is older than what it recorded.",
            remedy="`steelyard verify` says what else differs. Bring the newest copy back with `steelyard restore`; "
            f"to go on with this one all the same, move {heads_path(store)} away: a new chain begins.",
        )
    seq = int(store.scalar("SELECT max(seq) FROM ledger WHERE chain = ?", [known.chain]))
    newest = store.read(LedgerRow, chain=known.chain, seq=seq)[0]
    if seq > known.seq and newest.entry not in intended:
        raise InfrastructureError(
            f"The ledger has {seq - known.seq} entries after entry {known.seq} that no Steelyard announced: somebody "
            "else appended them.",
            remedy="Bring the last published copy from before that back into a new STEELYARD_HOME; "
            f"to go on with this one all the same, move {heads_path(store)} away: a new chain begins.",
        )
    return newest


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
            state = str(said.get("state", RECORDED))
            found.append(Head(str(said["chain"]), int(said["seq"]), str(said["entry"]), state))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
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
