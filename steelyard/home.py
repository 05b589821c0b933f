"""Where state lives, and the environment every child process gets.

Everything Steelyard writes is below `STEELYARD_HOME` (default `./var`), so that removing one folder removes
every trace of it, and two checkouts on one machine never share state.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

STUDIES = Path(__file__).parent.parent / "studies"

SNAPSHOT = "steelyard.duckdb"
"""Name of the published DuckDB file in its folder."""

QUIET = {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def home() -> Path:
    """The state folder, absolute. It is created by whoever first writes to it."""
    return Path(os.environ.get("STEELYARD_HOME") or "var").expanduser().resolve()


def warehouse_path() -> Path:
    """The live DuckDB file. Only `warehouse.store` opens it."""
    return home() / "warehouse.duckdb"


def published_path() -> Path:
    """The folder analysts read: `steelyard.duckdb` and `parquet/`, swapped in atomically."""
    return home() / "published"


def snapshot_path() -> Path:
    """The published DuckDB file: the one readers open."""
    return published_path() / SNAPSHOT


def reports_path() -> Path:
    """One self-contained HTML page a run."""
    return home() / "reports"


def studies_path() -> Path:
    """What users write: `STEELYARD_STUDIES`, or the checkout's own `studies/`."""
    return Path(os.environ.get("STEELYARD_STUDIES") or STUDIES).expanduser().resolve()


def nightly_path() -> Path:
    """What holds for all nights of this place; it may be missing."""
    return studies_path() / "nightly.yaml"


def nights_path() -> Path:
    """One log a night, what was told to whom, and the lock of the night under way."""
    return home() / "nightly"


def metrics_path() -> Path:
    """Metrics of the nightly in Prometheus' text format, for a collector of text files."""
    return home() / "metrics" / "steelyard.prom"


def run_lock_path() -> Path:
    """The file whose lock a process holds while it writes to the warehouse."""
    return home() / "run.lock"


def locks_path() -> Path:
    """Where the locks of this machine's accelerators lie, for all its users and state folders alike."""
    return Path(os.environ.get("STEELYARD_LOCKS") or Path(tempfile.gettempdir()) / "steelyard-locks").resolve()


def reviewers_path() -> Path:
    """Who may sign at this place; it may be missing."""
    return studies_path() / "reviewers.yaml"


def packets_path() -> Path:
    """One self-contained page a run, for who signs."""
    return home() / "packets"


def desk_url() -> str:
    """Where the reviewer's desk is reached, for links to it: `STEELYARD_DESK`, or what `steelyard desk` listens on."""
    return (os.environ.get("STEELYARD_DESK") or "http://127.0.0.1:3001").rstrip("/")


def ledger_path() -> Path:
    """Outside the database: the heads of the ledger, and sign-offs that wait for the warehouse."""
    return home() / "ledger"


def logs_path() -> Path:
    """Engine and run logs, one folder a run."""
    return home() / "logs"


def weights_path() -> Path:
    """Weights derived from the reference weights, one folder a digest."""
    return home() / "weights"


def dagster_home() -> Path:
    """`DAGSTER_HOME` of the headless run and of the web server."""
    return home() / "dagster"


def quiet() -> None:
    """Turn off every telemetry in this process and its children, and stay off the model hub unless asked."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
