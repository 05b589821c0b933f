"""What several test folders need."""

from pathlib import Path

import psutil


def processes_below(home: Path) -> list[str]:
    """Command lines of living processes whose STEELYARD_HOME is `home`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("STEELYARD_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
