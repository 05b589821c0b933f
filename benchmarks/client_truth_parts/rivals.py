"""Other tools, each in an environment of its own below the state folder, at the version this bench was written for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from steelyard.home import home

ROOT = Path(__file__).resolve().parents[2]
GUIDELLM, AIPERF = "guidellm==0.8.1", "aiperf==0.13.0"
# GuideLLM asks for torch; the CPU build is enough, and pinned for this project already.
BEFORE = {GUIDELLM: ("--no-deps", "-r", str(ROOT / "requirements" / "torch.txt"))}
INSTALL_LIMIT_S = 1800


class Unavailable(RuntimeError):
    """A rival that cannot be installed or run, and why."""


def environment(requirement: str) -> Path:
    """The `bin` folder of the rival's environment, made if it is not there. Raises Unavailable."""
    folder = home() / "rivals" / requirement.replace("==", "-")
    program = folder / "bin" / requirement.partition("==")[0]
    ready = folder / "ready"
    if ready.is_file() and program.is_file():
        return folder / "bin"
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], requirement)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    if before := BEFORE.get(requirement):
        _run([*pip, *before], requirement)
    _run([*pip, requirement], requirement)
    ready.touch()
    return folder / "bin"


def _run(command: list[str], requirement: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{requirement} could not be installed: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise Unavailable(f"{requirement} could not be installed: {lines[-1] if lines else 'pip failed'}")
