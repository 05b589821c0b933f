"""What a search asked and what came of it, in order: a resumed search goes through it again and then goes on.

The search is a pure function of these answers and of its clock, so both are stored. The clock moves only with events:
whatever is decided between two of them is decided by the same hour, in the first sitting as in every later one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]
"""`what` was asked, `of` what, what `came` of it (as JSON), and the seconds that had been `spent_s` then."""


class Journal:
    """`events` of earlier sittings, which took `spent_s` in all; `on_event` is told after every new one."""

    def __init__(
        self, events: Sequence[Event], spent_s: float, on_event: Callable[[Journal], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.events = [dict(event) for event in events]
        self.tick_s = 0.0
        self._on_event, self._clock, self._before_s = on_event, clock, spent_s
        self._place = 0
        self._began = None if self.events else clock()

    @property
    def spent_s(self) -> float:
        """Wall time of all sittings; going through what is stored takes none."""
        return self._before_s + (0.0 if self._began is None else self._clock() - self._began)

    def once(self, what: str, of: Any, live: Callable[[], Any]) -> Any:
        """What came of it before, if the next event is of the same; else it happens now, and is stored.

        If the next event is of something else, the engine resolved or answered otherwise than before, and what followed
        then is not what follows now: the rest is dropped.
        """
        if self._place < len(self.events):
            event = self.events[self._place]
            if (event["what"], event["of"]) == (what, of):
                self._place += 1
                self.tick_s = event["spent_s"]
                return event["came"]
            del self.events[self._place :]
        if self._began is None:
            self._began = self._clock()
        came = live()
        self.tick_s = self.spent_s
        self.events.append({"what": what, "of": of, "came": came, "spent_s": self.tick_s})
        self._place = len(self.events)
        self._on_event(self)
        return came


def blocks_of(events: Sequence[Event]) -> list[int]:
    """Numbers of the whole blocks of a search: those its figures are of."""
    return [event["came"]["number"] for event in events if event["what"] == "block"]
