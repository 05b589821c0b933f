"""What several test folders need."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
SMALL_POLICY = """\
policy: p
gates:
  - {name: gain, category: speed, metric: output_tokens_per_s, at_least: 1.1}
  - {name: accuracy, category: accuracy, metric: score, margin: 0.02}
  - {name: safety, category: safety, metric: score, margin: 0.02}
"""
SMALL_PRICES = "prices: [{name: box, usd_per_hour: 1.0, source: an invoice, dated: 2026-01-01}]"


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


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False
