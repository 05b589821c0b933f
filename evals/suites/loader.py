"""Data of the suites for lm-eval's `custom_dataset`, found relative to this file whatever the working folder.

lm-eval imports this file by path, so it must stay free of relative imports.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent / "data"


def content(suite: str) -> bytes:
    """The data of a suite as it was written, unpacked; raises FileNotFoundError for an unknown one."""
    packed = DATA / f"{suite}.jsonl.gz"
    return gzip.decompress(packed.read_bytes()) if packed.exists() else (DATA / f"{suite}.jsonl").read_bytes()


def rows(suite: str) -> list[dict[str, Any]]:
    """All documents of a suite; raises FileNotFoundError for an unknown one."""
    return [json.loads(line) for line in content(suite).decode("utf-8").splitlines()]


def load(suite: str, **_: object) -> dict[str, Any]:
    """The `test` split as lm-eval wants it; lm-eval also passes the task's metadata, which is not needed here."""
    from datasets import Dataset

    return {"test": Dataset.from_list(rows(suite))}
