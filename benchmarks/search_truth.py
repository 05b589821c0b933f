"""The search on machines of known truth: how much of the best stack's speed it leaves behind, and what others do.

    python -m benchmarks.search_truth [--worlds 60] [--seed 1]

Simulated, no engine: a world has levers that help, harm or do nothing, pairs that help or hinder each other, a number
that every lever minds, and noise of blocks and of measurements. Its best stack is found by trying all. Beside the
search stand two others with as many measurements as it took, in whose means no block is shared: random configurations,
three runs each, and one lever at a time, as many runs each as there are, with everything that looked better put
together. The last line of standard output is one JSON object: mean loss of each, over all cells. A complete run renews
docs/explanation/search-truth.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.command import finish
from benchmarks.pages import DOCS, renew
from steelyard.stats.incomplete_blocks import Observation
from steelyard.tuning.knobs import Knobs
from steelyard.tuning.levers import Pull
from steelyard.tuning.search import Search
from steelyard.tuning.stack import BASELINE, Stack
from steelyard.tuning.terms import Settings

NUMBER, VALUES = "max_num_seqs", (2, 8, 32, 64)
POINTS = ("chat@c8", "long@c4")
DRIFT = 0.1
"""Standard deviation of the logarithm of what a block does to all that is measured in it."""
RUNS = 3
CELLS = (
    (2, 0.05, 400.0), (2, 0.2, 400.0), (6, 0.05, 400.0), (6, 0.2, 400.0), (6, 0.2, 100.0), (8, 0.1, 60.0),
    (8, 0.1, 110.0), (8, 0.1, 1000.0),
)  # fmt: skip
"""Levers, noise of one measurement (standard deviation of its logarithm), budget in measurements."""
GOOD = 0.02


@dataclass(frozen=True, slots=True)
class World:
    """Log gains of levers, of pairs of them, of the number's values, and of a lever where the number is not 2."""

    levers: Mapping[str, float]
    pairs: Mapping[tuple[str, str], float]
    values: Mapping[int, float]
    minds: Mapping[str, float]

    @classmethod
    def drawn(cls, seed: int, count: int) -> World:
        """Half of the levers do nothing alone, a quarter help by about 15 %, a quarter cost 10 %."""
        rng = random.Random(seed)
        names = [f"lever-{number}" for number in range(count)]
        return cls(
            levers={name: rng.choice([0.0, 0.0, rng.gauss(0.15, 0.1), rng.gauss(-0.1, 0.1)]) for name in names},
            pairs={each: rng.gauss(0, 0.08) * (rng.random() < 0.3) for each in itertools.combinations(names, 2)},
            values=dict(
                zip(VALUES, (0.0, rng.uniform(0.3, 0.8), rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.9)), strict=True)
            ),
            minds={name: rng.gauss(0, 0.08) * (rng.random() < 0.4) for name in names},
        )

    def speed(self, levers: Sequence[str], value: int) -> float:
        """Over the baseline's."""
        gain = sum(self.levers[name] for name in levers) + self.values[value]
        gain += sum(self.pairs[pair] for pair in itertools.combinations(sorted(levers), 2))
        return math.exp(gain + (sum(self.minds[name] for name in levers) if value != VALUES[0] else 0.0))

    @property
    def stacks(self) -> list[tuple[tuple[str, ...], int]]:
        """All there are."""
        sizes = range(len(self.levers) + 1)
        chosen = [levers for size in sizes for levers in itertools.combinations(sorted(self.levers), size)]
        return [(levers, value) for levers in chosen for value in VALUES]


@dataclass
class Simulated:
    """A bench as the search wants it. A measurement is one stack in one block, at every load point."""

    world: World
    noise: float
    left_s: float
    rng: random.Random
    spent: int = 0
    start_s: float = 0.0
    points: Sequence[str] = POINTS
    seen: list[Observation] = field(default_factory=list)

    def block(self, stacks: Sequence[Stack]) -> dict[str, str]:
        """Measure each once."""
        number = self.spent
        for point in self.points:
            drift = self.rng.gauss(0, DRIFT)
            for each in stacks:
                value = self.world.speed(each.levers, int(each.knobs.get(NUMBER, VALUES[0])))
                noisy = value * math.exp(drift + self.rng.gauss(0, self.noise))
                self.seen.append(Observation(config=each.name, stratum=point, block=number, value=noisy))
        self.left_s -= len(stacks)
        self.spent += len(stacks)
        return {}

    def serve(self, stack: Stack) -> str | None:
        """Everything is served."""

    def begin(self, name: str, stacks: int, blocks: int) -> None:
        """Nobody watches."""

    def harm(self, stack: Stack) -> tuple[str, str] | None:
        """Nothing harms."""

    def again(self, stack: Stack) -> list[str]:  # noqa: ARG002 - the protocol's
        """Nothing was refused."""
        return []

    def release(self, names: Sequence[str]) -> None:
        """Nothing runs."""

    def observations(self) -> list[Observation]:
        """All of them."""
        return self.seen

    def doubt(self, name: str) -> str | None:
        """All are valid."""

    def mean(self, levers: Sequence[str], value: int, runs: int = RUNS) -> float:
        """Mean log speed of some runs a load point, each in a block of its own: as a script beside a server does."""
        self.spent += runs
        drawn = [self.rng.gauss(0, math.hypot(DRIFT, self.noise)) for _ in range(runs * len(self.points))]
        return math.log(self.world.speed(levers, value)) + math.fsum(drawn) / len(drawn)


