"""One run at a time on a machine: two would measure each other."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from steelyard.errors import InfrastructureError


class MachineLock:
    """Held while a run measures; the kernel frees that of a killed one. Raises InfrastructureError if it is taken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[str] | None = None

    def __enter__(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._path.open("a")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stream.close()
            raise InfrastructureError(
                f"Another Steelyard run holds {self._path}.",
                remedy="Wait until it ends; the published warehouse can be read meanwhile.",
            ) from None

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()
