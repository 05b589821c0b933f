"""What benches share: logging, errors as sentences, the last line; and a study run as a user runs it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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


def run_study(path: Path, state: Path) -> dict[str, Any]:
    """Run a study in a process and a state folder of its own; what its last line says. A void study is a result.

    Raises InfrastructureError if it ends otherwise.
    """
    return run_steelyard(["run", str(path), "--fresh", "--quiet"], state, fine=(0, 3))


def run_steelyard(arguments: Sequence[str], state: Path, fine: Sequence[int] = (0,)) -> dict[str, Any]:
    """Run a command in a process and a state folder of its own; what its last line says, a JSON object.

    Raises InfrastructureError if it ends with another status than those that are `fine`.
    """
    state.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "steelyard", *arguments], env={**os.environ, "STEELYARD_HOME": str(state)},
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode not in fine or not lines:
        command = " ".join(arguments[:2])
        raise InfrastructureError(
            f"steelyard {command} ended with status {done.returncode}.", remedy="Its messages are above."
        )
    told: dict[str, Any] = json.loads(lines[-1])
    return told
