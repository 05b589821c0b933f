"""Another tool as a program: run to its end, what it says in a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.client_truth_parts.clients import OFFLINE
from steelyard.errors import InfrastructureError


def run_tool(
    name: str, arguments: Sequence[str], log: Path, limit_s: float, env: Mapping[str, str] | None = None
) -> None:
    """Run this Python with `arguments`, offline, with `env` over the environment. InfrastructureError if it fails
    or takes longer than that.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        try:
            done = subprocess.run(
                [sys.executable, *arguments],
                stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, **OFFLINE, **(env or {})}, timeout=limit_s, check=False,
            )  # fmt: skip
            status: int | str = done.returncode
        except subprocess.TimeoutExpired:
            status = f"no end after {limit_s:g} s"
    if status:
        raise InfrastructureError(f"{name} failed ({status}).", remedy=f"See {log}.")
