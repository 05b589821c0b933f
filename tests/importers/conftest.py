"""Files as the tools write them, and ways to damage them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).parent / "fixtures"
LM_EVAL_RESULTS = next((FIXTURES / "lm_eval").glob("results_*.json"))


@pytest.fixture
def fixtures() -> Path:
    return FIXTURES


@pytest.fixture
def lm_eval_folder(tmp_path: Path) -> Path:
    """A copy of a real results file with its samples."""
    return Path(shutil.copytree(FIXTURES / "lm_eval", tmp_path / "lm_eval"))


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write a value as JSON, one key a line, so that lines can be counted; or a text as it is."""

    def write(value: Any, name: str = "run.json") -> Path:
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value, indent=1), "utf-8")
        return path

    return write


@pytest.fixture
def vllm() -> dict[str, Any]:
    return dict(json.loads((FIXTURES / "vllm_rate.json").read_text()))


@pytest.fixture
def guidellm() -> dict[str, Any]:
    return dict(json.loads((FIXTURES / "guidellm_v2.json").read_text()))


@pytest.fixture
def aiperf() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FIXTURES / "aiperf" / "profile_export.jsonl").read_text().splitlines()]
