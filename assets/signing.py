"""Sign-offs into the warehouse: checked against what is stored now, recorded in the ledger, and acted upon at once.

The warehouse may be another process's for hours, so a sign-off is a file first (`inbox`), and whoever opens the
warehouse next takes it in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from assets.promoting import settle_promotions
from steelyard.digest import text_digest
from steelyard.errors import InputError
from steelyard.files import write_whole
from steelyard.gates.recompute_study import asked_of
from steelyard.home import ledger_path, reviewers_path
from steelyard.records import PriceRow, PromotionRow, StudyRow
from steelyard.records_review import LedgerRow, SignOffRow
from steelyard.review.chain import SIGN_OFF, Draft
from steelyard.review.evidence import row_digest
from steelyard.review.packet import longest
from steelyard.review.reviewers import Reviewers, load_reviewers
from steelyard.review.sign_off import SignOff, is_signed_by, opened, sign_off_row
from steelyard.review.standing import objections
from warehouse.evidence import Seal, digest_now, sealed
from warehouse.ledger import recorded
from warehouse.publish import publish
from warehouse.store import Store
from warehouse.writing import insert

CLOCKS_APART = timedelta(minutes=10)
"""By which a signer's clock may be ahead of this one."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a sign-off did: its row, the arms promoted now, and why the others with the verdict promote are not."""

    row: SignOffRow
    promoted: tuple[PromotionRow, ...]
    refused: dict[str, list[str]]


def reviewable(store: Store, run_id: str) -> tuple[StudyRow, Seal]:
    """A run that may be signed. Raises InputError if it has not ended, has no seal, or its evidence changed since."""
    found = store.read(StudyRow, run_id=run_id)
    if not found:
        raise InputError(f"There is no run {run_id}.", remedy="`SELECT run_id FROM studies` lists the runs.")
    seal = sealed(store, run_id)
    if found[0].status != "complete" or seal is None:
        why = (
            "has no seal: an older Steelyard measured it" if found[0].status == "complete" else f"is {found[0].status}"
        )
        raise InputError(f"Run {run_id} {why}.", remedy="Only a complete run can be signed; run the study.")
    now = digest_now(store, run_id)
    if now != seal.digest:
        raise InputError(
            f"The evidence of run {run_id} is not what it was when the run ended: its packet was {seal.digest[:12]}, "
            f"its rows give {now[:12]}.",
            remedy="`steelyard verify` says which table changed. Nobody can sign it, and its sign-offs are void.",
        )
    return found[0], seal


def checked(store: Store, said: SignOff, registry: Reviewers) -> StudyRow:
    """The run a decision is about, if it may be taken. Raises InputError with every reason against it."""
    run, seal = reviewable(store, said.run_id)
    against = objections(said, run, seal.digest, registry, datetime.now(UTC))
    arms = sorted(name for name in seal.packet["predicate"]["verdicts"])
    if said.arm is not None and said.arm not in arms:
        against.append(f"run {said.run_id} has no verdict on {said.arm}; it has {', '.join(arms)}")
    now, most = datetime.now(UTC), longest(run)
    if said.expires_at - said.signed_at > most:
        against.append(f"it would count for more than the {most.days:,} days that the policy allows")
    if said.signed_at > now + CLOCKS_APART:
        # It would be the person's newest word, whatever they sign until then.
        against.append(f"it was signed at {said.signed_at:%Y-%m-%d %H:%M} UTC, which is not yet: correct that clock")
    if said.ledger_head != "none" and not store.read(LedgerRow, entry=said.ledger_head):
        against.append(f"the ledger has no entry {said.ledger_head[:12]}, under which it was signed")
    if said.decision in ("conditions", "reject") and not (said.conditions or "").strip():
        against.append(f"the decision {said.decision} needs its conditions or its reason in words")
    if against:
        sentence = "; ".join(against)
        raise InputError(f"This sign-off is refused: {sentence}.", remedy="Nothing was recorded.")
    return run


