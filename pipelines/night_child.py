"""One study of a night in a process of its own: what kills it takes nothing else, and its memory goes with it.

`python -m pipelines.night_child STUDY` is `steelyard run STUDY`, whose error is a line of JSON too: among the progress
on standard error nobody could tell it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steelyard.__main__ import leave
from steelyard.engines.ahead import import_ahead
from steelyard.engines.launcher import die_with_parent
from steelyard.errors import SteelyardError
from steelyard.study_file import load_study

GRACE_S = 120.0
"""From the deadline until a run that does not end is killed: engines are stopped and a trial is put away meanwhile."""
WAIT_S = 300.0
"""How long it waits for a person's own run that came between."""
POLL_S = 0.2
TOLD_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnd:
    """How it ended: its exit status (negative: the signal), its JSON line, and its error: told, or its last words."""

    status: int
    result: dict[str, Any] | None
    error: str
    stopped: bool


def run_child(study: Path, log: Path, deadline: datetime) -> ChildEnd:
    """Run a study, interrupted at the deadline. Its output goes to `log` (.out and .err beside each other).

    It dies with this process, whatever kills that, so that no run goes on which nobody waits for.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    out, err = log.with_suffix(".out"), log.with_suffix(".err")
    with out.open("wb") as stdout, err.open("ab") as stderr:
        began = stderr.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.night_child", str(study)],
            stdout=stdout,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            # Ctrl-C is ours to pass on: twice, it would interrupt the cleaning up.
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
    stopped = False
    try:
        while process.poll() is None and not stopped:
            if datetime.now(UTC) >= deadline:
                stopped = True
            time.sleep(POLL_S)
    finally:
        _end(process)
    said = _last_json(out) or {}
    error = said.pop("error", None) or _tail(err, began)
    return ChildEnd(status=process.returncode, result=said or None, error=error, stopped=stopped)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_json(path: Path) -> dict[str, Any] | None:
    """What the lines of JSON at the end say together: those of a void run are its result and its error."""
    found: dict[str, Any] = {}
    for line in path.read_text("utf-8", errors="replace").splitlines():
        if line.startswith("{"):
            with suppress(ValueError):
                found |= json.loads(line)
    return found or None


def _tail(path: Path, began: int) -> str:
    with path.open("rb") as stream:
        stream.seek(began)
        lines = stream.read().decode("utf-8", errors="replace").strip().splitlines()
    return "\n".join(lines[-TOLD_LINES:])


def main(argv: Sequence[str]) -> int:
    """Run one study; the exit status, as that of `steelyard run`."""
    path = Path(argv[0])
    try:
        import_ahead(load_study(path).study)
        from pipelines.headless import run_study

        return run_study(path, wait_s=WAIT_S)
    except SteelyardError as error:
        sys.stderr.write(f"{error}\n")
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
