"""Every way Steelyard fails, by name.

    SteelyardError
    ├── InputError               exit 2   a file or flag the user wrote is unusable
    ├── StudyVoid                exit 3   the study ran, but its own controls or contracts failed
    └── InfrastructureError      exit 4
        └── EngineError                   an engine failed; carries its last log lines
            ├── BadArgument               the engine's own parser refuses an argument
            ├── PortInUse
            ├── OutOfMemory
            ├── CrashedAtStart
            ├── CrashedWhileServing
            ├── Hung                      no token within the allowed time
            └── WrongModelServed

Each error is one sentence of what happened and one of what to do, because it is read at night.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class SteelyardError(Exception):
    """Base of all errors a user may meet; `exit_code` is what `steelyard` exits with."""

    exit_code: ClassVar[int] = 4

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class InputError(SteelyardError):
    """A study, policy, price book, suite or flag cannot be used as written.

    `problems` holds every problem of the files read together, each an `InputError` of its own; empty for a single one.
    """

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        remedy: str,
        file: str | None = None,
        line: int | None = None,
        field: str | None = None,
        problems: Sequence[InputError] = (),
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.file, self.line, self.field = file, line, field
        self.problems = tuple(problems)

    def __str__(self) -> str:
        if self.problems:
            return "\n".join(str(problem) for problem in self.problems)
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        at = f"{where}: " if where else ""
        field = f"{self.field}: " if self.field else ""
        return f"{at}{field}{self.message} {self.remedy}".strip()


class StudyVoid(SteelyardError):
    """The study's own controls or data contracts failed, so no verdict of it may be believed."""

    exit_code = 3


class InfrastructureError(SteelyardError):
    """The machine, the disk, the warehouse or an engine failed; the study is neither right nor wrong."""

    exit_code = 4


class EngineError(InfrastructureError):
    """An engine failed. `log_tail` holds its last lines, newest last."""

    def __init__(self, message: str, *, remedy: str, arm: str | None = None, log_tail: Sequence[str] = ()) -> None:
        super().__init__(message, remedy=remedy)
        self.arm = arm
        self.log_tail = tuple(log_tail)

    def __str__(self) -> str:
        head = f"{self.arm}: {super().__str__()}" if self.arm else super().__str__()
        return "\n".join([head, *(f"  | {line}" for line in self.log_tail)])


class BadArgument(EngineError):
    """The engine's own argument parser or configuration check refuses what the arm asks for."""


class PortInUse(EngineError):
    """Somebody else listens on the port the engine was given."""


class OutOfMemory(EngineError):
    """The engine could not get the memory it asked for, or the kernel killed it for taking too much."""


class CrashedAtStart(EngineError):
    """The engine ended before it produced its first token."""


class CrashedWhileServing(EngineError):
    """The engine ended, or its core died, after it had been ready. vLLM exits with status 0 then."""


class Hung(EngineError):
    """The engine is alive but gave no token within the allowed time. `/health` stays 200 then."""


class WrongModelServed(EngineError):
    """The URL answers, but not with the model the study names."""