def record(store: Store, envelope: str, registry: Reviewers | None = None) -> Recorded:
    """Take a signed envelope in: its row and its ledger entry in one transaction, then the promotions of its run.

    The same envelope twice is recorded once. Raises InputError, and records nothing, if it does not count.
    """
    said = opened(envelope)
    registry = load_reviewers(reviewers_path()) if registry is None else registry
    run = checked(store, said, registry)
    reviewer = registry.of(said.person)
    assert reviewer is not None
    if not is_signed_by(envelope, reviewer.public_key):
        raise InputError(
            f"The signature is not that of {said.person}'s key in reviewers.yaml.",
            remedy="Sign with the key whose public half stands there; nothing was recorded.",
        )
    asked = asked_of(run, store.read(PriceRow, run_id=run.run_id))
    row = sign_off_row(envelope, reviewer.public_key, datetime.now(UTC))
    if not store.read(SignOffRow, run_id=row.run_id, sign_off=row.sign_off):
        _refuse_older(store, row)
        payload = {
            "sign_off": row.sign_off, "person": row.person, "role": row.role, "decision": row.decision, "arm": row.arm,
            "packet_digest": row.packet_digest, "row": row_digest(row),
        }  # fmt: skip
        with recorded(store, [Draft(kind=SIGN_OFF, run_id=run.run_id, payload=payload)]) as connection:
            insert(connection, SignOffRow, [row])
    promoted, refused = settle_promotions(store, asked, run)
    return Recorded(row, tuple(promoted), refused)


def _refuse_older(store: Store, row: SignOffRow) -> None:
    """A decision that is not the person's newest, by the clocks they signed on, must not look as if it counted."""
    for other in store.read(SignOffRow, run_id=row.run_id):
        same = other.person.lower() == row.person.lower() and (None in (other.arm, row.arm) or other.arm == row.arm)
        if same and other.signed_at >= row.signed_at:
            raise InputError(
                f"{row.person} signed another decision ({other.decision}) at {other.signed_at:%Y-%m-%d %H:%M:%S} UTC, "
                f"which is not before this one at {row.signed_at:%Y-%m-%d %H:%M:%S} UTC.",
                remedy="The newest decision counts: correct the clock and sign again. Nothing was recorded.",
            )


def inbox() -> Path:
    """Where sign-offs wait for the warehouse."""
    return ledger_path() / "inbox"


def put(envelope: str) -> Path:
    """Leave a sign-off for whoever opens the warehouse next."""
    return write_whole(inbox() / f"{text_digest(envelope)[:16]}.json", envelope, durable=True)


def take(store: Store, envelope: str, waiting: Path) -> Recorded:
    """Record an envelope that waits in a file and publish what it did; the file stays until all of that is done, so
    that after a kill the next run takes it in again. Raises as `record`, and the file goes with a refusal.
    """
    try:
        found = record(store, envelope)
        publish(store)
    except InputError:
        waiting.unlink(missing_ok=True)
        raise
    waiting.unlink(missing_ok=True)
    return found


def take_in(store: Store, tell: Callable[[str], None] = lambda _: None) -> int:
    """Record every sign-off that waits, the oldest first; how many were. One that is refused is kept in `refused/`,
    with the reason. While the registry cannot be read all of them wait.
    """
    done = 0
    waiting = [path for path in inbox().glob("*.json") if path.is_file()]
    if not waiting:
        return 0
    try:
        registry = load_reviewers(reviewers_path())
    except InputError as error:
        tell(f"{len(waiting)} sign-offs wait, because the registry cannot be read: {error}")
        return 0
    for path in sorted(waiting, key=lambda each: (each.stat().st_mtime_ns, each.name)):
        envelope = path.read_text("utf-8", errors="replace")
        try:
            found = record(store, envelope, registry)
        except (InputError, ValueError, TypeError, KeyError) as error:
            # Also what cannot be read of the run it is about: no file here keeps a run from beginning.
            write_whole(inbox() / "refused" / path.name, envelope, durable=True)
            write_whole(inbox() / "refused" / f"{path.stem}.txt", f"{error}\n", durable=True)
            tell(f"sign-off {path.stem}: {error}")
        else:
            done += 1
            tell(f"sign-off {path.stem}: {found.row.person} ({found.row.role}): {found.row.decision}")
        path.unlink(missing_ok=True)
    return done
