"""A stack: the baseline with some levers pulled and some numbers set, as an arm that can be served and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steelyard.study import Arm, Lever
from steelyard.study_weights import WeightTransform
from steelyard.tuning.levers import Pull, clash, gravest

BASELINE = "baseline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Levers in the order they were taken, and numbers set over them. Without a name until it is tried."""

    name: str
    pulls: tuple[Pull, ...] = ()
    knobs: Mapping[str, int] = field(default_factory=dict)
    """Numeric arguments that the search set itself, over those of the levers."""

    @property
    def levers(self) -> tuple[str, ...]:
        """Names of its levers."""
        return tuple(each.name for each in self.pulls)

    @property
    def weights(self) -> tuple[WeightTransform, ...]:
        """How its weights are derived. Levers with other ones exclude each other, so the first has them all."""
        return next((each.weights for each in self.pulls if each.weights), ())

    @property
    def risk(self) -> str:
        """The gravest risk of its levers; numbers of a scheduler change the order of sums, as batches do."""
        return gravest([*(each.risk for each in self.pulls), *(["rounding"] if self.knobs else [])])

    @property
    def identity(self) -> tuple[frozenset[tuple[Any, str]], tuple[tuple[str, int], ...]]:
        """What it serves: two stacks of one identity are one."""
        slots = frozenset(item for each in self.pulls for item in each.slots.items() if item[0][1] not in self.knobs)
        return slots, tuple(sorted(self.knobs.items()))

    def without(self, lever: str) -> Stack:
        """One lever less."""
        return Stack(name="", pulls=tuple(each for each in self.pulls if each.name != lever), knobs=self.knobs)

    def holding(self, pulls: Sequence[Pull]) -> Stack:
        """These levers with its numbers."""
        return Stack(name="", pulls=stack_of(pulls).pulls, knobs=self.knobs)

    def set(self, knobs: Mapping[str, int]) -> Stack:
        """The same with these numbers and no others."""
        return Stack(name="", pulls=self.pulls, knobs=knobs)

    def change(self) -> dict[str, Any]:
        """What it changes, as a candidate of a study writes it: args, env, weights, those that are not empty."""
        args: dict[str, Any] = {}
        env: dict[str, Any] = {}
        for each in self.pulls:
            args |= each.args
            env |= each.env
        args |= self.knobs
        weights = [step.model_dump(mode="json", exclude_none=True, exclude_defaults=True) for step in self.weights]
        return {name: value for name, value in (("args", args), ("env", env), ("weights", weights)) if value}

    def arm(self, base: Arm) -> Arm:
        """The arm it is. Its kind is that of its one lever, or combined; the baseline stays the baseline."""
        if not self.pulls and not self.knobs:
            return base
        change = self.change()
        kinds = {each.kind for each in self.pulls} | ({"batching"} if self.knobs else set())
        lever: Lever = kinds.pop() if len(self.pulls) + bool(self.knobs) == 1 else "combined"  # type: ignore[assignment]
        args = {**base.args, **change.get("args", {})}
        env = {**base.env, **change.get("env", {})}
        return base.model_copy(
            update={
                "name": self.name, "role": "candidate", "lever": lever, "claim": None, "note": self.said(),
                "args": {name: value for name, value in args.items() if value is not None},
                "env": {name: value for name, value in env.items() if value is not None},
                "weights": self.weights or base.weights,
            }
        )  # fmt: skip

    def said(self) -> str:
        """Its levers and numbers in words."""
        return " + ".join([*self.levers, *([self.said_knobs()] if self.knobs else [])]) or BASELINE

    def said_knobs(self) -> str:
        """Its numbers in words; those of its levers where it sets none."""
        return ", ".join(f"{name} {value}" for name, value in self.knobs.items()) or "as before"


def stack_of(pulls: Sequence[Pull]) -> Stack:
    """A stack of levers that do not clash, each once; of two that do, the first stays."""
    kept: list[Pull] = []
    for each in pulls:
        if each not in kept and not any(clash(each, other) for other in kept):
            kept.append(each)
    return Stack(name="", pulls=tuple(kept))
