"""What people are told. At once: promoted, revoked, void, infrastructure failure. All else waits for the digest.

An event's name says what happened and to what, never when it was noticed: a night that is killed and resumed tells
nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steelyard.digest import digest
from steelyard.durations import shown
from steelyard.nightly.log import COMPLETE, FAILED, LEFT, STOPPED, VOID, Night, Step

PROMOTED, REVOKED, VOIDED, FAILURE, DIGEST = "promoted", "revoked", "void", "infrastructure failure", "digest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing to tell. `text` is for people; `facts` for programs."""

    event: str
    kind: str
    title: str
    text: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A promotion that is in force: what people know of an arm until they are told otherwise."""

    study: str
    arm: str
    deployment_digest: str
    run_id: str
    gain: str | None = None

    @property
    def key(self) -> str:
        """What makes it another promotion to who deploys: the arm, and what it serves."""
        return f"{self.study}/{self.arm}/{self.deployment_digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Why promotions no longer stand: `expired` by study and arm, for what the ledger took back by run and arm."""

    expired: Mapping[tuple[str, str], str]
    withdrawn: Mapping[tuple[str, str], str]

    def why(self, each: Standing) -> str:
        """The reason, in words that follow `no longer stands:`."""
        taken = self.withdrawn.get((each.run_id, each.arm))
        return taken or self.expired.get((each.study, each.arm)) or "it is no longer in the ledger"


def changes(told: Sequence[Standing], now: Sequence[Standing], ended: Ended, turn: int) -> list[Event]:
    """Promotions that people do not know of, and those that no longer stand.

    `turn` counts how often people were told a change: an arm that is promoted, revoked and promoted again is told three
    times.
    """
    before, after = {each.key: each for each in told}, {each.key: each for each in now}
    still = {(each.study, each.arm) for each in now}
    return [
        *(_promoted(each, turn) for key, each in after.items() if key not in before),
        *(
            _revoked(each, ended.why(each), turn)
            for key, each in before.items()
            # Promoted as another deployment now: that is what is told of it.
            if key not in after and (each.study, each.arm) not in still
        ),
    ]


def _promoted(each: Standing, turn: int) -> Event:
    gain = f" {each.gain}" if each.gain else ""
    return Event(
        event=_name(PROMOTED, each.key, turn), kind=PROMOTED, title=f"{each.study}: {each.arm} is promoted",
        text=f"Run {each.run_id} promoted {each.arm} of study {each.study}.{gain}\n"
        f"To serve it: steelyard serve-promoted {each.study} --arm {each.arm}",
        facts={"study": each.study, "arm": each.arm, "run_id": each.run_id, "deployment": each.deployment_digest},
    )  # fmt: skip


def _revoked(each: Standing, why: str, turn: int) -> Event:
    return Event(
        event=_name(REVOKED, each.key, turn), kind=REVOKED, title=f"{each.study}: {each.arm} is no longer promoted",
        text=f"The promotion of {each.arm} of study {each.study} (run {each.run_id}) no longer stands: {why}.\n"
        "Who serves it should go back to the baseline, or to what was promoted before.",
        facts={
            "study": each.study, "arm": each.arm, "run_id": each.run_id, "deployment": each.deployment_digest,
            "reason": why,
        },
    )  # fmt: skip


def of_step(night: Night, step: Step) -> list[Event]:
    """What a step that ended tells at once."""
    facts = {"study": step.study, "run_id": step.run_id, "night": night.night, "reason": step.error}
    if step.outcome == VOID:
        return [
            Event(
                event=_name(VOIDED, step.run_id or f"{night.night}/{step.study}"), kind=VOIDED,
                title=f"{step.study}: the run is void",
                text=f"{step.error or 'Its own controls or contracts failed.'}\nNothing of it is released.",
                facts=facts,
            )
        ]  # fmt: skip
    if step.outcome == FAILED:
        return [failure(f"{step.study}: the run failed", step.error or "No reason was recorded.", night, facts)]
    return []


def failure(title: str, text: str, night: Night, facts: Mapping[str, Any] | None = None) -> Event:
    """An infrastructure failure; the same one is told once a night."""
    return Event(
        event=_name(FAILURE, night.night, title, text), kind=FAILURE, title=title, text=text,
        facts={"night": night.night, **(facts or {})},
    )  # fmt: skip


def summary(
    night: Night, open_incidents: Iterable[str], in_force: Sequence[Standing], head: str | None = None
) -> Event:
    """The digest of a night. `head` is the ledger's: kept by whoever is told, it vouches for all entries before it."""
    took = (night.ended_at or night.started_at) - night.started_at
    lines = [f"{night.started_at:%Y-%m-%d %H:%M} UTC, {shown(took.total_seconds())}"]
    if night.resumed:
        lines.append(f"It was interrupted and resumed, {night.resumed} times." if night.resumed > 1 else
                     "It was interrupted and resumed, once.")  # fmt: skip
    lines += ["", *(_line(step) for step in night.steps)]
    if not night.steps:
        lines.append("There was no study to run.")
    lines += ["", *(f"incident  {each}" for each in open_incidents)]
    lines += [f"in force  {each.study}: {each.arm} (run {each.run_id})" for each in in_force]
    lines += [f"failure   {each}" for each in night.failures]
    lines += [f"ledger    {head}"] if head else []
    count = {outcome: sum(step.outcome == outcome for step in night.steps) for outcome in (COMPLETE, VOID, FAILED)}
    told = ", ".join(f"{number} {outcome}" for outcome, number in count.items() if number) or "nothing was run"
    text = "\n".join(lines).replace("\n\n\n", "\n\n").rstrip()
    facts = {"night": night.night, "steps": [{"study": s.study, "outcome": s.outcome, "run_id": s.run_id,
             "verdicts": s.verdicts, "withheld": s.withheld} for s in night.steps], "ledger": head}  # fmt: skip
    return Event(
        event=_name(DIGEST, night.night), kind=DIGEST, title=f"Night {night.started_at:%Y-%m-%d}: {told}", text=text,
        facts=facts,
    )  # fmt: skip


def _line(step: Step) -> str:
    took = f" in {shown(step.wall_s)}" if step.wall_s is not None and step.outcome != LEFT else ""
    what = step.decision if step.outcome == LEFT else step.outcome
    verdicts = ", ".join(
        f"{arm} {verdict}" + (f" ({step.withheld[arm]})" if arm in step.withheld else "")
        for arm, verdict in step.verdicts.items()
    )
    detail = verdicts or (f"{step.reason}; the next night resumes it" if step.outcome == STOPPED else None)
    detail = detail or (step.error.splitlines()[0] if step.error else step.reason)
    return f"{step.study}  {what}{took}: {detail}"


def _name(kind: str, *parts: object) -> str:
    return f"{kind.replace(' ', '-')}-{digest([kind, *map(str, parts)])[:12]}"
