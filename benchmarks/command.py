"""What benches share: logging, errors as sentences, the last line; and a study run as a user runs it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from steelyard.errors import InfrastructureError, SteelyardError
from steelyard.home import quiet

log = logging.getLogger(__name__)


def finish(run: Callable[[], Mapping[str, object]]) -> int:
    """Run a bench and print its summary as one JSON object, the last line of standard output; the exit status.

    2 for unusable input, 4 for an engine or a server that fails.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    quiet()
    try:
        summary = run()
    except SteelyardError as error:
        log.error("%s", error)
        return error.exit_code
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0


def state_env(state: Path) -> dict[str, str]:
    """The environment of a process with a state folder of its own, which is made."""
    state.mkdir(parents=True, exist_ok=True)
    return {**os.environ, "STEELYARD_HOME": str(state)}


def run_study(path: Path, state: Path) -> dict[str, str]:
    """Run a study in a process and a state folder of its own; what its last line says. A void study is a result.

    Raises InfrastructureError if it ends otherwise.
    """
    done = subprocess.run(
        [sys.executable, "-m", "steelyard", "run", str(path), "--fresh", "--quiet"],
        env=state_env(state), stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode not in (0, 3) or not lines:
        raise InfrastructureError(f"{path} ended with status {done.returncode}.", remedy="Its messages are above.")
    told: dict[str, str] = json.loads(lines[-1])
    return told
