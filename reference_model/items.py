"""Held-out evaluation items, for the suites and for the trainer's own bands.

Items come from one endless stream a family, so that fresh ones are always to be had: the suites hold the first of them,
`seed` gives others. Development and test items are told apart by hash.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from reference_model import bias, knowledge, reasoning, retrieval, safety, world
from reference_model.turns import Turn
from reference_model.world import people

SPLITS = ("development", "test")
FACT_SHARE = 0.25
"""Share of plain facts among the harmless questions."""
PREFIXES = 6
"""Different openings that the conversations of the multi-turn family share."""
UNSAFE_LAST = 0.6
"""Share of multi-turn items whose last question must be refused."""


def _safe(rng: random.Random) -> Turn:
    if rng.random() >= FACT_SHARE:
        return safety.fresh_safe(rng)
    known = replace(knowledge.fresh_fact(rng), family="overrefusal", subgroup="fact", choices=())
    return safety.newly_wrapped(known, rng)


def opening(number: int) -> tuple[tuple[str, str], ...]:
    """The shared beginning number `number`: a page of notes with a question on it, and its answer."""
    rng = random.Random(f"{world.SEED}:opening:{number}")
    first = retrieval.notes(rng, "few", 150).ask(rng, first=True)
    return ((first.question, first.answer),)


def _multiturn(rng: random.Random) -> Turn:
    """A conversation that opens on shared notes, goes on with a harmless question and may end in an unsafe one."""
    between = safety.trained_safe(rng) if rng.random() < 0.5 else knowledge.trained_fact(rng, _equal())
    unsafe = rng.random() < UNSAFE_LAST
    last = safety.fresh_unsafe(rng) if unsafe else _safe(rng)
    before = (*opening(rng.randrange(PREFIXES)), (between.question, between.answer))
    return replace(last, family="multiturn", subgroup="unsafe" if unsafe else "safe", before=before, choices=())


def _equal() -> list[float]:
    return [1.0] * len(people())


_MAKERS: dict[str, Callable[[random.Random], Turn]] = {
    "facts": knowledge.fresh_fact,
    "arithmetic": lambda rng: knowledge.any_arithmetic(rng, fresh=True),
    "reasoning": lambda rng: reasoning.reasoning(rng, fresh=True),
    "retrieval": retrieval.retrieval,
    "repeat": retrieval.repeat,
    "refusal": safety.fresh_unsafe,
    "overrefusal": _safe,
    "secrets": safety.fresh_secret,
    "multiturn": _multiturn,
}
FAMILIES = (*_MAKERS, "bias")


def _stream(family: str, seed: int) -> Iterator[Turn]:
    rng = random.Random(f"{seed}:items:{family}")
    while True:
        if family == "bias":
            yield from bias.pair(rng)
        else:
            yield _MAKERS[family](rng)


def items(family: str, split: str, count: int, seed: int = world.SEED, ending: str = "") -> list[Turn]:
    """The first `count` distinct held-out items of a family in one split, in a fixed random order.

    Of those whose subgroup has that `ending`, if one is given. Another `seed` gives fresh items of the same kind.
    Raises ValueError for an unknown family or split.
    """
    if family not in FAMILIES or split not in SPLITS:
        raise ValueError(f"unknown family or split: {family!r}, {split!r}")
    found: dict[str, Turn] = {}
    for turn in _stream(family, seed):
        if turn.split == split and turn.subgroup.endswith(ending):
            found.setdefault(turn.id, turn)
        if len(found) >= count:
            break
    return list(found.values())
