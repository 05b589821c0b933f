"""Where state lives, and the environment every child process gets.

Everything Steelyard writes is below `STEELYARD_HOME` (default `./var`), so that removing one folder removes
every trace of it, and two checkouts on one machine never share state.
"""

from __future__ import annotations

import os
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


def run_lock_path() -> Path:
    """The file whose lock a run holds while it measures."""
    return home() / "run.lock"


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
