"""The real A/A bench: is the baseline ever promoted over itself?

    python -m benchmarks.real_aa [--study studies/laptop] [--runs 4] [--arms 6]

Each run is a whole study on the real engine whose candidates are copies of its baseline, so that every promotion is a
false one. It keeps its own state folder. Its trials also say whether starting an engine again adds noise that blocks do
not show. A complete run (20 comparisons or more) renews the page of the documentation; any other writes beside its
state. It takes about 35 minutes; nothing else may run meanwhile. The last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import finish, run_study
from benchmarks.pages import DOCS
from benchmarks.real_aa_parts.copies import write_copies
from benchmarks.real_aa_parts.noise import METRIC, components, fixed_interval, spread_of
from benchmarks.real_aa_parts.report import Comparison, Found, Interval, summary, write
from steelyard.comparisons import trials_by_point
from steelyard.environment import describe
from steelyard.errors import InputError
from steelyard.home import home
from steelyard.records import ArmRow, ComparisonRow, GateRow, StudyRow, VerdictRow
from steelyard.records_trials import TrialRow
from steelyard.study_file import LoadedStudy, load_study
from warehouse.store import Store

ENOUGH = 20
SEED = 20261123
STUDY = Path("studies/laptop")
BASELINE = "baseline"

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 for unusable input, 4 if a run fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_aa", description=__doc__.split("\n")[0])
    parser.add_argument("--study", type=Path, default=STUDY, help="study whose baseline is copied")
    parser.add_argument("--runs", type=int, default=4, help="runs, each with engines started afresh")
    parser.add_argument("--arms", type=int, default=6, help="copies in each run")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the first run")
    options = parser.parse_args(arguments)
    return finish(lambda: run(options))


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run the studies, read what they stored, write the page; returns what the last line says."""
    if options.runs < 1 or options.arms < 1:
        raise InputError("--runs and --arms are positive.", remedy="Ask for one of each at least.")
    started = time.monotonic()
    folder = home() / "real-aa"
    shutil.rmtree(folder / "home", ignore_errors=True)
    ran: list[tuple[LoadedStudy, str]] = []
    snapshot: Path | None = None
    for number in range(options.runs):
        seed = options.seed + number
        path = write_copies(options.study, folder / f"study-{seed}", arms=options.arms, seed=seed)
        told = run_study(path, folder / "home")
        ran.append((load_study(path), told["run_id"]))
        snapshot = Path(told["warehouse"])
        log.info("run %d of %d: %s", number + 1, options.runs, ran[-1][1])
    with Store.open_published(snapshot) as store:
        found = collect(store, ran)
    said = summary(found, wall_s=time.monotonic() - started)
    # The page is about that study; on another, or on another machine, it is written beside the state.
    complete = len(found.comparisons) >= ENOUGH and options.study == STUDY
    here = describe()
    where = f"{options.runs} runs of {options.arms} copies; {here['cpu_model']}, {time.strftime('%Y-%m-%d')}"
    write(found, said, DOCS if complete else folder, where=where)
    return said


def collect(store: Store, ran: Sequence[tuple[LoadedStudy, str]]) -> Found:
    """What the runs stored, made into comparisons, intervals and noise."""
    comparisons: list[Comparison] = []
    intervals: list[Interval] = []
    spreads = []
    void: dict[str, str] = {}
    for loaded, run_id in ran:
        policy = loaded.policy
        trials = store.read(TrialRow, run_id=run_id)
        compared = store.read(ComparisonRow, run_id=run_id)
        gates = store.read(GateRow, run_id=run_id)
        arms = {row.arm: row for row in store.read(ArmRow, run_id=run_id) if row.role == "candidate"}
        study_row = store.read(StudyRow, run_id=run_id)[0]
        if study_row.status == "void":
            void[run_id] = study_row.reason or "no reason was stored"
        for verdict in store.read(VerdictRow, run_id=run_id):
            if verdict.arm not in arms:
                continue
            claim = arms[verdict.arm].claim or ""
            mine = [row for row in compared if row.arm == verdict.arm]
            there = next((row for row in mine if row.metric == METRIC and row.scope == claim), None)
            required = [row for row in gates if row.arm == verdict.arm and row.required]
            comparisons.append(
                Comparison(
                    run_id=run_id, arm=verdict.arm, verdict=verdict.verdict, claim=claim,
                    gates_passed=bool(required) and all(row.outcome == "pass" for row in required),
                    estimate=there.estimate if there else None, low=there.low if there else None,
                    high=there.high if there else None, blocks=there.n if there else 0,
                    flips=sum((row.gained or 0) + (row.lost or 0) for row in mine if row.metric == "score"),
                )
            )  # fmt: skip
        judged = {(row.arm, row.scope): row for row in compared if row.metric == METRIC and row.arm != BASELINE}
        for point, by_arm in trials_by_point(run_id, trials).items():
            # The baseline is one more start of the same deployment.
            if (spread := spread_of(point, by_arm)) is not None:
                spreads.append(spread)
            for arm, rows in by_arm.items():
                if arm == BASELINE or (arm, point) not in judged:
                    continue
                row = judged[arm, point]
                ends = None if row.low is None or row.high is None else (row.low, row.high)
                fixed = fixed_interval(rows, by_arm.get(BASELINE, []), policy.min_blocks, policy.confidence)
                intervals.append(Interval(point, ends, fixed))
    points = list(dict.fromkeys(each.load_point for each in spreads))
    by_point = {
        point: noise
        for point in points
        if (noise := components([each for each in spreads if each.load_point == point])) is not None
    }
    return Found(comparisons, intervals, components(spreads), by_point, void, ran[0][0].policy.confidence)


if __name__ == "__main__":
    sys.exit(main())
