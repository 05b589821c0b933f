"""A bench of known truth: the speed of a stack is given by a function, with noise of blocks and of measurements."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from steelyard.stats.incomplete_blocks import Observation
from steelyard.tuning.levers import Pull
from steelyard.tuning.stack import Stack

POINTS = ("chat@c8", "long@c4")


def pull(name: str, *, predicted: float | None = None, risk: str = "rounding", **args: object) -> Pull:
    """A lever that sets arguments; one of its own name unless told otherwise."""
    span = None if predicted is None else (predicted * 0.9, predicted, predicted * 1.1)
    return Pull(name=name, kind="batching", risk=risk, args=args or {name: True}, predicted=span)


@dataclass
class KnownBench:
    """Speeds from `truth`, 3 % noise a measurement, a tenth a block. `seconds` is what one arm of a block takes."""

    truth: Callable[[Stack], float]
    budget_s: float = 10_000.0
    seconds: float = 1.0
    noise: float = 0.03
    seed: int = 1
    broken: Mapping[str, str] = field(default_factory=dict)
    clashing: frozenset[str] = frozenset()
    harmful: Mapping[str, str] = field(default_factory=dict)
    taken: tuple[str, ...] = ()
    starts_s: float = 0.0
    blocks: int = 0
    seen: list[Observation] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def serve(self, stack: Stack) -> str | None:
        self.served.append(stack.name)
        if self.clashing and self.clashing <= set(stack.levers):
            return "these two cannot be used together"
        return next((why for name, why in self.broken.items() if name in stack.levers), None)

    def begin(self, name: str, stacks: int, blocks: int) -> None:
        """Nobody watches."""

    def block(self, stacks: Sequence[Stack]) -> dict[str, str]:
        number, self.blocks = self.blocks, self.blocks + 1
        for point in POINTS:
            shared = random.Random(f"{self.seed} {number} {point}").gauss(1.0, 0.1)
            for each in stacks:
                own = random.Random(f"{self.seed} {number} {point} {each.name}").gauss(0.0, self.noise)
                value = 1000 * shared * self.truth(each) * (1 + own)
                self.seen.append(Observation(config=each.name, stratum=point, block=number, value=value))
        self.budget_s -= self.seconds * len(stacks)
        return {}

    def harm(self, stack: Stack) -> tuple[str, str] | None:
        self.asked.append(stack.name)
        return next((("harmful", why) for name, why in self.harmful.items() if name in stack.levers), None)

    def again(self, stack: Stack) -> list[str]:
        return list(self.taken)

    def release(self, names: Sequence[str]) -> None:
        """Nothing runs."""

    def observations(self) -> list[Observation]:
        return self.seen

    def doubt(self, name: str) -> str | None:
        return None if any(each.config == name for each in self.seen) else f"{POINTS[0]}: nobody answered"

    @property
    def points(self) -> Sequence[str]:
        return POINTS

    @property
    def start_s(self) -> float:
        return self.starts_s

    @property
    def left_s(self) -> float:
        return self.budget_s
