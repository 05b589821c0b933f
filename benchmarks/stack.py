"""The bench of the stack: output tokens/s of what is promoted, over three things people deploy without measuring.

    python -m benchmarks.stack [STUDY] [--arm combined-compiled] [--blocks 7]

Runs one study of five arms under the same load points and SLO, interleaved as ever: the study's careless baseline, its
candidate `--arm` as the stack, vLLM's own defaults, Hugging Face's generate, and the baseline again. Ratios are paired
by block; the last line of standard output is one JSON object with their geometric means over all load points, and the
smallest against vLLM's defaults. A complete run renews docs/explanation/stack.md. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import finish, run_study
from benchmarks.pages import DOCS, renew
from benchmarks.stack_parts.report import page
from benchmarks.stack_parts.study import DEFAULTS, LEGACY, STACK, write_stack
from steelyard.comparisons import compare_speed
from steelyard.environment import describe
from steelyard.errors import InputError
from steelyard.home import home
from steelyard.records import ArmRow, ComparisonRow
from steelyard.records_trials import TrialRow
from steelyard.study_file import load_study
from warehouse.store import Store

LAPTOP = Path(__file__).parents[1] / "studies" / "laptop"
BLOCKS = 7
METRIC, GOOD = "output_tokens_per_s", "goodput_per_s"
AGAINST = {"baseline": "baseline", "vllm_defaults": DEFAULTS, "transformers": LEGACY}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 for unusable input, 4 if an engine fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stack", description=__doc__.split("\n")[0])
    parser.add_argument("study", nargs="?", type=Path, default=LAPTOP, help="study whose candidate is the stack")
    parser.add_argument("--arm", default="combined-compiled", help="that candidate")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="blocks; three at least")
    options = parser.parse_args(arguments)
    return finish(lambda: run(options))


def run(options: argparse.Namespace) -> dict[str, object]:
    """One study of all arms; what the last line says."""
    study = load_study(options.study).study
    known = [arm.name for arm in study.arms if arm.role == "candidate"]
    if options.arm not in known or options.blocks < 3:
        raise InputError(
            f"there is no candidate {options.arm}, or fewer than 3 blocks.", remedy=f"Try {', '.join(known)}."
        )
    folder = home() / "stack"
    shutil.rmtree(folder, ignore_errors=True)
    path = write_stack(options.study, folder / "study", arm=options.arm, blocks=options.blocks, seed=study.seed + 7)
    told = run_study(path, folder / "home")
    with Store.open_published(Path(told["warehouse"])) as store:
        trials = store.read(TrialRow, run_id=told["run_id"])
        arms = store.read(ArmRow, run_id=told["run_id"])
    found = {name: ratios(told["run_id"], trials, of) for name, of in AGAINST.items()}
    summed = summary(found)
    complete = all(len(each) == len(study.load_points) for each in found.values()) and told["status"] == "complete"
    where = f"{describe()['cpu_model']}, {time.strftime('%Y-%m-%d')}; {options.blocks} blocks"
    target = DOCS / "stack.md" if complete else folder / "stack.md"
    renew(target, page(found, trials, arms, summed, where=where))
    (folder / "results.json").write_text(json.dumps({"summary": summed, "steelyard": told}, indent=1) + "\n", "utf-8")
    return summed


def ratios(run_id: str, trials: Sequence[TrialRow], against: str) -> dict[str, ComparisonRow]:
    """The stack over another arm, by load point, paired by block; points without a pair are left out."""
    rows = compare_speed(run_id, trials, arms=[STACK], baseline=against, confidence=0.95)
    return {row.scope: row for row in rows if row.metric == METRIC and row.estimate is not None}


def summary(found: dict[str, dict[str, ComparisonRow]]) -> dict[str, object]:
    """Geometric means over the load points, the load point where the stack gains least on vLLM's defaults."""
    means: dict[str, object] = {}
    for name, rows in found.items():
        values = [row.estimate for row in rows.values() if row.estimate]
        mean = math.exp(math.fsum(map(math.log, values)) / len(values)) if values else None
        means[f"tokens_per_s_ratio_vs_{name}"] = None if mean is None else round(mean, 3)
    least = min(found["vllm_defaults"].values(), key=lambda row: row.estimate or math.inf, default=None)
    most = max(found["baseline"].values(), key=lambda row: row.estimate or 0.0, default=None)
    return means | {
        "largest_vs_baseline": None if most is None or most.estimate is None else round(most.estimate, 3),
        "largest_at": most.scope if most else None,
        "smallest_vs_vllm_defaults": None if least is None or least.estimate is None else round(least.estimate, 3),
        "smallest_at": least.scope if least else None,
        "smallest_high": None if least is None or least.high is None else round(least.high, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
