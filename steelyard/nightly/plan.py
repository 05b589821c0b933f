"""What a night does with a study: run it, resume it, leave it, or put it off. Pure rules over what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from steelyard.durations import shown
from steelyard.nightly.log import PUT_OFF, RESUME, RUN, SKIP


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a study when its turn comes.

    `valid_run` is its newest complete run of exactly this study, policy and prices, with when it began; `changed` names
    what of machine, packages, suites and weights is other than in that run. `unfinished` is a run that can be resumed.
    `needs_s` is what the newest complete run took, None if there was none.
    """

    study: str
    valid_run: str | None = None
    valid_since: datetime | None = None
    changed: tuple[str, ...] = ()
    unfinished: str | None = None
    incidents: int = 0
    needs_s: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done, and why, in a sentence without a full stop."""

    what: str
    reason: str


def in_order(
    found: Sequence[str], *, wanted: Sequence[str], put_off: Sequence[str], waiting: Sequence[str] = ()
) -> list[str]:
    """Names in the order of their turn: with an incident to confirm, put off by the last night, named, all others.

    Without the second a night whose budget always ends early would never come to its last study.
    """
    order = [*waiting, *put_off, *wanted, *found]
    return [name for name in dict.fromkeys(order) if name in set(found)]


def decide(known: Known, *, now: datetime, deadline: datetime, valid_for_s: float, first: bool) -> Decision:
    """What to do with a study now. `first` is the first that is run tonight.

    A study that needs more than what is left is put off; if nothing ran before it, it never will fit better: it is
    begun, stopped at the deadline, and gone on with in the next night.
    """
    left_s = (deadline - now).total_seconds()
    decision = _wanted(known, now, valid_for_s)
    if decision.what == SKIP:
        return decision
    if left_s <= 0:
        return Decision(PUT_OFF, "the night's budget is spent")
    needs_s = known.needs_s
    if needs_s is not None and needs_s > left_s and not first and known.unfinished is None:
        return Decision(PUT_OFF, f"it needs about {shown(needs_s)}, and {shown(left_s)} of the budget are left")
    return decision


def _wanted(known: Known, now: datetime, valid_for_s: float) -> Decision:
    if known.unfinished is not None:
        return Decision(RESUME, f"run {known.unfinished} has not ended")
    if known.valid_run is None or known.valid_since is None:
        return Decision(RUN, "it has no complete run as it stands now")
    if known.incidents:
        many = "an incident waits" if known.incidents == 1 else f"{known.incidents} incidents wait"
        return Decision(RUN, f"{many} to be confirmed")
    if known.changed:
        return Decision(RUN, f"changed since run {known.valid_run}: {', '.join(known.changed)}")
    age = now - known.valid_since
    if age < timedelta(seconds=valid_for_s):
        return Decision(SKIP, f"run {known.valid_run} began {shown(age.total_seconds())} ago, and nothing changed")
    return Decision(RUN, f"run {known.valid_run} is {shown(age.total_seconds())} old")
