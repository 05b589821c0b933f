"""What a search may pull: changes to the baseline, each whole, and which of them exclude each other.

They come from the study's own candidates and from the catalogue. A candidate made of others' changes is a stack, and
stacks are what the search builds itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from steelyard.digest import canonical
from steelyard.errors import InputError
from steelyard.levers.catalogue import CATALOGUE, Entry
from steelyard.levers.effects import changed
from steelyard.levers.opportunities import risk_of
from steelyard.study import Arm, Study
from steelyard.study_weights import WeightTransform
from steelyard.study_weights import steps as weight_steps

RISKS = ("none", "rounding", "approximation", "unknown", "damage")
"""From the smallest to the gravest; what nobody catalogued may be anything short of known damage."""
SAFE = "rounding"
"""The gravest that leaves answers alone, but for near-ties."""
Slot = tuple[str, str]
"""What of a deployment is set: ("args", name), ("env", name), ("weights", "")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """One lever as it is pulled here: what it sets on the baseline. None in `args` or `env` removes what is there.

    `predicted` is what the newest survey expects of it: (low, middle, high), output tokens/s over the baseline's.
    """

    name: str
    kind: str
    risk: str
    args: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str | None] = field(default_factory=dict)
    weights: tuple[WeightTransform, ...] = ()
    predicted: tuple[float, float, float] | None = None

    @property
    def slots(self) -> dict[Slot, str]:
        """What it sets, and to what, as text that can be compared."""
        found = {("args", name): canonical(value) for name, value in self.args.items()}
        found |= {("env", name): canonical(value) for name, value in self.env.items()}
        if self.weights:
            found["weights", ""] = canonical([step.model_dump(mode="json") for step in self.weights])
        return found


def clash(one: Pull, other: Pull) -> str | None:
    """What both set to different values, in words; None if they can be pulled together."""
    ours, theirs = one.slots, other.slots
    for slot in ours.keys() & theirs.keys():
        if ours[slot] != theirs[slot]:
            return f"both set {slot[1] or 'the weights'}"
    return None


def pulls_of(study: Study, catalogue: Sequence[Entry] = CATALOGUE) -> list[Pull]:
    """Every single lever of the study, then those of the catalogue for its device and engine that it does not try.

    Two of the same change count once, under the study's name. Levers that need something no argument brings, and other
    engines, are no part of a search: nothing could be stacked on them.
    """
    base = study.arms[0]
    own = [_changed(arm, base, catalogue) for arm in study.arms if arm.role == "candidate" and _same_door(arm, base)]
    listed = [
        Pull(
            name=entry.name, kind=entry.kind, risk=entry.risk, args=dict(entry.args), env=dict(entry.env),
            weights=(WeightTransform.model_validate(dict(entry.weights)),) if entry.weights else (),
        )
        for entry in catalogue
        if entry.engine == base.engine and study.hardware.device in entry.devices and not entry.needs
    ]  # fmt: skip
    found: list[Pull] = []
    names: set[str] = set()
    for each in [*_singles(own, listed), *listed]:
        if not each.slots or each.slots == _already(each, base) or any(each.slots == other.slots for other in found):
            continue
        name = each.name
        while name in names:
            name += "-catalogue"
        names.add(name)
        found.append(replace(each, name=name))
    return found


def chosen(pulls: Sequence[Pull], names: Iterable[str], flag: str) -> list[Pull]:
    """Those named, in the order named. InputError for a name that is no lever here."""
    known = {each.name: each for each in pulls}
    found = []
    for name in names:
        if name not in known:
            raise InputError(f"{flag}: there is no lever {name}.", remedy=f"There are {', '.join(sorted(known))}.")
        found.append(known[name])
    return found


def together(pulls: Sequence[Pull], flag: str) -> None:
    """InputError if two of them exclude each other."""
    for place, one in enumerate(pulls):
        for other in pulls[place + 1 :]:
            if why := clash(one, other):
                raise InputError(
                    f"{flag}: {one.name} and {other.name} exclude each other: {why}.", remedy="Name one of them."
                )


def changes_answers(risk: str) -> bool:
    """Whether a risk is more than another order of the same arithmetic."""
    return RISKS.index(risk) > RISKS.index(SAFE)


def gravest(risks: Iterable[str]) -> str:
    """The gravest of some risks; none of none."""
    return max(risks, key=RISKS.index, default=RISKS[0])


def _changed(arm: Arm, base: Arm, catalogue: Sequence[Entry]) -> Pull:
    return Pull(
        name=arm.name, kind=arm.lever or "combined", risk=risk_of(arm, base, catalogue),
        args={name: arm.args.get(name) for name in sorted(changed(arm.args, base.args))},
        env={name: arm.env.get(name) for name in sorted(changed(arm.env, base.env))},
        weights=tuple(weight_steps(arm.weights)) if arm.weights is not None else (),
    )  # fmt: skip


def _singles(own: Sequence[Pull], listed: Sequence[Pull]) -> list[Pull]:
    """Without those whose every change another lever makes."""
    kept = []
    for each in own:
        others = [other.slots.items() for other in [*own, *listed] if 0 < len(other.slots) < len(each.slots)]
        parts = {item for items in others if items <= each.slots.items() for item in items}
        if parts != set(each.slots.items()):
            kept.append(each)
    return kept


def _same_door(arm: Arm, base: Arm) -> bool:
    """Whether an arm is the baseline's kind of engine, started by us, with its template: all a stack can be made of."""
    return arm.engine == base.engine != "attach" and arm.chat_template == base.chat_template


def _already(pull: Pull, base: Arm) -> dict[Slot, str]:
    """The slots of a lever as the baseline has them."""
    found = {("args", name): canonical(base.args.get(name)) for name in pull.args}
    found |= {("env", name): canonical(base.env.get(name)) for name in pull.env}
    return found