def searched(bench: Simulated) -> float:
    """Speed of what the search finds."""
    pulls = [Pull(name=name, kind="batching", risk="rounding", args={name: True}) for name in bench.world.levers]
    search = Search(bench, Settings(), lambda _: None, pulls=pulls)
    knobs = Knobs({NUMBER: VALUES}, lambda stack: {"scheduler_config": {NUMBER: VALUES[0], **stack.knobs}}, 3)
    won = search.run(knobs).winner or Stack(name=BASELINE)
    return bench.world.speed(won.levers, int(won.knobs.get(NUMBER, VALUES[0])))


def at_random(bench: Simulated, budget: int) -> float:
    """Speed of the best mean among as many random stacks as the budget allows."""
    stacks = bench.world.stacks
    tried = bench.rng.sample(stacks, min(len(stacks), max(1, budget // RUNS)))
    return bench.world.speed(*max(tried, key=lambda each: bench.mean(*each)))


def one_at_a_time(bench: Simulated, budget: int) -> float:
    """Speed of all levers together whose mean beat the baseline's, with the value whose mean was best."""
    runs = max(1, budget // (len(VALUES) + len(bench.world.levers)))
    base = bench.mean((), VALUES[0], runs)
    gains: dict[str | int, float] = {}
    candidates: list[str | int] = [*VALUES[1:], *bench.world.levers]
    for each in candidates:
        if bench.spent + runs <= budget:
            levers, value = ([], each) if isinstance(each, int) else ([each], VALUES[0])
            gains[each] = bench.mean(levers, value, runs) - base
    values: dict[int, float] = {each: gain for each, gain in gains.items() if isinstance(each, int) and gain > 0}
    levers = [each for each, gain in gains.items() if isinstance(each, str) and gain > 0]
    return bench.world.speed(levers, max(values, key=lambda each: values[each]) if values else VALUES[0])


@dataclass(frozen=True, slots=True)
class Cell:
    """Losses in every world of a cell, by method, and the measurements the search took."""

    levers: int
    noise: float
    budget: float
    losses: Mapping[str, Sequence[float]]
    spent: Sequence[int]
    rivals_spent: Mapping[str, Sequence[int]]


def measured(levers: int, noise: float, budget: float, worlds: int, seed: int) -> Cell:
    """All methods in the same worlds."""
    rivals: dict[str, Callable[[Simulated, int], float]] = {"random": at_random, "one_at_a_time": one_at_a_time}
    losses: dict[str, list[float]] = {name: [] for name in ("search", *rivals)}
    spent: list[int] = []
    rivals_spent: dict[str, list[int]] = {name: [] for name in rivals}
    for number in range(worlds):
        world = World.drawn(seed * 10_000 + number, levers)
        best = max(world.speed(*each) for each in world.stacks)

        def bench(world: World = world, number: int = number) -> Simulated:
            return Simulated(world, noise, budget, random.Random(seed * 10_000 + number + 5_000))

        ours = bench()
        losses["search"].append(1 - searched(ours) / best)
        spent.append(ours.spent)
        for name, rival in rivals.items():
            theirs = bench()
            losses[name].append(1 - rival(theirs, ours.spent) / best)
            rivals_spent[name].append(theirs.spent)
    return Cell(levers, noise, budget, losses, spent, rivals_spent)


def page(cells: Sequence[Cell], worlds: int, seed: int) -> str:
    """The table."""
    lines = [
        f"{worlds} worlds a cell, seed {seed}. Mean loss against the best stack there is, and the share of worlds in "
        f"which at most {GOOD:.0%} was lost.",
        "",
        "| levers | noise | budget | measurements taken | search | random | one at a time |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for cell in cells:
        told = [
            f"{statistics.fmean(each):.1%} ({sum(loss <= GOOD for loss in each) / len(each):.0%})"
            for each in cell.losses.values()
        ]
        lines.append(
            f"| {cell.levers} | {cell.noise:.0%} | {cell.budget:.0f} | {statistics.fmean(cell.spent):.0f} | "
            + " | ".join(told) + " |"
        )  # fmt: skip
    return "\n".join(lines)


def run(options: argparse.Namespace) -> dict[str, object]:
    """All cells; what the last line says."""
    cells = [measured(*each, options.worlds, options.seed) for each in CELLS]
    renew(DOCS / "search-truth.md", page(cells, options.worlds, options.seed))
    names = list(cells[0].losses)
    return {
        "worlds": options.worlds * len(cells),
        **{f"{name}_loss": round(statistics.fmean(x for c in cells for x in c.losses[name]), 4) for name in names},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 for unusable input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_truth", description=__doc__.split("\n")[0])
    parser.add_argument("--worlds", type=int, default=60, help="in each cell")
    parser.add_argument("--seed", type=int, default=2, help="1 is the one its rules were tried on")
    options = parser.parse_args(arguments)
    return finish(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
