"""`steelyard nightly` as a process: started, left to end, or killed at a moment of chance together with its study."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from steelyard.errors import InfrastructureError, StudyVoid

log = logging.getLogger(__name__)

ENDS_S = 600.0


@dataclass(frozen=True, slots=True)
class Place:
    """A state folder, its studies and its locks."""

    folder: Path

    @property
    def home(self) -> Path:
        """STEELYARD_HOME."""
        return self.folder / "var"

    @property
    def studies(self) -> Path:
        """STEELYARD_STUDIES."""
        return self.folder / "studies"

    @property
    def snapshot(self) -> Path:
        """What analysts read."""
        return self.home / "published" / "steelyard.duckdb"

    def start(self) -> subprocess.Popen[str]:
        """One night, or the rest of one that was killed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "nightly.err").open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "steelyard", "nightly"],
                env=self._env(),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def night(self) -> dict[str, Any]:
        """A whole night, undisturbed; its last line. Raises InfrastructureError if it fails."""
        return self.ended(self.start())

    def ended(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """What a night that is left alone says at its end."""
        out, _ = process.communicate(timeout=ENDS_S)
        if process.returncode != 0:
            raise InfrastructureError(
                f"A night ended with status {process.returncode}.", remedy=f"See {self.folder / 'nightly.err'}."
            )
        told: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return told

    def verify(self) -> list[str]:
        """What `steelyard verify` finds that is not as the ledger says. Raises InfrastructureError if it fails."""
        asked = [sys.executable, "-m", "steelyard", "verify"]
        done = subprocess.run(asked, env=self._env(), capture_output=True, text=True, timeout=ENDS_S, check=False)
        if done.returncode not in (0, StudyVoid.exit_code):
            raise InfrastructureError(f"steelyard verify ended with status {done.returncode}.", remedy=done.stderr)
        told = [line for line in done.stdout.splitlines() if not line.startswith("note: ")]
        log.info("%s: %s", self.folder.name, told[-1])
        return told[:-1]

    def _env(self) -> dict[str, str]:
        return {
            **os.environ, "STEELYARD_HOME": str(self.home), "STEELYARD_STUDIES": str(self.studies),
            "STEELYARD_LOCKS": str(self.folder / "locks"),
        }  # fmt: skip


def kill(process: subprocess.Popen[str], rng: random.Random, mean_s: float) -> str | None:
    """Kill -9 after a time of chance: the night, the run of its study, or both at once. None if it ended before."""
    deadline = time.monotonic() + rng.expovariate(1 / mean_s)
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return None
        time.sleep(0.02)
    children = psutil.Process(process.pid).children()
    whom = rng.choice(("night", "study", "both") if children else ("night",))
    victims = [each.pid for each in children] * (whom != "night") + [process.pid] * (whom != "study")
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
    return whom
