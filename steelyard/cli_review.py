"""The commands of the reviewer's desk: `review`, `desk`, `sign`, `verify`, `key`.

Like `cli` this is the composition root (docs/decisions/0001): it reaches up, inside the functions.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steelyard.errors import InfrastructureError, InputError, StudyVoid

if TYPE_CHECKING:
    from steelyard.records import StudyRow
    from steelyard.review.sign_off import SignOff

FEWEST = 12
"""Characters of a packet's digest that name it."""


def add_review_commands(commands: Any) -> None:
    """Register the commands with the parser of `cli`."""
    review = commands.add_parser("review", help="the packet of a run as one HTML page, for who signs")
    review.add_argument("run", metavar="RUN", help="run id")
    review.add_argument("--out", type=Path, metavar="FILE", help="copy the page to this file")
    review.add_argument("--port", type=int, help="serve it on this loopback port until Ctrl-C")
    review.set_defaults(command=_review)

    desk = commands.add_parser("desk", help="serve the published rows, packets and reports as pages, on loopback")
    desk.add_argument("--port", type=int, default=3001, help="port to listen on (default: %(default)s)")
    desk.set_defaults(command=_desk)

    sign = commands.add_parser("sign", help="decide about the packet of a run, with your key")
    sign.add_argument("run", metavar="RUN", help="run id")
    sign.add_argument("--packet", required=True, metavar="DIGEST", help="digest of the packet that you have read")
    sign.add_argument("--as", dest="person", required=True, metavar="WHO", help="your e-mail, as in reviewers.yaml")
    sign.add_argument("--role", required=True, metavar="NAME", help="role in which you sign")
    sign.add_argument(
        "--decision", required=True, choices=("approve", "conditions", "reject", "abstain"),
        help="conditions: approved under what --because says",
    )  # fmt: skip
    sign.add_argument("--arm", metavar="NAME", help="the candidate it is about; default: every candidate of the run")
    sign.add_argument("--because", metavar="TEXT", help="the conditions, or why it is rejected")
    sign.add_argument("--expires", metavar="TIME", help="how long it counts, such as 30d; default: the policy's limit")
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="your Ed25519 private key")
    sign.add_argument("--print", dest="only_print", action="store_true", help="print the envelope; record nothing")
    sign.set_defaults(command=_sign)

    check = commands.add_parser("verify", help="hold evidence, packets, sign-offs and promotions against the ledger")
    check.add_argument("run", nargs="?", metavar="RUN", help="run id; default: every run")
    check.add_argument(
        "--snapshot", type=Path, metavar="FILE", help="published DuckDB file; default: the state folder's"
    )
    check.add_argument(
        "--head", action="append", default=[], metavar="HASH", help="a head of the ledger that you kept elsewhere"
    )
    check.set_defaults(command=_verify)

    key = commands.add_parser("key", help="make an Ed25519 key to sign with, and print its line for reviewers.yaml")
    key.add_argument("file", type=Path, metavar="FILE", help="file for the private key; it must not be there")
    key.set_defaults(command=_key)


def _review(arguments: argparse.Namespace) -> int:
    from pipelines import desk
    from pipelines.packets import packet_page
    from steelyard.files import write_whole
    from warehouse.evidence import sealed
    from warehouse.store import Store

    with Store.open_published() as store:
        page = packet_page(store, arguments.run, lambda line: print(line, file=sys.stderr))
        seal = sealed(store, arguments.run)
    if arguments.out is not None:
        page = write_whole(arguments.out, page.read_bytes())
    print(f"packet {seal.digest if seal else 'n/a'}")
    print(page)
    if arguments.port is not None:
        desk.serve(arguments.port, f"runs/{arguments.run}/packet", _say)
    return 0


