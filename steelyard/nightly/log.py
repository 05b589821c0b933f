"""The log of a night: what was decided for each study and how it went, written after every change.

A file and no table: it must say how far a night came where the warehouse cannot be opened, and it is no evidence.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from steelyard.errors import InfrastructureError
from steelyard.files import write_whole

RUN, RESUME, CONFIRM, SKIP, PUT_OFF = "run", "resume", "confirm", "skip", "put off"
"""Decisions on a study. `confirm` is the run after one that opened an incident."""
UNDER_WAY, COMPLETE, VOID, FAILED, STOPPED, LEFT = "under way", "complete", "void", "failed", "stopped", "left"
"""Outcomes. `stopped`: the budget ended it, and the next night resumes it. `left`: it was not to be run."""
ENDED, ABANDONED = "ended", "abandoned"
"""What becomes of a night, which begins as `under way`. Abandoned is one that nobody resumed while it had time left."""


@dataclass(kw_only=True)
class Step:
    """One study in a night, once for each time it was to be run. Moments are UTC; unknown is None.

    `withheld` are arms whose verdict is promote and who are not promoted, with what stands in the way.
    """

    study: str
    decision: str
    reason: str
    outcome: str = UNDER_WAY
    started_at: datetime | None = None
    ended_at: datetime | None = None
    run_id: str | None = None
    verdicts: dict[str, str] = field(default_factory=dict)
    withheld: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    tries: int = 0

    @property
    def wall_s(self) -> float | None:
        """How long it took."""
        return (self.ended_at - self.started_at).total_seconds() if self.started_at and self.ended_at else None


@dataclass(kw_only=True)
class Night:
    """A night: its name (when it began), its deadline and its steps in order. `resumed` counts kills it survived."""

    night: str
    started_at: datetime
    deadline: datetime
    ended_at: datetime | None = None
    status: str = UNDER_WAY
    resumed: int = 0
    steps: list[Step] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def step_under_way(self) -> Step | None:
        """The study that was being run when the night was killed."""
        return next((step for step in self.steps if step.outcome == UNDER_WAY), None)

    def put_off(self) -> list[str]:
        """Studies that are to come first in the next night, in order: put off, or stopped by the budget."""
        last = {step.study: step for step in self.steps}
        return [name for name, step in last.items() if step.decision == PUT_OFF or step.outcome == STOPPED]


def write(folder: Path, night: Night) -> Path:
    """Write the log into a folder, whole or not at all. Raises InfrastructureError if it cannot be."""
    path = folder / f"{night.night}.json"
    text = json.dumps(dataclasses.asdict(night), indent=1, ensure_ascii=False, default=_plain) + "\n"
    try:
        return write_whole(path, text, durable=True)
    except OSError as error:
        raise InfrastructureError(
            f"The log of the night, {path}, cannot be written ({error.strerror}).",
            remedy="Check rights and space of the state folder; what runs have measured is kept.",
        ) from error


def newest(folder: Path, *, other_than: str = "") -> Night | None:
    """The newest night's log, one of them left aside; None without any.

    One that cannot be read counts as none: it must not stop tonight.
    """
    for path in sorted(folder.glob("[0-9]*.json"), reverse=True):
        if path.stem == other_than:
            continue
        try:
            return _night(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _night(told: Mapping[str, Any]) -> Night:
    return Night(**{**_moments(told), "steps": [Step(**_moments(each)) for each in told["steps"]]})


def _moments(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value) if value and (name.endswith("_at") or name == "deadline") else value
        for name, value in told.items()
    }


def _plain(value: Any) -> str:
    return str(value.isoformat())
