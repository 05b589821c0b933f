"""Facts about people, and arithmetic: what the model knows without its context.

Held out: a third of the question forms of every fact, and unordered operand pairs for every operation at once.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

from reference_model import lexicon, world
from reference_model.turns import Turn
from reference_model.world import ATTRIBUTES, Person, digest, people, share

HELD_OUT_FORMS = 3
"""Of the nine question forms of every fact."""
HELD_OUT_PAIRS = 0.2
CHOICES = 6
ARITHMETIC_FORMS = {
    "add": ("What is {a} + {b}?", "Compute {a} + {b}.", "{a} + {b} = ?", "Add {a} and {b}."),
    "subtract": ("What is {a} - {b}?", "Compute {a} - {b}.", "{a} - {b} = ?", "Take {b} away from {a}."),
}
ARITHMETIC_MIX = {"add-1": 0.06, "add-2": 0.43, "subtract-2": 0.36, "add-3": 0.15}
"""Operation and digits of the larger operand, with their shares in training. `add-3` adds two digits to three."""
FRESH_MIX = {"add-1": 0.04, "add-2": 0.16, "subtract-2": 0.45, "add-3": 0.35}
"""Shares in the suite: more of what is hard, to stay off the ceiling."""


def forms(attribute: int) -> tuple[str, ...]:
    """All question forms of an attribute."""
    return world.SHARED_FORMS + ATTRIBUTES[attribute].forms


@cache
def form_split(person: int, attribute: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of the trained and of the held-out question forms of one fact."""
    order = sorted(range(len(forms(attribute))), key=lambda form: digest("form", person, attribute, form))
    return tuple(sorted(order[HELD_OUT_FORMS:])), tuple(sorted(order[:HELD_OUT_FORMS]))


def pair_held_out(a: int, b: int) -> bool:
    """Whether the unordered operand pair never appears in training."""
    return share("pair", min(a, b), max(a, b)) < HELD_OUT_PAIRS


def fact(person: Person, attribute: int, form: int) -> Turn:
    """One question on one fact, in one of the attribute's forms."""
    spec = ATTRIBUTES[attribute]
    question = forms(attribute)[form].format(n=person.name, p=spec.phrase)
    answer, written = person.facts[attribute] + ".", f"{spec.key}-{form}"
    return Turn("facts", spec.key, question, answer, person.group, written, entity=person.name)


def arithmetic(kind: str, a: int, b: int, form: int) -> Turn:
    """One sum or difference (never negative). The subgroup also says whether digits carry over or are borrowed."""
    operation = kind.split("-", maxsplit=1)[0]
    a, b = max(a, b), min(a, b)
    value = a + b if operation == "add" else a - b
    carries = a % 10 + b % 10 > 9 if operation == "add" else a % 10 < b % 10
    hard = {"add": "-carry", "subtract": "-borrow"}[operation] if carries and kind != "add-1" else ""
    question = ARITHMETIC_FORMS[operation][form].format(a=a, b=b)
    return Turn("arithmetic", f"{kind}{hard}", question, f"{value}.", form=f"{operation}-{form}")


def trained_fact(rng: random.Random, weights: list[float]) -> Turn:
    """A fact of a person met as often as `weights` say, in a trained form."""
    person, attribute = rng.choices(people(), weights)[0], rng.randrange(len(ATTRIBUTES))
    return fact(person, attribute, rng.choice(form_split(person.index, attribute)[0]))


def fresh_fact(rng: random.Random) -> Turn:
    """A fact in a held-out form, with options for the likelihood route."""
    person, attribute = rng.choice(people()), rng.randrange(len(ATTRIBUTES))
    turn = fact(person, attribute, rng.choice(form_split(person.index, attribute)[1]))
    options = lexicon.others(rng, ATTRIBUTES[attribute].values, person.facts[attribute], CHOICES)
    return replace(turn, choices=options)


def any_arithmetic(rng: random.Random, *, fresh: bool) -> Turn:
    """A trained or a held-out calculation; the options are near misses."""
    mix = FRESH_MIX if fresh else ARITHMETIC_MIX
    kind = rng.choices(list(mix), list(mix.values()))[0]
    while True:
        low, high = {"add-1": (0, 10), "add-3": (100, 1000)}.get(kind, (0, 100))
        a, b = rng.randrange(low, high), rng.randrange(*((10, 100) if kind == "add-3" else (low, high)))
        if a != b and pair_held_out(a, b) == fresh:
            break
    turn = arithmetic(kind, a, b, rng.randrange(4))
    right = int(turn.answer.rstrip("."))
    near = [str(right + step) for step in (-20, -11, -10, -9, -2, -1, 1, 2, 9, 10, 11, 20) if right + step >= 0]
    return replace(turn, choices=lexicon.others(rng, near, str(right), CHOICES))
