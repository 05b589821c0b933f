"""Thirty nights with a noise burst on night 9 and a regression from night 17 on: who is told what, and when?

Each is a whole `steelyard nightly` over the fake engine, whose speed is set from outside, without another deployment
digest: as a driver, a neighbour or a warm room would. On night 9 both arms are slow and the candidate more than the
baseline, by as much as the regression is deep; from night 17 on the candidate alone is slower, and still fast enough
for every gate. Events go to a webhook that listens here. Expected before the first night: the promotion is told after
night 1, revoked on night 18 (two nights at the new level, and the run that confirms it), and on no night before.

The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.command import finish
from benchmarks.nights_parts.night import Place
from benchmarks.nights_parts.report import page
from benchmarks.nights_parts.studies import write_study
from benchmarks.nights_parts.webhook import Heard, webhook
from benchmarks.pages import DOCS, renew

log = logging.getLogger(__name__)

STUDY, ARM = "nights", "batching"
BURST, REGRESSION = 9, 17
SLOWER = 1.25
"""The regression: each of the candidate's times is so many times as long, and its gain a fifth smaller."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(prog="nights", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nights", type=int, default=30, help="nights (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder for the nights, kept; else a temporary one")
    parser.add_argument("--page", type=Path, default=DOCS / "nights.md", help="page whose generated part is written")
    asked = parser.parse_args(argv)
    return finish(lambda: nights(asked.nights, keep=asked.keep, target=asked.page))


def nights(count: int, *, keep: Path | None, target: Path) -> dict[str, object]:
    """Simulate the nights; what was told."""
    folder = keep or Path(tempfile.mkdtemp(prefix="nights-"))
    began = time.monotonic()
    try:
        with webhook() as heard:
            told = _nights(Place(folder), count, heard)
            log_rows = _incidents(Place(folder).snapshot)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    summary = _summary(told, log_rows)
    renew(target, page(told, log_rows, burst=BURST, regression=REGRESSION, slower=SLOWER))
    return {"nights": count, **summary, "wall_s": round(time.monotonic() - began, 1)}


def _nights(place: Place, count: int, heard: Heard) -> list[dict[str, Any]]:
    weather = place.folder / "weather"
    weather.mkdir(parents=True)
    write_study(place.studies / STUDY, "fake", weather=weather)
    settings = f"budget: 1h\nvalid_for: 1s\nnotify:\n  webhook: {{url: '{heard.url}'}}\n"
    (place.studies / "nightly.yaml").write_text(settings, "utf-8")
    told: list[dict[str, Any]] = []
    for night in range(1, count + 1):
        baseline, candidate = _weather(night)
        (weather / "baseline").write_text(str(baseline))
        (weather / "candidate").write_text(str(candidate))
        before = len(heard.bodies)
        place.night()
        fresh = heard.events[before:]
        gains = _gains(place.snapshot)
        told.append({"night": night, "events": fresh, "gains": gains[sum(len(each["gains"]) for each in told) :]})
        log.info("night %d: gain %s; %s", night, ", ".join(f"{gain:.2f}" for gain in told[-1]["gains"]),
                 "; ".join(each["title"] for each in fresh))  # fmt: skip
    return told


def _weather(night: int) -> tuple[float, float]:
    """How many times as long times are, of the baseline's engine and of the candidate's."""
    if night == BURST:
        return 2.0, 2.0 * SLOWER
    return 1.0, SLOWER if night >= REGRESSION else 1.0


def _gains(snapshot: Path) -> list[float]:
    """The candidate's gain in every complete run, in order."""
    with duckdb.connect(snapshot, read_only=True) as connection:
        found = connection.execute(
            "SELECT estimate FROM comparisons JOIN studies USING (run_id) WHERE arm = ? AND "
            "metric = 'output_tokens_per_s' AND status = 'complete' ORDER BY started_at",
            [ARM],
        ).fetchall()
    return [gain for (gain,) in found]


def _incidents(snapshot: Path) -> list[dict[str, Any]]:
    with duckdb.connect(snapshot, read_only=True) as connection:
        frame = connection.sql(
            "SELECT arm, metric, scope, what, state, before, after, measured_again, revoked, opened_by, "
            "(SELECT count(*) FROM studies WHERE status = 'complete' AND run_id <= opened_by) AS run "
            "FROM incident_log ORDER BY opened_at, arm, metric"
        ).df()
    found: list[dict[str, Any]] = frame.to_dict("records")
    return found


def _summary(told: Sequence[Mapping[str, Any]], incidents: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    kinds: dict[str, list[int]] = {
        kind: [each["night"] for each in told for event in each["events"] if event["kind"] == kind]
        for kind in ("promoted", "revoked", "void", "infrastructure failure", "digest")
    }
    return {
        "promoted_on": kinds["promoted"], "revoked_on": kinds["revoked"], "void_on": kinds["void"],
        "failed_on": kinds["infrastructure failure"], "digests": len(kinds["digest"]),
        "incidents": len(incidents), "confirmed": sum(each["state"] == "confirmed" for each in incidents),
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
