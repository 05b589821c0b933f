"""Events on their way: a file each, until every channel has taken it.

An event is written before anything is sent, under its own name, so that a crash loses none and repeats none; a channel
that does not answer gets it later. A receiver may see one twice if the answer to a delivery was lost: the event's name
tells.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from steelyard.errors import SteelyardError
from steelyard.files import write_whole
from steelyard.nightly.news import Event, Standing

Channel = Callable[[Event], None]
KEPT_DAYS = 30
"""What no channel took for so long is told no more; what was delivered is remembered as long."""


class Outbox:
    """The events of a state folder, those waiting in `waiting/` and those told in `told/`."""

    def __init__(self, folder: Path) -> None:
        self._waiting, self._told = folder / "waiting", folder / "told"
        self._standing = folder / "standing.json"
        # What this process gave away, even where no disk takes a note of it.
        self._given: set[tuple[str, str]] = set()

    def put(self, events: Sequence[Event]) -> list[Event]:
        """Those of the events that nobody was told yet, written down to be sent."""
        fresh = [each for each in events if not self._knows(each)]
        for each in fresh:
            _write(self._waiting / f"{each.event}.json", {**dataclasses.asdict(each), "put_at": _now(), "by": []})
        return fresh

    def deliver(self, channels: Mapping[str, Channel]) -> list[str]:
        """Send what waits, oldest first; why a channel did not take it, each channel asked no further once it fails.

        Without channels an event counts as told: the log has it.
        """
        failed: dict[str, str] = {}
        for path in sorted(self._waiting.glob("*.json"), key=lambda each: (each.stat().st_mtime, each.name)):
            record = _read(path)
            if record is None:
                continue
            event = Event(**{field.name: record[field.name] for field in dataclasses.fields(Event)})
            for name, send in channels.items():
                if name in record["by"] or name in failed:
                    continue
                why = self.give(name, send, event)
                if why is not None:
                    failed[name] = why
                    continue
                record["by"].append(name)
                _write(path, record)
            if set(channels) <= set(record["by"]) or _old(record):
                self._told.mkdir(parents=True, exist_ok=True)
                path.replace(self._told / path.name)
        self._forget()
        return list(failed.values())

    def give(self, name: str, send: Channel, event: Event) -> str | None:
        """Send an event through a channel, once in this process; why it was not taken.

        Whatever a channel raises is its failure: no library's surprise may end the night, or every one after it.
        """
        if (event.event, name) in self._given:
            return None
        try:
            send(event)
        except SteelyardError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001
            # The text is not ours and may hold a secret.
            return f"The {name} did not take the event {event.event}: {type(error).__name__}. It is kept."
        self._given.add((event.event, name))
        return None

    def waiting(self) -> int:
        """How many events some channel has not taken."""
        return len(list(self._waiting.glob("*.json")))

    def standing(self) -> tuple[list[Standing], int]:
        """Promotions that people were told are in force, and how often they were told a change."""
        record = _read(self._standing) or {"promotions": [], "turn": 0}
        return [Standing(**each) for each in record["promotions"]], record["turn"]

    def stand(self, promotions: Sequence[Standing], turn: int) -> None:
        """Remember what people know. After `put`: a crash between the two tells the same events, by the same names."""
        _write(self._standing, {"promotions": [dataclasses.asdict(each) for each in promotions], "turn": turn})

    def _knows(self, event: Event) -> bool:
        return any((folder / f"{event.event}.json").exists() for folder in (self._waiting, self._told))

    def _forget(self) -> None:
        for path in self._told.glob("*.json"):
            record = _read(path)
            if record is None or _old(record):
                path.unlink(missing_ok=True)


def _write(path: Path, record: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n", durable=True)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _old(record: Mapping[str, Any]) -> bool:
    return datetime.fromisoformat(record["put_at"]) < datetime.now(UTC) - timedelta(days=KEPT_DAYS)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
