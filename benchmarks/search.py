"""The bench of the search: `steelyard tune` beside the grid of `vllm bench sweep serve`, over the same knobs.

    python -m benchmarks.search [STUDY] [--budget 10m]

Both look for the configuration with the most output tokens/s (geometric mean over the same load points). The grid
starts a server for each combination and measures each load point three times; the search measures what it needs.
Afterwards both winners are measured against each other in interleaved blocks. The last line of standard output is one
JSON object: `engine_seconds_ratio` (the search's wall time, everything included, over the sweep's), `same_best` (the
search's winner is the grid's, or is not slower than it beyond the noise), and the same ratio for requests alone. A
complete run renews docs/explanation/search.md. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import finish, run_steelyard, run_study
from benchmarks.pages import DOCS, renew
from benchmarks.search_parts.report import page
from benchmarks.search_parts.sweep import combinations, sweep
from benchmarks.stack_parts.study import to_the_end, unjudged
from steelyard.comparisons import compare_speed
from steelyard.deployments import deployment
from steelyard.environment import describe
from steelyard.errors import InfrastructureError, InputError
from steelyard.home import home, weights_path
from steelyard.records import ComparisonRow
from steelyard.records_trials import TrialRow
from steelyard.study_derived import data_of, write_study
from steelyard.study_file import LoadedStudy, load_study
from warehouse.store import Store

LAPTOP = Path(__file__).parents[1] / "studies" / "laptop"
GRID: Mapping[str, Sequence[Any]] = {
    "dtype": ("float32", "bfloat16"),
    "enable_prefix_caching": (False, True),
    "max_num_seqs": (2, 8, 64),
}
LEVERS = ("bf16", "prefix-cache")
"""The study's names of the grid's switches; its numbers are searched as numbers."""
POINTS = ("chat@c8", "shared-prefix@c8")
OURS, THEIRS = "search", "grid"
BLOCKS = 7
METRIC = "output_tokens_per_s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 for unusable input, 4 if an engine or the sweep fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__.split("\n")[0])
    parser.add_argument("study", nargs="?", type=Path, default=LAPTOP, help="study with the levers bf16, prefix-cache")
    parser.add_argument("--budget", default="10m", help="of the search; it is expected to end much earlier")
    options = parser.parse_args(arguments)
    return finish(lambda: run(options))


def run(options: argparse.Namespace) -> dict[str, object]:
    """The search, the sweep, and both winners side by side; what the last line says."""
    loaded = load_study(options.study)
    points = [point for point in loaded.study.load_points if point.name in POINTS]
    if len(points) < len(POINTS) or not {arm.name for arm in loaded.study.arms}.issuperset(LEVERS):
        raise InputError(f"the study lacks one of {', '.join((*POINTS, *LEVERS))}.", remedy="Take studies/laptop.")
    folder = home() / "search"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    told = search(options.study, options.budget, folder / "home")
    wall_s = time.monotonic() - began
    if told["winner"] is None:
        raise InfrastructureError("The search found nothing that pays.", remedy="The machine may be too noisy now.")
    base = deployment(loaded, loaded.study.arms[0], weights_into=weights_path())
    swept = sweep(base, points, GRID, folder / "sweep")
    ours = {**{name: base.args.get(name, "auto") for name in GRID}, **told["change"].get("args", {})}
    ours = {name: ours[name] for name in GRID}
    row = None if ours == swept.best else side_by_side(options.study, loaded, told["change"], swept.best, folder)
    with Store.open_published(folder / "home" / "published" / "steelyard.duckdb") as store:
        trials = store.read(TrialRow, run_id=told["run_id"])
    ours_s = sum(trial.duration_s for trial in trials)
    summed = {
        "engine_seconds_ratio": round(wall_s / swept.wall_s, 3),
        "same_best": row is None or (row.high is not None and row.high >= 1),
        "requests_seconds_ratio": round(ours_s / swept.requests_s, 3),
        "ours": ours,
        "grid": swept.best,
        "ours_over_grid": None if row is None else [row.estimate, row.low, row.high],
        "ours_s": round(wall_s, 1),
        "grid_s": round(swept.wall_s, 1),
        "combinations": len(combinations(GRID)),
        "ours_stacks": len({trial.arm for trial in trials}),
    }
    where = f"{describe()['cpu_model']}, {time.strftime('%Y-%m-%d')}"
    renew(DOCS / "search.md", page(summed, swept, trials, row, where=where))
    (folder / "results.json").write_text(json.dumps(summed, indent=1) + "\n", "utf-8")
    return summed


def search(study: Path, budget: str, state: Path) -> dict[str, Any]:
    """`steelyard tune` as a user runs it, without the confirmation; what its last line says."""
    asked = [
        "tune", str(study), "--budget", budget, "--goal", METRIC, "--levers", ",".join(LEVERS), "--fresh", "--quiet",
        "--no-confirm", "--number", f"max_num_seqs={','.join(map(str, GRID['max_num_seqs']))}",
        *(part for name in POINTS for part in ("--at", name)),
    ]  # fmt: skip
    return run_steelyard(asked, state)


def side_by_side(
    source: Path, loaded: LoadedStudy, ours: Mapping[str, Any], theirs: Mapping[str, Any], folder: Path
) -> ComparisonRow:
    """Our winner over the grid's, output tokens/s over both load points, paired by block."""
    data = unjudged(data_of(source, loaded))
    claim = {"workload": POINTS[0].partition("@")[0], "load": POINTS[0].partition("@")[2]}
    data |= {
        "study": "search-bench", "blocks": BLOCKS, "seed": loaded.study.seed + 11,
        "workloads": [each for each in data["workloads"] if any(p.startswith(f"{each['name']}@") for p in POINTS)],
        "candidates": [
            {"name": OURS, "lever": "combined", "claim": claim, **ours},
            {"name": THEIRS, "lever": "combined", "claim": claim, "args": dict(theirs)},
        ],
        "controls": [{"name": "identity", "kind": "identity"}],
    }  # fmt: skip
    path = write_study(data, loaded, folder / "pair", to_the_end(loaded))
    told = run_study(path, folder / "pair-home")
    with Store.open_published(Path(told["warehouse"])) as store:
        trials = store.read(TrialRow, run_id=told["run_id"])
    # One load point for the comparison: the blocks of both, so that one ratio says it.
    merged = [
        dataclasses.replace(row, load_point="both", block=2 * row.block + POINTS.index(row.load_point))
        for row in trials
    ]
    rows = compare_speed(told["run_id"], merged, arms=[OURS], baseline=THEIRS, confidence=0.95)
    return next(row for row in rows if row.metric == METRIC)


if __name__ == "__main__":
    sys.exit(main())