def _desk(arguments: argparse.Namespace) -> int:
    from pipelines import desk

    desk.serve(arguments.port, "", _say)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _sign(arguments: argparse.Namespace) -> int:
    from assets.signing import checked, put, reviewable, take
    from steelyard.home import reviewers_path
    from steelyard.review.keys import private_key, public_line
    from steelyard.review.reviewers import load_reviewers
    from steelyard.review.sign_off import signed
    from warehouse.ledger import head_of
    from warehouse.store import Store

    registry = load_reviewers(reviewers_path())
    with Store.open_published() as store:
        run, seal = reviewable(store, arguments.run)
        read = str(arguments.packet).lower()
        if len(read) < FEWEST or not seal.digest.startswith(read):
            raise InputError(
                f"The packet of run {run.run_id} is {seal.digest[:16]}, and you read {read[:16]}.",
                remedy=f"Read the one that is there (steelyard review {run.run_id}); {FEWEST} characters name it.",
                field="--packet",
            )
        # Of the chain the run is in: another machine's is not known where this one is taken in.
        head = head_of(store, seal.entry.chain)
        said = _said(arguments, run, seal.digest, head.entry if head else "none")
        checked(store, said, registry)
    key = private_key(arguments.key, _passphrase if sys.stdin.isatty() else None)
    reviewer = registry.of(said.person)
    if reviewer is None or reviewer.public_key != public_line(key.public_key()):
        raise InputError(
            f"{arguments.key} is not the key of {said.person} in reviewers.yaml.", remedy="Sign with your own key.",
            field="--key",
        )  # fmt: skip
    envelope = signed(said, key)
    if arguments.only_print:
        print(envelope)
        return 0
    waiting = put(envelope)
    from assets.session import Session

    try:
        with Session() as session:
            found = take(session.store, envelope, waiting)
    except InfrastructureError as error:
        print(f"Signed. It waits in {waiting} and is taken in by the next run, since now: {error}")
        return 0
    print(f"Signed: {said.person} ({said.role}), {said.decision}, until {said.expires_at:%Y-%m-%d}.")
    for row in found.promoted:
        print(f"promoted  {row.arm}")
    for arm, why in found.refused.items():
        print(f"not yet   {arm}: {'; '.join(why)}")
    return 0


def _said(arguments: argparse.Namespace, run: StudyRow, packet: str, head: str) -> SignOff:
    from steelyard.durations import asked
    from steelyard.review.packet import longest
    from steelyard.review.sign_off import SignOff

    now = datetime.now(UTC)
    most = longest(run).total_seconds()
    lasts = asked(arguments.expires, "--expires", most_s=10 * 366 * 86400.0) if arguments.expires else most
    if lasts > most:
        raise InputError(
            f"The policy lets a sign-off count {most / 86400:g} days at most.", remedy="Give less.", field="--expires"
        )
    return SignOff(
        run_id=arguments.run, packet_digest=packet, person=arguments.person, role=arguments.role,
        decision=arguments.decision, arm=arguments.arm, conditions=arguments.because, signed_at=now,
        expires_at=now + timedelta(seconds=lasts), ledger_head=head,
    )  # fmt: skip


def _passphrase() -> str:
    from getpass import getpass

    return getpass("Passphrase of the key: ")


def _verify(arguments: argparse.Namespace) -> int:
    from steelyard.home import ledger_path, packets_path
    from steelyard.review.reviewers import registered
    from warehouse.ledger import HEADS, Head, heads
    from warehouse.store import Store
    from warehouse.verify import verify

    kept = [Head("", 0, each.lower()) for each in arguments.head]
    own = heads(ledger_path() / HEADS) if arguments.snapshot is None else []
    with Store.open_published(arguments.snapshot) as store:
        found = verify(
            store, run_ids=[arguments.run] if arguments.run else None, told=[*own, *kept],
            pages=packets_path() if arguments.snapshot is None else None, files=True,
            registry=registered() if arguments.snapshot is None else None,
        )  # fmt: skip
    for line in found.notes:
        print(f"note: {line}")
    for line in found.problems:
        print(line)
    outcome = f"{len(found.problems)} problems" if found.problems else "all as recorded"
    print(
        f"{found.entries:,} ledger entries, {found.runs:,} runs with {found.rows:,} rows, "
        f"{found.sign_offs:,} sign-offs, {found.pages:,} pages, {found.files:,} files: {outcome}"
    )
    return StudyVoid.exit_code if found.problems else 0


def _key(arguments: argparse.Namespace) -> int:
    import os

    from steelyard.review.keys import PASSPHRASE, new_key

    phrase = os.environ.get(PASSPHRASE) or (_passphrase() if sys.stdin.isatty() else "")
    print(f"public_key: {new_key(arguments.file, phrase or None)}")
    return 0
