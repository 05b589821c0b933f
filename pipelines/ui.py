"""`steelyard ui`: Dagster's web server and daemon on loopback, over this checkout's workspace."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pipelines.headless import prepare_dagster_home
from steelyard.home import quiet

ROOT = Path(__file__).parent.parent


def main(port: int = 3000, *, read_only: bool = False) -> None:
    """Replace this process by `dagster dev`, or by a read-only web server for reviewers. Does not return.

    Dagster's web server has no authentication, so it binds to loopback only. A writable one lets anybody who reaches
    it report a passing check; promotions therefore never trust check events, and reviewers get `--read-only`.
    """
    quiet()
    prepare_dagster_home()
    os.chdir(ROOT)
    where = ["-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    module = ["dagster_webserver", "--read-only"] if read_only else ["dagster", "dev"]
    os.execv(sys.executable, [sys.executable, "-m", *module, *where])
