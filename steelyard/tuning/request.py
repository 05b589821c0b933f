"""What a user asks of a search, and every way in which it cannot be meant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steelyard import durations
from steelyard.digest import digest
from steelyard.errors import InputError
from steelyard.study import LoadPoint, Study
from steelyard.tuning.goals import GOALS
from steelyard.tuning.knobs import USUAL
from steelyard.tuning.levers import Pull, chosen, clash, pulls_of, together

MOST_S = 7 * 86400.0
SEARCH_SHARE = 0.7
"""Of the budget that is the search's; the confirmation ends when its gates are decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One search: its budget in seconds, the goal's name, load points, levers and numbers. None: all there are."""

    budget_s: float
    goal: str = "slo_tokens_per_s"
    at: tuple[str, ...] | None = None
    levers: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    numbers: Mapping[str, tuple[int, ...]] | None = None

    @property
    def settings(self) -> dict[str, object]:
        """What the answer depends on: a larger budget is another search, because it decides otherwise."""
        numbers = None if self.numbers is None else {name: list(each) for name, each in self.numbers.items()}
        return {
            "budget_s": self.budget_s, "goal": self.goal, "at": self.at, "levers": self.levers,
            "without": self.without, "start": self.start, "numbers": numbers,
        }  # fmt: skip

    def digest(self, study_digest: str) -> str:
        """Of the search: study, policy, prices and what is asked. A search is resumed if this is the same."""
        return digest([study_digest, self.settings])


def seconds(text: str) -> float:
    """`30m`, `1h30m`, `90s` or `90` as seconds. InputError for anything else, or a time nobody means."""
    return durations.asked(text, "--budget", most_s=MOST_S)


def numbers(texts: Sequence[str]) -> dict[str, tuple[int, ...]] | None:
    """`max_num_seqs=8,16` and the like by name; `none` alone for no numbers; None where nothing is given."""
    if not texts:
        return None
    if list(texts) == ["none"]:
        return {}
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        parts = [part.strip() for part in values.split(",") if part.strip()]
        whole = all(part.isdecimal() and part.isascii() and int(part) > 0 for part in parts)
        if (
            not re.fullmatch(r"[a-z][a-z0-9_]*", name)
            or not whole
            or name in found
            or (not parts and name not in USUAL)
        ):
            raise InputError(
                f"--number: {text!r} names no engine argument with whole numbers above 0.",
                remedy=f"Write max_num_seqs=8,16,32, each name once; alone go {', '.join(USUAL)}; or none.",
            )
        found[name] = tuple(dict.fromkeys(int(part) for part in parts))
    return found


def check(request: Request, study: Study) -> None:
    """InputError for everything in a request that cannot be meant of this study."""
    points_of(request, study)
    pulls_asked(request, study)


def names(text: str) -> tuple[str, ...]:
    """Names between commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def points_of(request: Request, study: Study) -> list[LoadPoint]:
    """The load points to search over. InputError for one the study has not."""
    known = {point.name: point for point in study.load_points}
    for name in request.at or ():
        if name not in known:
            raise InputError(f"--at: there is no load point {name}.", remedy=f"There are {', '.join(known)}.")
    return [point for name, point in known.items() if request.at is None or name in request.at]


def pulls_asked(request: Request, study: Study) -> list[Pull]:
    """The levers to search, none that excludes one of the start. InputError for a name that is no lever, for levers of
    the start that exclude each other, for a goal that is none, and where nothing is left to search.
    """
    if request.goal not in GOALS:
        raise InputError(f"--goal: there is no goal {request.goal}.", remedy=f"There are {', '.join(GOALS)}.")
    if study.baseline.engine == "attach":
        raise InputError(
            "The baseline is run by somebody else, so no lever of it can be pulled here.",
            remedy="Search a study whose baseline Steelyard starts.",
        )
    every = pulls_of(study)
    first = chosen(every, request.start, "--start")
    together(first, "--start")
    asked = every if request.levers is None else chosen(every, request.levers, "--levers")
    for each in asked if request.levers is not None else ():
        together([*(one for one in first if one is not each), each], "--start and --levers")
    out = {each.name for each in chosen(every, request.without, "--without")}
    if both := out.intersection([*request.start, *(request.levers or ())]):
        raise InputError(f"--without: {', '.join(sorted(both))} is asked for as well.", remedy="Name each lever once.")
    found = [*first, *(each for each in asked if each not in first and each.name not in out)]
    found = [each for each in found if each in first or not any(clash(each, other) for other in first)]
    if not found and request.numbers == {}:
        raise InputError("There is nothing to search: no lever and no number.", remedy="Allow some.")
    return found
