"""Where engines put their sockets and rendezvous files: a folder of our own, removed with the launcher that made it.

vLLM leaves both behind in the temporary folder at every start; a nightly would fill it over the years.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path

from steelyard.home import home

# A Unix socket's path has 107 bytes, of which vLLM's names take 37.
LONGEST = 60

_numbers = itertools.count()


def make_scratch() -> Path:
    """A new folder under `home()/tmp`, or under the system's temporary folder if that path is too long for sockets."""
    folder = home() / "tmp" / f"{os.getpid()}-{next(_numbers)}"
    if len(os.fsencode(folder)) > LONGEST:
        return Path(tempfile.mkdtemp(prefix=f"steelyard-{os.getpid()}-"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def remove_scratch(folder: Path) -> None:
    """Remove it with all it holds; what is gone already is fine."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_stale_scratch() -> None:
    """Remove the folders of processes that are dead."""
    for folder in (home() / "tmp").glob("*-*"):
        pid = folder.name.split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            remove_scratch(folder)
