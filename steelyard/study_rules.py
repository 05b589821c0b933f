"""Rules that hold between the parts of a study, and how a broken one names its place.

Pydantic reports a model validator's error at the whole model. `Misfits` carries a location for each problem, so that
`study_file` can point at the very line, and carries several, so that a user meets all of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steelyard.study import Baseline, Candidate, Control, Suite, Variation, Workload
    from steelyard.study_capacity import CapacitySearch

Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Misfit:
    """One broken rule: what is wrong, what to do, and where, relative to the model that was validated."""

    message: str
    remedy: str
    at: Loc = ()


class Misfits(ValueError):
    """Broken rules of one model; pydantic keeps it as the context of its `value_error`."""

    def __init__(self, *misfits: Misfit) -> None:
        super().__init__(" ".join(f"{each.message} {each.remedy}" for each in misfits))
        self.misfits = misfits


def suggestion(wrong: str, known: Sequence[str], *, what: str = "Known") -> str:
    """`Did you mean ...?` where something is close, else what is known."""
    close = get_close_matches(wrong, dict.fromkeys(known), n=2, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"{what}: {', '.join(known)}." if known else ""


def duplicates(section: str, names: Sequence[str], what: str) -> list[Misfit]:
    """A misfit for each name of a list that stood before."""
    return [
        Misfit(f"{what} {name} stands twice.", f"Every {what} needs a name of its own.", (section, index, "name"))
        for index, name in enumerate(names)
        if name in names[:index]
    ]


def study_misfits(
    baseline: Baseline | None,
    workloads: Sequence[Workload] | None,
    candidates: Sequence[Candidate] | None,
    controls: Sequence[Control] | None,
    suites: Sequence[Suite] | None,
    capacity: Sequence[CapacitySearch] | None = (),
) -> list[Misfit]:
    """Every broken rule between the parts. None for a part that is not valid in itself: its rules are left out."""
    found: list[Misfit] = []
    taken = {"baseline"}
    safe: dict[str, str] = {}
    for section, arms in (("candidates", candidates or ()), ("controls", controls or ())):
        for index, arm in enumerate(arms):
            if arm.name in taken:
                remedy = "Every arm needs a name of its own; `baseline` is taken."
                found.append(Misfit(f"arm {arm.name} stands twice.", remedy, (section, index, "name")))
            elif (like := safe.setdefault(arm.name.replace("-", "_"), arm.name)) != arm.name:
                message = f"arm {arm.name} differs from arm {like} only by - and _."
                remedy = "Both would be one asset in Dagster; choose a name that differs in more."
                found.append(Misfit(message, remedy, (section, index, "name")))
            taken.add(arm.name)
            if baseline is not None:
                found += _variation_misfits(baseline, arm, (section, index))
    if baseline is not None:
        found += _url_misfits(baseline.engine, baseline.url, ("baseline",))
        if workloads is not None:
            found += _length_misfits(baseline.args, workloads, ("baseline",))
            for section, arms in (("candidates", candidates or ()), ("controls", controls or ())):
                for index, arm in enumerate(arms):
                    found += _length_misfits(arm.args, workloads, (section, index))
    found += duplicates("workloads", [each.name for each in workloads or ()], "workload")
    found += duplicates("suites", [each.name for each in suites or ()], "suite")
    if workloads is not None:
        points = [f"{workload.name}@{load.name}" for workload in workloads for load in workload.load]
        for index, candidate in enumerate(candidates or ()):
            claimed = candidate.claim.load_point
            if claimed not in points:
                message = f"{claimed} is no load point of the study."
                remedy = suggestion(claimed, points, what="There are")
                at = "load" if candidate.claim.workload in [each.name for each in workloads] else "workload"
                found.append(Misfit(message, remedy, ("candidates", index, "claim", at)))
        found += _capacity_misfits(capacity or (), workloads)
    if controls is not None and not any(control.kind == "identity" for control in controls):
        found.append(
            Misfit(
                "an identity control is required: it measures the noise.", "Add one of kind identity.", ("controls",)
            )
        )
    if suites is not None:
        found += [
            Misfit(f"at least one {category} suite is required.", "Without it harm could not reject.", ("suites",))
            for category in ("accuracy", "safety")
            if not any(suite.category == category for suite in suites)
        ]
    return found


def _capacity_misfits(searches: Sequence[CapacitySearch], workloads: Sequence[Workload]) -> list[Misfit]:
    """Searches of a workload that is not there, or of one twice."""
    known = [each.name for each in workloads]
    found = []
    for index, each in enumerate(searches):
        at = ("capacity", index, "workload")
        if each.workload not in known:
            remedy = suggestion(each.workload, known, what="There are")
            found.append(Misfit(f"{each.workload} is no workload of the study.", remedy, at))
        if each.workload in [other.workload for other in searches[:index]]:
            found.append(Misfit(f"the capacity of {each.workload} is searched twice.", "Remove one.", at))
    return found


def _variation_misfits(baseline: Baseline, arm: Variation, at: Loc) -> list[Misfit]:
    """An arm that removes what is not there, changes nothing in the end, or cannot be served as asked."""
    engine = arm.engine or baseline.engine
    same = engine == baseline.engine
    args: Mapping[str, object] = baseline.args if same else {}
    found = [
        Misfit(
            f"null removes {what}, and the baseline has none of that name.",
            suggestion(key, sorted(there)),
            (*at, section, key),
        )
        for section, what, given, there in (
            ("args", "an argument", arm.args, args),
            ("env", "a variable", arm.env, baseline.env),
        )
        for key, value in given.items()
        if value is None and key not in there
    ]
    changed = {key: value for key, value in arm.args.items() if key not in args or not _equal(args[key], value)}
    env = {key: value for key, value in arm.env.items() if baseline.env.get(key) != value}
    identity = getattr(arm, "kind", None) == "identity"
    faults = getattr(arm, "faults", None)
    if not any((identity, changed, env, not same, arm.weights, arm.chat_template, arm.url, faults, found)):
        remedy = "Change something, or make it the identity control."
        found.append(Misfit("it is served exactly as the baseline is.", remedy, at))
    url = arm.url or (baseline.url if same else None)
    if engine == "attach" and arm.weights is not None:
        found.append(
            Misfit("weights cannot be derived for an engine somebody else runs.", "Remove weights.", (*at, "weights"))
        )
    if engine == "attach" and faults is not None:
        remedy = "Remove them, or use another engine."
        found.append(Misfit("faults need an engine that Steelyard starts.", remedy, (*at, "faults")))
    # What is inherited is told once, at the baseline.
    return found + (_url_misfits(engine, url, at) if arm.engine or arm.url else [])


def _equal(one: object, other: object) -> bool:
    """Equal as a user sees it: 1, 1.0 and true are three things."""
    return type(one) is type(other) and one == other


def _url_misfits(engine: str, url: str | None, at: Loc) -> list[Misfit]:
    """`url` goes with engine attach, and only with it."""
    if engine == "attach" and not url:
        return [Misfit("engine attach needs the url of the engine.", "Add url: http://HOST:PORT.", (*at, "engine"))]
    if engine != "attach" and url:
        return [Misfit(f"url means nothing for engine {engine}.", "Remove it, or use engine attach.", (*at, "url"))]
    return []


def _length_misfits(args: Mapping[str, object], workloads: Sequence[Workload], at: Loc) -> list[Misfit]:
    """A context too short for a workload: every request of it would be refused."""
    most = args.get("max_model_len")
    if not isinstance(most, int) or isinstance(most, bool):
        return []
    longest = max(workloads, key=lambda each: each.prompt_tokens + each.output_tokens)
    need = longest.prompt_tokens + longest.output_tokens
    if most >= need:
        return []
    message = f"{most} is too short for workload {longest.name}, which needs {need} tokens."
    return [Misfit(message, f"Write at least {need}.", (*at, "args", "max_model_len"))]
