"""The page of a run's packet: the one written when it ended, or made again from published rows where it is gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from steelyard.digest import file_digest
from steelyard.errors import InputError
from steelyard.home import packets_path
from steelyard.records_review import LedgerRow
from steelyard.reports.packet_page import build, render
from steelyard.review.chain import PAGE
from warehouse.evidence import sealed
from warehouse.facts import load_facts
from warehouse.store import Store


def packet_text(store: Store, run_id: str) -> str:
    """The page as text, for who only reads: nothing is written where it is gone. Raises as `packet_page`."""
    seal = sealed(store, run_id)
    if seal is None or (packets_path() / f"{run_id}.html").is_file():
        return packet_page(store, run_id).read_text("utf-8")
    return render(load_facts(store, run_id), seal.packet)


def packet_page(store: Store, run_id: str, tell: Callable[[str], None] = lambda _: None) -> Path:
    """The file of the page. Raises InputError without a packet, and for a page that is not the one the ledger knows."""
    seal = sealed(store, run_id)
    if seal is None:
        raise InputError(
            f"There is no packet of run {run_id}.",
            remedy="Runs of before the ledger have none; the table `ledger` lists those that have.",
        )
    page = packets_path() / f"{run_id}.html"
    known = {json.loads(row.payload_json)["sha256"] for row in store.read(LedgerRow, run_id=run_id, kind=PAGE)}
    if not page.is_file():
        made = build(load_facts(store, run_id), seal.packet, page.with_name(f"{run_id}.again.html"))
        if file_digest(made) in known:
            made.replace(page)
            tell("The page was not there, and was made again from the published rows, to the byte.")
        else:
            tell("The page was not there. This one is made from the published rows by another Steelyard than then.")
            page = made
    elif file_digest(page) not in known:
        raise InputError(
            f"{page} is not the page that was written when the run ended.",
            remedy="Somebody changed it. Remove it, and this command makes it again from the published rows.",
        )
    return page
