"""Walks the reviewer's path in a real browser and takes its pictures: lineage, rows, packet, sign, promotion, refusals.

    .venv/bin/python scripts/reviewer_path.py RUN --keys DIR --out docs/images

RUN waits for sign-offs in `STEELYARD_HOME`. DIR holds a key file for each person of `studies/reviewers.yaml`, named
after the part of the e-mail before the @. It needs `playwright` and a Chromium, which are in no lock: nobody else does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from assets.common import asset_safe
from steelyard.home import reviewers_path
from steelyard.review.keys import private_key
from steelyard.review.reviewers import Reviewer, load_reviewers
from steelyard.review.sign_off import SignOff, signed
from warehouse.evidence import sealed
from warehouse.ledger import head_of
from warehouse.store import Store

UI, DESK = "http://127.0.0.1:3000", "http://127.0.0.1:3001"
CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


class Walk:
    """One walk: a browser page, the run, and where pictures go."""

    def __init__(self, page: Any, run_id: str, keys: Path, out: Path) -> None:
        self.page, self.run_id, self.keys, self.out = page, run_id, keys, out
        with Store.open_published() as store:
            seal, head = sealed(store, run_id), head_of(store)
            [run] = store.rows("SELECT study, owner FROM studies WHERE run_id = $1", [run_id])
            arms = store.rows("SELECT arm FROM verdicts WHERE run_id = $1 AND verdict = 'promote'", [run_id])
        assert seal is not None
        assert head is not None
        self.digest, self.head, self.study, self.arm = seal.digest, head.entry, asset_safe(run["study"]), arms[0]["arm"]

    def see(self, url: str, name: str, *, wait: str | None = None, full: bool = False) -> None:
        self.page.goto(url)
        if wait:
            self.page.get_by_text(wait).first.wait_for(timeout=60_000)
        self.picture(name, full=full)

    def picture(self, name: str, *, full: bool = False) -> None:
        with contextlib.suppress(Exception):
            self.page.get_by_text("Skip", exact=True).click(timeout=1_500)
        time.sleep(4)
        self.page.screenshot(path=self.out / f"{name}.png", full_page=full)

    def envelope(self, reviewer: Reviewer, role: str, packet: str | None = None) -> str:
        """What the person signs, without asking first whether it may be."""
        now = datetime.now(UTC)
        said = SignOff(
            run_id=self.run_id, packet_digest=packet or self.digest, person=reviewer.person, role=role,
            decision="approve", arm=None, conditions=None, signed_at=now, expires_at=now + timedelta(days=20),
            ledger_head=self.head,
        )  # fmt: skip
        return signed(said, private_key(self.keys / f"{reviewer.person.partition('@')[0]}.key", None))

    def sign(self, envelope: str, name: str, wait: str) -> None:
        """Start the job `sign_off` from the page, as a person does, and picture what came of it."""
        self.page.goto(f"{UI}/locations/steelyard/jobs/sign_off/playground")
        editor = self.page.locator(".CodeMirror").first
        editor.wait_for(timeout=60_000)
        editor.click()
        self.page.keyboard.press("Control+A")
        config = {"ops": {"take_sign_off": {"config": {"envelope": envelope}}}}
        self.page.keyboard.insert_text(yaml.safe_dump(config, width=10_000))
        time.sleep(2)
        self.page.get_by_role("button", name="Launch run").click()
        self.page.get_by_text(wait).first.wait_for(timeout=60_000)
        self.picture(name)

    def walk(self) -> None:
        """From the lineage of a verdict to its promotion, past who may not sign."""
        asset = f"{UI}/assets/{self.study}"
        self.see(f"{asset}/verdict_{asset_safe(self.arm)}?view=overview", "review-verdict", wait="gates_rows")
        self.see(f"{asset}/verdict_{asset_safe(self.arm)}?view=lineage", "review-lineage", wait="speed_comparisons")
        self.page.goto(f"{asset}/speed_comparisons?view=overview")
        self.page.get_by_placeholder("Filter columns").fill("est")
        self.picture("columns")
        gate = f"{DESK}/runs/{self.run_id}/comparisons?arm={self.arm}&category=speed"
        self.see(f"{gate}&metric=output_tokens_per_s", "rows-of-a-comparison")
        self.page.get_by_text("row", exact=True).first.click()
        self.picture("rows")
        self.see(f"{DESK}/runs/{self.run_id}/packet", "review-packet")
        people = load_reviewers(reviewers_path()).reviewers
        able = {role: person for person in people for role in person.roles if "inference" not in person.teams}
        owner = next(person for person in people if "inference" in person.teams)
        self.sign(self.envelope(owner, owner.roles[0]), "review-refused-owner", "who submits may not approve")
        first, *rest = able.items()
        self.sign(self.envelope(first[1], first[0], packet="0" * 64), "review-refused-packet", "was signed")
        self.sign(self.envelope(first[1], first[0]), "review-waits", "it waits for the sign-off")
        for role, person in rest:
            self.sign(self.envelope(person, role), "review-signed", "promoted")
        self.see(f"{DESK}/runs/{self.run_id}/promotions", "review-promotions", wait="promotions")


@contextlib.contextmanager
def served() -> Iterator[None]:
    """`steelyard ui --write` with its desk, until both answer; ended with its whole group."""
    steelyard = str(Path(sys.executable).with_name("steelyard"))
    started = subprocess.Popen([steelyard, "ui", "--write"], start_new_session=True)
    try:
        for url in (f"{UI}/server_info", f"{DESK}/"):
            answered(url)
        yield
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        started.wait(timeout=60)


def answered(url: str, within_s: float = 120.0) -> None:
    """Wait until a page is there."""
    end = time.monotonic() + within_s
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--keys", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--chromium", default="/usr/bin/chromium", metavar="FILE")
    asked = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with served(), sync_playwright() as play:
        browser = play.chromium.launch(executable_path=asked.chromium, args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        Walk(page, asked.run, asked.keys, asked.out).walk()
        browser.close()


if __name__ == "__main__":
    main()
