"""The words of a search: what measures for it, how far it goes, and what became of each stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from steelyard.stats.incomplete_blocks import Observation
from steelyard.tuning.stack import Stack

Stage = Literal["start", "screen", "stack", "numbers"]
Fate = Literal["kept", "slower", "no gain", "undecided", "failed", "harmful", "not tried"]
"""kept: faster beyond doubt, or likely after the most of blocks; slower: beyond doubt; no gain: none was shown;
undecided: the budget was spent first; failed: no engine serves it; harmful: a quality gate is proven broken; not tried:
the budget was spent before.
"""
CONFIDENCE = 0.9
"""Of what the search itself believes. What it finds is judged afterwards by the study's own gates."""
LIKELY = 0.7
"""Of what it goes on with when a race is over and nothing was beyond doubt: to leave out every lever that a noisy
machine does not let prove loses more than to carry one that adds nothing. The winner as a whole must be beyond doubt.
"""
SPENT = "the budget was spent"
PUT_OFF = "not alone: single levers had their share of the time, and it is tried in the stack"
GONE = "what it was held against stopped serving"


class Bench(Protocol):
    """What measures. Everything it was asked before, in this process or a killed one, it answers from memory."""

    def serve(self, stack: Stack) -> str | None:
        """Make ready to measure; why it cannot be served, or None. Raises EngineError for the baseline."""
        ...

    def begin(self, name: str, stacks: int, blocks: int) -> None:
        """A round begins, with so many stacks and blocks at most: for whoever watches."""
        ...

    def block(self, stacks: Sequence[Stack]) -> dict[str, str]:
        """Measure each once at every load point, in random order; why some serve no more, by name."""
        ...

    def harm(self, stack: Stack) -> tuple[str, str] | None:
        """Ask the beginning of each suite: ("harmful", which gate is proven broken), ("failed", why it stopped
        serving), or None.
        """
        ...

    def again(self, stack: Stack) -> list[str]:
        """Of the levers that the engine refuses on the baseline, the names of those that it takes on a stack."""
        ...

    def release(self, names: Sequence[str]) -> None:
        """These are not needed for now; their engines end, and the next use starts them anew."""
        ...

    def observations(self) -> list[Observation]:
        """The goal of every stack at every load point in every block asked for so far."""
        ...

    def doubt(self, name: str) -> str | None:
        """A load point where no trial of a stack is valid, and why; None if there is none."""
        ...

    @property
    def points(self) -> Sequence[str]:
        """Names of the load points."""
        ...

    @property
    def left_s(self) -> float:
        """Seconds of the budget that were left when the last of these calls ended."""
        ...

    @property
    def start_s(self) -> float:
        """Seconds an engine needs to start, by those started last."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How far a search goes."""

    together: int = 6
    """Stacks that share their blocks, the one they are held against not counted."""
    least_blocks: int = 2
    few_blocks: int = 4
    """Of a race to the end, and of a lever that by then does not seem worth having."""
    most_blocks: int = 8
    """Of one that seems worth having and is not decided: noisy machines need them, quiet ones never get there."""
    block_share: float = 0.02
    """Of the time left: a race whose blocks take more ends after a few of them, so that others get their turn."""
    screen_share: float = 0.15
    """Of the budget: levers that nobody came to by then are tried in the stack instead, once it has its numbers."""
    worth: float = 1.02
    """What a lever must bring to the stack, by its estimate, to stay in it: fewer settings to explain."""
    rounds: int = 3
    trials: int = 12
    trials_together: int = 3
    start: tuple[str, ...] = ()
    """Levers that are pulled from the beginning and never left out."""


@dataclass(slots=True)
class Tried:
    """One stack in one round of the search and what became of it there. `against` and `varied`: what it was held
    against, and what distinguishes it from that.
    """

    round: int
    stage: Stage
    stack: Stack
    against: str
    varied: str
    fate: Fate = "not tried"
    reason: str | None = SPENT
    blocks: int = 0
