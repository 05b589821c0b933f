"""`steelyard ui`: Dagster's web server on loopback over this checkout's workspace, the reviewer's desk beside it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from pipelines import desk
from pipelines.headless import prepare_dagster_home
from steelyard.errors import InputError
from steelyard.home import home, quiet

ROOT = Path(__file__).parent.parent
LOOPBACK = "127.0.0.1"


def main(port: int = 3000, *, read_only: bool = True, desk_port: int = 0) -> None:
    """Replace this process by a read-only web server, or by `dagster dev` with its daemon. Does not return.

    With a `desk_port` the reviewer's desk, to which Dagster's pages link, is served beside it for as long.

    Dagster's web server has no authentication, so it binds to loopback only. A writable one lets anybody who reaches
    it report a passing check; promotions therefore never trust check events, and read-only is the default.
    """
    quiet()
    refuse_taken(port, "--port")
    if desk_port:
        refuse_taken(desk_port, "--desk-port")
    settle()
    if desk_port:
        desk.beside(desk_port)
    where = ["-w", "workspace.yaml", "-h", LOOPBACK, "-p", str(port)]
    module = ["dagster_webserver", "--read-only"] if read_only else ["dagster", "dev"]
    os.execv(sys.executable, [sys.executable, "-m", *module, *where])


def refuse_taken(port: int, flag: str) -> None:
    """InputError where nothing could listen on the port, because Dagster says so only in a traceback."""
    if not 0 < port < 65536:
        raise InputError(f"{port} is no port.", remedy="Give one from 1 to 65535.", field=flag)
    with socket.socket() as probe:
        # As the web server does: a connection of a server just stopped does not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise InputError(
                f"Nothing can listen on {LOOPBACK}:{port}: {error.strerror}.",
                remedy=f"Stop what listens there, or give another port: steelyard ui {flag} PORT.",
                field=flag,
            ) from error


def settle() -> None:
    """Change to the checkout, where the code location is, and keep the folders meant from where the user stood."""
    os.environ["STEELYARD_HOME"] = str(home())
    if studies := os.environ.get("STEELYARD_STUDIES"):
        os.environ["STEELYARD_STUDIES"] = str(Path(studies).expanduser().resolve())
    prepare_dagster_home()
    os.chdir(ROOT)
