"""Locks: one process writes to a warehouse, one measures on an accelerator, one night is under way.

The kernel frees the lock of a killed process, so a lock is never left behind; what the file says of its holder may be,
and then names a process that is gone. Only a child that such a process has left can still hold it: it is named.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from steelyard.engines.stale import start_time
from steelyard.environment import gpu_uuids
from steelyard.errors import InfrastructureError
from steelyard.home import home, locks_path

POLL_S = 0.5


class MachineLock:
    """Held until it is closed, or its process dies. Raises InfrastructureError if it is taken: by whom, and since when.

    `what` says what is locked. With `wait_s` it waits so long, and tells once for whom.
    """

    def __init__(
        self, path: Path, what: str = "the warehouse", *, wait_s: float = 0.0,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._path, self._what, self._wait_s, self._tell = path, what, wait_s, tell
        self._stream: IO[str] | None = None
        self.stale: str | None = None
        """Whose lock this one took over, if that process was killed while it held it."""

    def __enter__(self) -> MachineLock:
        deadline, told = time.monotonic() + self._wait_s, False
        stream = _opened(self._path)
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                held = self._held(_said(stream))
                if time.monotonic() >= deadline:
                    stream.close()
                    raise held from None
                if not told:
                    self._tell(f"waiting: {held.args[0]}")
                    told = True
                time.sleep(POLL_S)
        before = _said(stream)
        if before:
            self.stale = f"pid {before.get('pid')}, which began {before.get('since')} and was killed, held {self._what}"
        _say(stream, {"pid": os.getpid(), "started": start_time(os.getpid()), "home": str(home()),
                      "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"})  # fmt: skip
        self._stream = stream
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            # What is left in the file tells a killed holder from one that gave the lock back.
            with suppress(OSError):
                self._stream.truncate(0)
            self._stream.close()
            self._stream = None

    def _held(self, by: dict[str, Any]) -> InfrastructureError:
        pid = by.get("pid")
        alive = isinstance(pid, int) and start_time(pid) is not None and start_time(pid) == by.get("started")
        if alive or not by:
            whose = f"pid {pid} since {by.get('since')}, state folder {by.get('home')}" if by else "another process"
            return InfrastructureError(
                f"Another Steelyard run holds {self._what} ({self._path}): {whose}.",
                remedy="Wait until it ends; the published warehouse can be read meanwhile.",
            )
        left = ", ".join(map(str, holders(self._path))) or "unknown"
        return InfrastructureError(
            f"{self._what} ({self._path}) was locked by pid {pid}, which is gone; processes it left behind still hold "
            f"the lock: {left}.",
            remedy=f"End them: kill {left}." if left != "unknown" else "Find out who has that file open, and end it.",
        )


def is_free(path: Path) -> bool:
    """Whether nobody holds a lock. It leaves the file, and what it says of a killed holder, as they are."""
    try:
        with path.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def holders(path: Path) -> list[int]:
    """Processes that have a file open, as far as this user may see."""
    found = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            if any(each.samefile(path) for each in folder.iterdir() if each.exists()):
                found.append(int(folder.parent.name))
    return sorted(found)


@contextmanager
def accelerator_locks(device: str, visible: str | None = None) -> Iterator[None]:
    """Hold every accelerator that a study measures on, of all state folders and users of this machine.

    On a CPU that is the machine itself. `visible` is CUDA_VISIBLE_DEVICES where it limits which GPUs are used: nights
    on different GPUs of one machine do not wait for each other. Always taken in one order, so that two cannot block
    each other for ever.
    """
    with ExitStack() as held:
        for name in sorted(accelerators(device, visible)):
            held.enter_context(MachineLock(locks_path() / f"{name}.lock", f"accelerator {name}"))
        yield


def accelerators(device: str, visible: str | None = None) -> list[str]:
    """Names of the accelerators a study measures on: `cpu`, or the UUIDs of its GPUs (all, where they are unknown)."""
    if device != "cuda":
        return ["cpu"]
    known = gpu_uuids()
    if visible is None or not known:
        return known or ["cuda"]
    asked = [each.strip() for each in visible.split(",") if each.strip()]
    chosen = [known[int(each)] for each in asked if each.isdecimal() and int(each) < len(known)]
    chosen += [uuid for uuid in known for each in asked if not each.isdecimal() and uuid.startswith(each)]
    return list(dict.fromkeys(chosen)) or known


def _opened(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # For all users: a second one must be able to lock what the first one made.
        with suppress(PermissionError):
            if path.parent == locks_path():
                path.parent.chmod(0o1777)
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="utf-8")
        with suppress(PermissionError):
            path.chmod(0o666)
    except OSError as error:
        raise InfrastructureError(
            f"The lock {path} cannot be opened ({error.strerror}).",
            remedy="Check rights of that folder; STEELYARD_LOCKS names another for the accelerators.",
        ) from error
    return stream


def _said(stream: IO[str]) -> dict[str, Any]:
    try:
        stream.seek(0)
        found = json.loads(stream.read() or "{}")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _say(stream: IO[str], told: dict[str, Any]) -> None:
    # A full disk must not stop what needs no disk: without it only the holder's name is unknown.
    with suppress(OSError):
        stream.seek(0)
        stream.truncate()
        stream.write(json.dumps(told))
        stream.flush()
