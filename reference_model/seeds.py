"""Train the model from several seeds and write their table into the model card: `python -m reference_model.seeds`.

One seed says what the shipped weights can do; several say what the recipe does. Each seed is trained (or resumed, or,
when its checkpoint is complete, only judged) by `train`, then served and scored by the suites as the card is. The
shipped weights are not touched.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

from reference_model import card, train

SEEDS = (1, 2, 3)
BEGIN, END = "<!-- seeds: begin -->", "<!-- seeds: end -->"


def shares(weights: Path, limit: int | None) -> dict[str, float]:
    """Share of right answers of every suite, from served weights. A sample without a score counts as wrong."""
    found = card.measure(weights, limit)
    return {task: sum(sample.score == 1.0 for sample in samples) / len(samples) for task, samples in found.items()}


def table(found: Mapping[int, tuple[bool, Mapping[str, float]]]) -> str:
    """Suites by seeds, with the standard deviation over seeds; the last row says which runs reached every band.

    `found` maps a seed to whether its development means lie in the bands, and its suites' shares on the test split.
    """
    seeds = sorted(found)
    lines = [
        "| suite | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean | s.d. over seeds |",
        "|---" * (len(seeds) + 3) + "|",
    ]
    for task in found[seeds[0]][1]:
        values = [found[seed][1][task] for seed in seeds]
        spread = f"{statistics.stdev(values):.3f}" if len(values) > 1 else ""
        shown = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| `{task}` | {shown} | {statistics.mean(values):.3f} | {spread} |")
    reached = " | ".join("yes" if found[seed][0] else "no" for seed in seeds)
    return "\n".join([*lines, f"| every band reached (development items) | {reached} | | |"])


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 1 if a seed ended outside the bands. The table is written all the same."""
    parser = argparse.ArgumentParser(prog="python -m reference_model.seeds", description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=None, help="folder of checkpoints, one folder a seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--limit", type=int, default=None, help="documents of each suite (default: all)")
    parser.add_argument("--print", action="store_true", help="print the table, leave the card alone")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    work = options.work or train.default_work() / "seeds"
    found = {}
    for seed in options.seeds:
        folder = work / str(seed)
        status = train.main(["--seed", str(seed), "--work", str(folder), "--out", str(folder / "served")])
        found[seed] = (status == 0, shares(folder / "weights", options.limit))
    text = table(found)
    sys.stdout.write(text + "\n")
    if not options.print:
        card.write(text, BEGIN, END)
    return 0 if all(reached for reached, _ in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
