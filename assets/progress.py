"""How a run tells what it does: one small interface, silent by default."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A display of stages. The headless run shows bars, the web UI reads the run's log instead."""

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """A stage begins (or goes on) with so many units, of which some are done already."""

    def advance(self, note: str = "") -> None:
        """One unit of the present stage is done."""

    def say(self, text: str) -> None:
        """A line worth keeping."""


class Silent:
    """No display."""

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """Shows nothing."""

    def advance(self, note: str = "") -> None:
        """Shows nothing."""

    def say(self, text: str) -> None:
        """Shows nothing."""
