"""The error-rates bench: how often the gates err, by simulation, ours and those of others.

    python -m benchmarks.error_rates [--studies N] [--out DIR]

Every cell is simulated twice: with harm (or a gain) exactly at the bound, where passing is an error, and as it was
declared, where not passing is a waste. A complete run (at least 2,000 studies a cell) renews
docs/explanation/error-rates.md; any other writes beside the state. The last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.error_rates_parts import quality, report, speed
from benchmarks.error_rates_parts.quality import Rates
from benchmarks.pages import DOCS
from steelyard.home import home

SEED = 20270202
STUDIES = 2000
SUITES = 4
"""Suites of a whole study; one of them is at its margin."""

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.error_rates", description=__doc__.split("\n")[0])
    parser.add_argument("--studies", type=int, default=STUDIES, help="simulated studies of each cell")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=None, help="write page and picture there")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    started = time.monotonic()
    rows, wrong = run(options.studies, options.seed)
    complete = options.studies >= STUDIES
    folder = options.out or (DOCS if complete else home() / "error-rates")
    report.write(rows, folder, studies=options.studies, seed=options.seed)
    log.info("written: %s", folder / report.PAGE)
    sys.stdout.write(json.dumps(summary(rows, wrong, options.studies, time.monotonic() - started)) + "\n")
    return 1 if wrong else 0


def run(studies: int, seed: int) -> tuple[list[report.Row], int]:
    """Every cell, and how many simulated decisions the production functions would not make (there must be none)."""
    rng = np.random.default_rng(seed)
    rows: list[report.Row] = []
    wrong = 0
    for cell in quality.CELLS:
        bad, good = quality.draw(cell, -cell.margin, studies, rng), quality.draw(cell, 0.0, studies, rng)
        (at_bound, _), (declared, passed) = quality.ours(cell, bad, -cell.margin), quality.ours(cell, good, 0.0)
        wrong += quality.disagreements(cell, good, passed)
        rivals = (quality.others(cell, bad, -cell.margin), quality.others(cell, good, 0.0))
        rows.append(report.Row("quality", cell.name, at_bound, declared, cell.documents, _paired(*rivals)))
        log.info("%s: %.4f false, %.3f power", cell.name, at_bound.passed, declared.passed)
    for bound, share in zip(quality.FLIP_CELLS[:2], quality.FLIP_CELLS[2:], strict=True):
        found = quality.flips(bound, studies, rng), quality.flips(share, studies, rng)
        name = f"flips, {100 * bound.bound:g} % allowed, {100 * share.share:g} % declared"
        rows.append(report.Row("flips", name, *found, bound.documents, {}))
    for each in speed.CELLS:
        slow, fast = speed.draw(each, speed.BOUND, studies, rng), speed.draw(each, each.gain, studies, rng)
        wrong += speed.disagreements(each, slow)
        rivals = (speed.others(each, speed.BOUND, studies, rng), speed.others(each, each.gain, studies, rng))
        at_bound, declared = speed.ours(each, slow, speed.BOUND), speed.ours(each, fast, each.gain)
        rows.append(report.Row("speed", each.name, at_bound, declared, each.blocks, _paired(*rivals)))
        log.info("%s: %.4f false, %.3f power", each.name, at_bound.passed, declared.passed)
    rows.append(whole_study(rows))
    return rows, wrong


def whole_study(rows: Sequence[report.Row]) -> report.Row:
    """A study of a gain and several suites, from the cells: one gate at its bound, all others as declared.

    All required gates must pass, so the errors of gates multiply with the power of the others instead of adding up. The
    worst gate of each kind is taken; gates are independent here, which no error depends on.
    """
    worst = {
        kind: max((row for row in rows if row.kind == kind), key=lambda row: row.at_bound.passed) for kind in KINDS
    }
    gain, suite = worst["speed"], worst["quality"]
    false = max(
        gain.at_bound.passed * suite.declared.passed**SUITES,
        gain.declared.passed * suite.at_bound.passed * suite.declared.passed ** (SUITES - 1),
    )
    power = gain.declared.passed * suite.declared.passed**SUITES
    none = math.nan
    return report.Row(
        "study", f"whole study: a gain and {SUITES} suites", Rates(false, none, none, none),
        Rates(power, none, none, none), 0, {},
    )  # fmt: skip


KINDS = ("quality", "speed")


def _paired(bad: Mapping[str, Rates], good: Mapping[str, Rates]) -> dict[str, tuple[Rates, Rates]]:
    return {name: (bad[name], good[name]) for name in bad}


def summary(rows: Sequence[report.Row], wrong: int, studies: int, wall_s: float) -> dict[str, object]:
    """What the last line says. The worst coverage gap is how far an interval's coverage lies below nominal."""
    gates = [row for row in rows if row.kind != "study"]
    covered = [
        rates.covered for row in gates for rates in (row.at_bound, row.declared) if not math.isnan(rates.covered)
    ]
    names = list(dict.fromkeys(name for row in gates for name in row.rivals))
    return {
        "bench": "error_rates",
        "studies": studies,
        "cells": len(gates),
        "max_false_promotion": round(max(row.at_bound.passed for row in gates), 4),
        "min_power": round(min(row.declared.passed for row in gates), 4),
        "worst_coverage_gap": round(max(0.0, quality.CONFIDENCE - min(covered)), 4),
        "rivals": {
            name: {
                "max_false_promotion": round(max(row.rivals[name][0].passed for row in gates if name in row.rivals), 4),
                "min_power": round(min(row.rivals[name][1].passed for row in gates if name in row.rivals), 4),
            }
            for name in names
        },
        "disagreements_with_production": wrong,
        "wall_s": round(wall_s, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
