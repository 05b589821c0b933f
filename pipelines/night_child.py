"""One study of a night in a process of its own: what kills it takes nothing else, and its memory goes with it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

GRACE_S = 120.0
"""From the deadline until a run that does not end is killed: engines are stopped and a trial is put away meanwhile."""
WAIT_S = 300.0
"""How long it waits for a person's own run that came between."""
POLL_S = 0.2
TOLD_LINES = 12
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnd:
    """How it ended: its exit status (negative: the signal), its JSON line, the end of its standard error."""

    status: int
    result: dict[str, Any] | None
    error: str
    stopped: bool


def run_child(study: Path, log: Path, deadline: datetime) -> ChildEnd:
    """`steelyard run STUDY`, interrupted at the deadline. Its output goes to `log` (.out and .err beside each other).

    It dies with this process, whatever kills that, so that no run goes on which nobody waits for.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    out, err = log.with_suffix(".out"), log.with_suffix(".err")
    with out.open("wb") as stdout, err.open("ab") as stderr:
        began = stderr.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "steelyard", "run", str(study), "--wait", f"{WAIT_S:.0f}"],
            stdout=stdout,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            # Ctrl-C is ours to pass on: twice, it would interrupt the cleaning up.
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509
        )
    stopped = False
    try:
        while process.poll() is None and not stopped:
            if datetime.now(UTC) >= deadline:
                stopped = True
            time.sleep(POLL_S)
    finally:
        _end(process)
    return ChildEnd(
        status=process.returncode, result=_last_json(out), error=_tail(err, began), stopped=stopped
    )  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the line above.
    if os.getppid() == 1:
        os._exit(1)


def _last_json(path: Path) -> dict[str, Any] | None:
    lines = path.read_text("utf-8", errors="replace").splitlines()
    for line in reversed(lines):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                return None
            return found if isinstance(found, dict) else None
    return None


def _tail(path: Path, began: int) -> str:
    with path.open("rb") as stream:
        stream.seek(began)
        lines = stream.read().decode("utf-8", errors="replace").strip().splitlines()
    return "\n".join(lines[-TOLD_LINES:])
