"""Where the wall time of a process goes: the step it is in, and what engines do meanwhile.

Every second belongs to one step and to one state of the engines, the innermost that was said to have begun, so the
parts add up to the whole. Where that would be idle while an engine comes up in another process, it is starting. What is
left is our own overhead: the number to keep small.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

Engines = Literal["answering", "starting", "idle"]
"""answering: requests are under way; starting: engines start or end; idle: nobody computes but us."""
Step = Literal["arms", "profile", "screen", "suites", "trials", "capacity", "search", "rest"]
"""A step of a run; rest is what lies between: imports, judging, publishing, the page."""

T = TypeVar("T")


class WallTime:
    """A running account. It belongs to one thread: what others say of steps and states is not heard, their time is the
    owner's too.
    """

    def __init__(self) -> None:
        self._since = time.monotonic()
        self.began_at = datetime.now(UTC)
        self._steps: list[Step] = ["rest"]
        self._engines: list[Engines] = ["idle"]
        self._spent: dict[tuple[str | None, Step, Engines], float] = {}
        self._beside: list[_Beside] = []
        self._run: str | None = None
        self._owner = threading.get_ident()
        self._begun = False

    def begin(self, run_id: str) -> None:
        """A run begins. The first of a process is charged with all the process did before, imports too."""
        self._turn()
        if not self._begun:
            age_s = _age_s()
            self.began_at = datetime.now(UTC) - timedelta(seconds=age_s)
            self._run, self._spent, self._since = run_id, {}, self._since - age_s
            self._turn()
        self._run, self._owner, self._begun = run_id, threading.get_ident(), True

    @contextmanager
    def step(self, name: Step, run_id: str) -> Iterator[None]:
        """What happens meanwhile belongs to this step of this run; what follows belongs to the same run."""
        self._turn()
        self._run = run_id
        with self._while(self._steps, name):
            yield

    @contextmanager
    def engines(self, state: Engines) -> Iterator[None]:
        """What happens meanwhile is this of the engines."""
        with self._while(self._engines, state):
            yield

    def starting_beside(self) -> Callable[[], None]:
        """An engine starts beside what this process does, in another one; the function returned says that it is up.

        Until then nobody waits for us alone, and what would be idle is starting. For any thread.
        """
        started = _Beside(time.monotonic())
        self._beside.append(started)
        return started.end

    def spent(self, run_id: str) -> dict[tuple[Step, Engines], float]:
        """Seconds of a run in this process so far, by step and state; only what took any, and nothing of a run that
        neither began here nor had a step here.
        """
        self._turn()
        return {(step, engines): spent for (run, step, engines), spent in self._spent.items() if run == run_id}

    @contextmanager
    def _while(self, stack: list[Any], value: str) -> Iterator[None]:
        if threading.get_ident() != self._owner:
            yield
            return
        self._turn()
        stack.append(value)
        try:
            yield
        finally:
            self._turn()
            stack.pop()

    def _turn(self) -> None:
        now = time.monotonic()
        step, engines = self._steps[-1], self._engines[-1]
        beside_s = self._beside_s(self._since, now) if engines == "idle" else 0.0
        self._book(step, "starting", beside_s)
        self._book(step, engines, now - self._since - beside_s)
        self._since = now

    def _book(self, step: Step, engines: Engines, seconds: float) -> None:
        if seconds > 0:
            part = self._run, step, engines
            self._spent[part] = self._spent.get(part, 0.0) + seconds

    def _beside_s(self, since: float, now: float) -> float:
        """Seconds between two moments in which something started beside."""
        covered, until = 0.0, since
        for each in self._beside:
            end = min(now, each.ended or now)
            covered += max(0.0, end - max(until, each.began))
            until = max(until, end)
        return covered


@dataclass(slots=True)
class _Beside:
    """What starts in another process. In the order of their beginnings, as they are noted."""

    began: float
    ended: float | None = None

    def end(self) -> None:
        """Up, or given up."""
        self.ended = self.ended or time.monotonic()


def _age_s() -> float:
    """Seconds since this process began."""
    import psutil

    return max(0.0, time.time() - psutil.Process().create_time())


WALL_TIME = WallTime()
"""The account of this process: one run, one process (docs/decisions/0002)."""


@contextmanager
def starting_and_ending(engine: AbstractContextManager[T]) -> Iterator[T]:
    """An engine's context, whose beginning and end are time of engines."""
    ends = ExitStack()
    with WALL_TIME.engines("starting"):
        found = ends.enter_context(engine)
    try:
        yield found
    finally:
        with WALL_TIME.engines("starting"):
            ends.close()
