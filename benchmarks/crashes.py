"""kill -9 at any moment, again and again: does a night come out as if nothing had happened?

After one undisturbed night as reference, `steelyard nightly` is started, killed after a time of chance (the night, its
study's run, or both) and started again until the night ends; so on until as many kills were made as asked. Then every
run must have every row once and the reference's verdicts, an analyst's connection, open through each night, must have
been answered throughout, and `steelyard verify` must find all as recorded. Expected before the first kill: nothing
lost, nothing doubled, no verdict other, nothing that the ledger does not say.

The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.command import finish
from benchmarks.nights_parts.books import Analyst, findings, runs
from benchmarks.nights_parts.night import Place, kill
from benchmarks.nights_parts.studies import Kind, write_study

log = logging.getLogger(__name__)

PER_NIGHT = 4
"""Kills in the time that an undisturbed night takes, on average."""
# A second suffices to tell one night's run from the next; each begins anew.
NIGHTLY = "budget: 1h\nvalid_for: 1s\ndagster_days: null\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(prog="crashes", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200, help="kills to make (default: %(default)s)")
    parser.add_argument("--engine", choices=("fake", "real"), default="fake", help="default: %(default)s")
    parser.add_argument(
        "--beside", type=int, default=1, help="places beside each other; they disturb each other's timing"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the moments of chance (default: %(default)s)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="folder for the nights, kept; default: a temporary one"
    )
    asked = parser.parse_args(argv)
    return finish(lambda: crashes(asked.engine, asked.kills, beside=asked.beside, seed=asked.seed, keep=asked.keep))


def crashes(kind: Kind, kills: int, *, beside: int, seed: int, keep: Path | None) -> dict[str, object]:
    """Kill so many times; what was found."""
    folder = keep or Path(tempfile.mkdtemp(prefix="crashes-"))
    began = time.monotonic()
    share = [kills // beside + (place < kills % beside) for place in range(beside)]
    try:
        with ThreadPoolExecutor(beside) as pool:
            found = list(
                pool.map(lambda at: _one(Place(folder / f"place-{at}"), kind, share[at], seed + at), range(beside))
            )
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    total = sum(found, Counter[str]())
    names = ("kills", "killed_night", "killed_study", "killed_both", "nights", "lost", "doubled", "verdicts_differ",
             "unfinished", "not_as_recorded", "analyst_queries", "analyst_errors")  # fmt: skip
    return {"engine": kind, **{name: total[name] for name in names}, "wall_s": round(time.monotonic() - began, 1)}


def _one(place: Place, kind: Kind, kills: int, seed: int) -> Counter[str]:
    rng = random.Random(seed)
    write_study(place.studies / "crashing", kind)
    (place.studies / "nightly.yaml").write_text(NIGHTLY, "utf-8")
    began = time.monotonic()
    place.night()
    took = time.monotonic() - began
    [reference] = runs(place.snapshot)
    log.info("%s: an undisturbed night takes %.0f s", place.folder.name, took)
    found: Counter[str] = Counter()
    while found["kills"] < kills:
        with Analyst(place.snapshot) as analyst:
            _disturbed(place, rng, took, kills, found)
        found["nights"] += 1
        found["analyst_queries"] += analyst.queries
        found["analyst_errors"] += len(analyst.errors)
        for error in analyst.errors:
            log.error("%s: the analyst was refused: %s", place.folder.name, error)
        log.info("%s: %d kills, %d nights", place.folder.name, found["kills"], found["nights"])
    found += findings(place.snapshot, reference)
    for problem in place.verify():
        log.error("%s: %s", place.folder.name, problem)
        found["not_as_recorded"] += 1
    return found


def _disturbed(place: Place, rng: random.Random, took: float, kills: int, found: Counter[str]) -> None:
    """One night, killed until it ends."""
    while True:
        process = place.start()
        whom = kill(process, rng, took / PER_NIGHT) if found["kills"] < kills else None
        if whom is not None:
            found["kills"] += 1
            found[f"killed_{whom}"] += 1
        if whom in ("night", "both"):
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            continue
        # A study killed alone is tried again by the night itself.
        place.ended(process)
        return


if __name__ == "__main__":
    raise SystemExit(main())
