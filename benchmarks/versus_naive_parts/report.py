"""What the bench says at its end: the last line and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pages import renew

PAGE = "versus-naive.md"


@dataclass(frozen=True, slots=True)
class Judged:
    """What both procedures said of an arm, why, and whether it deserves promotion."""

    arm: str
    deserves: bool
    why: str
    ours: str
    ours_reason: str
    naive: str
    naive_reason: str


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds of one procedure: the machine held by it, requests under way, and documents asked."""

    held_s: float
    busy_s: float
    documents: int
    parts: Mapping[str, float]


def wrong(verdict: str, *, deserves: bool) -> bool:
    """Promoting what must not be, or rejecting what deserves it. Undecided is not wrong."""
    return verdict == ("reject" if deserves else "promote")


def decided_right(verdict: str, *, deserves: bool) -> bool:
    """Promoting what deserves it, rejecting what does not. Undecided is not right either."""
    return verdict == ("promote" if deserves else "reject")


def summary(judged: Sequence[Judged], ours: Time, naive: Time, *, wall_s: float) -> dict[str, object]:
    """What the last line says."""
    return {
        "bench": "versus_naive",
        "arms": len(judged),
        "engine_seconds_ratio": round(naive.held_s / ours.held_s, 2),
        "busy_seconds_ratio": round(naive.busy_s / ours.busy_s, 2),
        "documents_ratio": round(naive.documents / ours.documents, 2),
        "ours_wrong": sum(wrong(each.ours, deserves=each.deserves) for each in judged),
        "naive_wrong": sum(wrong(each.naive, deserves=each.deserves) for each in judged),
        "ours_right": sum(decided_right(each.ours, deserves=each.deserves) for each in judged),
        "naive_right": sum(decided_right(each.naive, deserves=each.deserves) for each in judged),
        "ours_undecided": [each.arm for each in judged if each.ours not in ("promote", "reject")],
        "ours_held_s": round(ours.held_s, 1),
        "naive_held_s": round(naive.held_s, 1),
        "wall_s": round(wall_s, 1),
    }


def write(
    judged: Sequence[Judged], ours: Time, naive: Time, said: Mapping[str, object], folder: Path, *, where: str
) -> None:
    """Renew the generated part of the page."""
    renew(folder / PAGE, generated(judged, ours, naive, said, where))


def generated(judged: Sequence[Judged], ours: Time, naive: Time, said: Mapping[str, object], where: str) -> str:
    """The tables, as Markdown."""
    parts = list(dict.fromkeys([*ours.parts, *naive.parts]))
    lines = [
        f"{where}.",
        "",
        f"**{said['engine_seconds_ratio']} times less engine time.** Of {len(judged)} arms Steelyard decided "
        f"{said['ours_right']} rightly and {said['ours_wrong']} wrongly, and left undecided: "
        f"{_names(said['ours_undecided'])}. The naive procedure, which is never unsure, decided {said['naive_right']} "
        f"rightly and {said['naive_wrong']} wrongly.",
        "",
        "| | Steelyard | naive procedure | ratio |",
        "|---|---|---|---|",
        _line("the machine is held", ours.held_s, naive.held_s),
        _line("requests are under way", ours.busy_s, naive.busy_s),
        *(_line(f"- {part}", ours.parts.get(part), naive.parts.get(part)) for part in parts),
        f"| documents asked | {ours.documents:,} | {naive.documents:,} | {naive.documents / ours.documents:.1f} |",
        "",
        "| arm | deserves promotion | Steelyard | naive procedure | how its truth is known |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.arm} | {'yes' if each.deserves else 'no'} | {_said(each.ours, each.deserves)}: {each.ours_reason} "
        f"| {_said(each.naive, each.deserves)}: {each.naive_reason} | {each.why} |"
        for each in judged
    ]
    return "\n".join(lines)


def _names(undecided: object) -> str:
    return ", ".join(map(str, undecided)) if isinstance(undecided, list) and undecided else "none"


def _said(verdict: str, deserves: bool) -> str:
    return f"**{verdict}, wrong**" if wrong(verdict, deserves=deserves) else verdict


def _line(name: str, ours: float | None, naive: float | None) -> str:
    cells = ["" if each is None else f"{each:,.0f} s" for each in (ours, naive)]
    ratio = "" if not ours or naive is None else f"{naive / ours:.1f}"
    return f"| {name} | {cells[0]} | {cells[1]} | {ratio} |"
