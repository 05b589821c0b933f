"""`python -m steelyard` is the command `steelyard`."""

import atexit
import os
import sys
from typing import NoReturn

from steelyard.cli import main


def run() -> None:
    """The command as a process."""
    leave(main())


def leave(status: int) -> NoReturn:
    """End the process without tearing the interpreter down.

    DuckDB 2.0's bindings print a page about leaked references when an interpreter that also holds a validation
    library shuts down; a person would read it as a failure. Exit functions still run, and output is flushed.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run()
