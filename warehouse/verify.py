"""Whether everything the ledger says is still so: chains, evidence, pages, sign-offs, promotions.

What is stored is compared row by row, what is published byte by byte, and the heads outside the database with the
chain. Nothing is computed again: whether stored figures follow from stored measurements is what `steelyard
recompute` asks.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steelyard.digest import file_digest
from steelyard.errors import InputError, SteelyardError
from steelyard.records import ArmRow, PromotionRow, Row, StudyRow, VerdictRow
from steelyard.records_review import LedgerRow, SignOffRow
from steelyard.records_trials import RequestRow
from steelyard.review.chain import (
    PAGE,
    PROMOTION,
    REINSTATEMENT,
    RUN,
    SIGN_OFF,
    THINNING,
    WITHDRAWAL,
    chain_problems,
)
from steelyard.review.evidence import LATER, evidence_of, row_digest
from steelyard.review.packet import of_evidence, packet_digest, roles_of
from steelyard.review.reviewers import Reviewers
from steelyard.review.sign_off import as_signed
from steelyard.review.standing import unsupported
from warehouse.evidence import Seal, rows_of, sealed, thinned_to
from warehouse.ledger import INTENDED, PUBLISHED, Head
from warehouse.snapshot import tree_of
from warehouse.store import Store
from warehouse.sums import sum_problems

_KIND = {SIGN_OFF: "sign_offs", REINSTATEMENT: "reinstatements", THINNING: "thinnings", PROMOTION: "promotions"}


@dataclass(slots=True)
class Verified:
    """What was looked at, and what is not as the ledger says. `notes` are no problems, and are to be known."""

    entries: int = 0
    runs: int = 0
    rows: int = 0
    sign_offs: int = 0
    pages: int = 0
    files: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(
    store: Store,
    *,
    run_ids: Collection[str] | None = None,
    told: Sequence[Head] = (),
    pages: Path | None = None,
    files: bool = False,
    registry: Reviewers | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Verified:
    """Hold a warehouse, live or published, against its ledger; some runs of it, or all.

    `told` are heads known from outside the database, `pages` the folder of the packets' pages; with `files` those of a
    published warehouse are held against their sums, byte by byte. Of a damaged file that cannot be read a problem is
    told, too. With `registry`, every promotion must rest on keys that stand there. Raises InputError if there is no run
    of a name in `run_ids`.
    """
    found = Verified()
    ledger = store.read(LedgerRow)
    found.entries = len(ledger)
    found.problems += chain_problems(ledger)
    _heads(found, ledger, told)
    if ledger and not told:
        found.notes.append("No head outside the database was given: that it was not all written anew is not known.")
    runs = {row.run_id: row for row in store.read(StudyRow)}
    known = {row.run_id for row in ledger if row.kind == RUN}
    entries = defaultdict(list)
    for row in ledger:
        entries[row.run_id].append(row)
    if unknown := sorted(set(run_ids or ()) - runs.keys() - entries.keys()):
        raise InputError(f"There is no run {unknown[0]}.", remedy="`SELECT run_id FROM studies` lists the runs.")
    began = min((row.recorded_at for row in ledger), default=None)
    for name in sorted(known | _of_later(store) if run_ids is None else run_ids):
        try:
            if name in known and (run := runs.get(name)) is not None and run.status == "running":
                found.notes.append(
                    f"Run {name} is under way again: publishing it failed, and nothing of it is in force."
                )
            elif name in known:
                _run(store, found, name, entries[name], pages, registry)
            else:
                _unsealed(store, found, name, runs.get(name), entries[name], began)
        except SteelyardError as error:
            found.problems.append(f"run {name}: {error.message}")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            # What was changed may be no JSON, no moment or no number any more.
            found.problems.append(f"run {name}: its rows or entries cannot be read ({type(error).__name__}: {error})")
        tell(name)
    if run_ids is None:
        found.problems += _signed_heads(store.read(SignOffRow), ledger)
    if files:
        found.files, wrong = published_files(store, run_ids)
        found.problems += wrong
        if not found.files and not wrong:
            found.notes.append("The published files have no sums: a byte that changed no value would not be found.")
    unsealed = sorted(name for name, row in runs.items() if row.status in ("complete", "void") and name not in known)
    if unsealed and run_ids is None:
        found.notes.append(f"{len(unsealed)} ended runs have no seal (an older Steelyard's), such as {unsealed[0]}.")
    return found


def _of_later(store: Store) -> set[str]:
    """Runs about which something was written after they ended."""
    tables = (store.read(row_class) for row_class in LATER - {LedgerRow})
    return {row.run_id for rows in tables for row in rows}  # type: ignore[attr-defined]


def published_files(store: Store, run_ids: Collection[str] | None = None) -> tuple[int, list[str]]:
    """How many files of an opened snapshot were held against their sums, and those that are not as published."""
    with store.exclusive() as connection:
        tree = tree_of(connection, store.path)
    return sum_problems(tree, store.path, run_ids)


def _heads(found: Verified, ledger: Sequence[LedgerRow], told: Sequence[Head]) -> None:
    """Heads that the ledger has not, and entries at its end of which no head was told."""
    at = {(row.chain, row.seq): row.entry for row in ledger}
    every = {row.entry for row in ledger}
    own = [head for head in told if head.chain and head.state != INTENDED]
    marks = [place for place, head in enumerate(own) if head.state == PUBLISHED]
    unpublished = set(own[marks[-1] + 1 :]) if marks else set()
    for head in dict.fromkeys(each for each in told if each.state != INTENDED):
        if at.get((head.chain, head.seq)) == head.entry if head.chain else head.entry in every:
            continue
        if head in unpublished and (head.chain, head.seq) not in at:
            found.notes.append(
                f"Entry {head.seq} of the ledger is not published yet: a publish is under way, or failed."
            )
            continue
        found.problems.append(
            f"head {head.entry[:12]} that was told outside is not in the ledger: entry {head.seq or '?'} is "
            + ("another one" if (head.chain, head.seq) in at else "missing")
        )
    if own:
        last = max((row for row in ledger if row.chain == own[-1].chain), key=lambda row: row.seq, default=None)
        if last is not None and last.entry not in {head.entry for head in told}:
            found.problems.append(
                f"ledger entry {last.seq} ({last.kind} of run {last.run_id}) was appended by somebody else: it is "
                "the last, and no head was told of it"
            )


def _signed_heads(rows: Sequence[SignOffRow], ledger: Sequence[LedgerRow]) -> list[str]:
    """Sign-offs under heads that the ledger has not: it was written anew since."""
    every = {row.entry for row in ledger} | {"none"}
    return [
        f"run {row.run_id}: head {row.ledger_head[:12]}, which {row.person} signed with it, is not in the ledger"
        for row in rows
        if row.ledger_head not in every
    ]


def _unsealed(
    store: Store, found: Verified, run_id: str, run: StudyRow | None, entries: Sequence[LedgerRow],
    began: datetime | None,
) -> None:  # fmt: skip
    """A run without a seal: what was recorded about it later, and that it promoted nothing since there are seals."""
    found.notes.append(f"Run {run_id} has no seal: nothing is known of what its evidence was.")
    # Of a run under way nothing is in force; one of before there were seals promoted by its gates alone.
    old = run is not None and run.finished_at is not None and (began is None or run.finished_at < began)
    excused = run is not None and (run.status == "running" or (old and not roles_of(run)))
    promoted = () if excused else store.read(PromotionRow, run_id=run_id)
    found.problems += [f"run {run_id} promotes {row.arm}, and what that rests on was never sealed" for row in promoted]
    found.problems += _later(store, run_id, entries, but={PromotionRow})


def _run(
    store: Store, found: Verified, run_id: str, entries: Sequence[LedgerRow], pages: Path | None,
    registry: Reviewers | None,
) -> None:  # fmt: skip
    seal = sealed(store, run_id)
    assert seal is not None
    found.runs += 1
    rows = rows_of(store, run_id)
    found.problems += _evidence(found, run_id, rows, seal, entries)
    found.problems += _later(store, run_id, entries)
    signed = store.read(SignOffRow, run_id=run_id)
    found.problems += _signed(found, signed, seal)
    [study] = rows[StudyRow]
    promoted = store.read(PromotionRow, run_id=run_id)
    now = datetime.now(UTC)
    found.problems += unsupported(study, promoted, signed, seal.packet, seal.digest, registry, now)  # type: ignore[arg-type]
    found.problems += _page(found, run_id, entries, seal, pages)


def _evidence(
    found: Verified, run_id: str, rows: dict[type[Row], Sequence[Row]], seal: Seal, entries: Sequence[LedgerRow]
) -> list[str]:
    """Tables of the run whose rows are others than when it ended."""
    found.rows += sum(len(each) for each in rows.values())
    then, now = dict(seal.packet["predicate"]["evidence"]), evidence_of(rows)
    thinned = thinned_to(entries)
    if thinned is not None:
        then[RequestRow.TABLE] = thinned.requests
        found.notes.append(f"Retention thinned the requests of run {run_id}, as the ledger says.")
    problems = [
        f"run {run_id}: the rows of {table} are not those that were sealed "
        f"({_count(then.get(table))} then, {_count(now.get(table))} now)"
        for table in sorted(then.keys() | now.keys())
        if then.get(table) != now.get(table)
    ]
    if not problems:
        [study] = rows[StudyRow]
        evidence = seal.packet["predicate"]["evidence"]
        again = of_evidence(study, rows[ArmRow], rows[VerdictRow], evidence)  # type: ignore[arg-type]
        if packet_digest(again) != seal.digest:
            problems.append(f"run {run_id}: its packet is not what its rows give")
    return problems


def _count(each: dict[str, Any] | None) -> str:
    return f"{each['rows']:,} rows, {each['sha256'][:12]}" if each else "none"


def _later(store: Store, run_id: str, entries: Sequence[LedgerRow], but: Collection[type[Row]] = ()) -> list[str]:
    """Rows written after the run ended that have no entry, and entries whose row is another or gone."""
    recorded: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    promoted: dict[str, str] = {}
    for row in sorted(entries, key=lambda row: (row.recorded_at, row.seq)):
        said = json.loads(row.payload_json)
        if row.kind == PROMOTION:
            promoted[said["arm"]] = said["row"]
        elif row.kind == WITHDRAWAL:
            promoted.pop(said["arm"], None)
        elif row.kind == RUN:
            # Sealed anew: what was promoted before is named again after it.
            promoted.clear()
        elif row.kind in _KIND:
            recorded[_KIND[row.kind]][said["row"]] += 1
    for digest in promoted.values():
        recorded["promotions"][digest] += 1
    problems = []
    for row_class in sorted(LATER - {LedgerRow, *but}, key=lambda each: each.TABLE):
        stored: dict[str, int] = defaultdict(int)
        for each in store.read(row_class, run_id=run_id):
            stored[row_digest(each)] += 1
        if dict(recorded[row_class.TABLE]) != dict(stored):
            problems.append(
                f"run {run_id}: the rows of {row_class.TABLE} are not those in the ledger "
                f"({sum(recorded[row_class.TABLE].values())} there, {sum(stored.values())} stored)"
            )
    return problems


def _signed(found: Verified, rows: Sequence[SignOffRow], seal: Seal) -> list[str]:
    """Sign-offs that say something else than was signed; those on another packet are void, which is a note."""
    found.sign_offs += len(rows)
    for row in rows:
        if row.packet_digest != seal.digest:
            found.notes.append(
                f"The sign-off of {row.person} on packet {row.packet_digest[:12]} of run {row.run_id} is void: the "
                f"packet is {seal.digest[:12]}."
            )
    return [
        f"run {row.run_id}: sign-off {row.sign_off} of {row.person} is not what was signed"
        for row in rows
        if not as_signed(row)
    ]


def _page(found: Verified, run_id: str, entries: Sequence[LedgerRow], seal: Seal, pages: Path | None) -> list[str]:
    """Whether the packet's page is the one that was written, to the byte; one that is not here is no problem."""
    written = [
        json.loads(row.payload_json)
        for row in entries
        if row.kind == PAGE and row.chain == seal.entry.chain and row.seq > seal.entry.seq
    ]
    path = pages / f"{run_id}.html" if pages is not None else None
    if not written or path is None or not path.is_file():
        return []
    found.pages += 1
    return [] if file_digest(path) == written[-1]["sha256"] else [f"{path} is not the page that was written"]
