"""Warehouses that tests may spoil: empty, filled, of three nights; and a bucket."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from warehouse_rows import Rows, make_rows, study_row

from steelyard.records import StudyRow
from warehouse.publish import publish
from warehouse.store import Store


@pytest.fixture(scope="session")
def rows() -> Rows:
    return make_rows()


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., Rows]:
    return make_rows


@pytest.fixture(scope="session")
def study_of() -> Callable[..., StudyRow]:
    return study_row


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty and a filled warehouse, made once and copied for each test."""
    folder = tmp_path_factory.mktemp("templates")
    Store.open(folder / "empty.duckdb").close()
    with Store.open(folder / "filled.duckdb") as opened:
        opened.write(make_rows().all())
    return folder


@pytest.fixture
def store(templates: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copy(templates / "empty.duckdb", tmp_path / "warehouse.duckdb")
    with Store.open(tmp_path / "warehouse.duckdb") as opened:
        yield opened


@pytest.fixture
def filled(templates: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copy(templates / "filled.duckdb", tmp_path / "warehouse.duckdb")
    with Store.open(tmp_path / "warehouse.duckdb") as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def three_nights(filled: Store, rows: Any, rows_of: Callable[..., Any]) -> Path:
    for night in (1, 2):
        filled.write(rows_of(f"run-{night + 1}", rows.study.started_at + timedelta(days=night)).all())
    return publish(filled) / "steelyard.duckdb"


@pytest.fixture
def bucket() -> Iterator[str]:
    """An object store that lives in memory."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield "memory://bucket/steelyard"
    store.store.clear()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Store]:
    """Another warehouse."""
    with Store.open(tmp_path / "empty" / "warehouse.duckdb") as opened:
        yield opened
