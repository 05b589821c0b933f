"""Warehouses that earlier Steelyards wrote: each opens, with everything in it, and can be gone on with.

`released/` holds one file a released schema, made by that version's own code from the factory of its tests. A release
adds one; none is ever made again.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from steelyard.errors import InfrastructureError
from steelyard.records import ROWS, ArmRow
from steelyard.records_quality import SampleRow
from steelyard.records_trials import EngineMetricRow, RequestRow, TrialRow
from warehouse.publish import publish
from warehouse.schema import Script, migrate, migrations
from warehouse.store import Store

NEXT = 17
"""The migration after the oldest stored schema: the one that moves rows, and the worst to be interrupted."""
RELEASED = sorted((Path(__file__).parent / "released").glob("*.duckdb.gz"))


@pytest.fixture(params=RELEASED, ids=lambda path: path.name.removesuffix(".duckdb.gz"))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with gzip.open(request.param) as packed, (tmp_path / "warehouse.duckdb").open("wb") as file:
        shutil.copyfileobj(packed, file)
    return tmp_path / "warehouse.duckdb"


def counts(path: Path) -> dict[str, int]:
    with duckdb.connect(path, read_only=True) as connection:
        names = connection.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall()
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for (name,) in names}


def test_there_is_one() -> None:
    assert RELEASED


def test_every_row_of_an_old_file_is_there_after_opening(old: Path, rows: Any) -> None:
    before = counts(old)
    with Store.open(old) as store:
        for row_class in ROWS:
            if row_class.TABLE in before:
                assert len(store.read(row_class)) == before[row_class.TABLE], row_class.TABLE
        for row_class in (RequestRow, EngineMetricRow, SampleRow, TrialRow):
            assert store.read(row_class) == sorted(
                rows.of(row_class), key=lambda row: [getattr(row, name) for name in row.KEY]
            )
        assert {row.model for row in store.read(ArmRow)} == {None}
    with Store.open(old) as store:
        assert migrate(store._connection) == []


def test_an_old_file_is_published_and_gone_on_with(old: Path, rows: Any, rows_of: Callable[..., Any]) -> None:
    with Store.open(old) as store:
        folder = publish(store, old.parent / "published")
        store.write(rows_of("run-2").all())
        trial = rows.trials[0]
        store.write([trial], [row for row in rows.requests if row.trial_id == trial.trial_id][:2])
        publish(store, folder)
    with Store.open_published(folder / "steelyard.duckdb") as reader:
        assert len(reader.read(RequestRow, trial_id=trial.trial_id)) == 2
        assert {row.run_id for row in reader.read(SampleRow)} == {"run-1", "run-2"}


def test_a_migration_that_fails_half_way_leaves_the_old_file_usable(old: Path) -> None:
    before = counts(old)
    *done, last = migrations()[:NEXT]
    half = Script(last.name, last.sql.replace("DROP TABLE samples;", "SELECT nonsense;"))
    assert half.sql != last.sql
    with (
        duckdb.connect(old) as connection,
        pytest.raises(InfrastructureError, match=f"{last.name} could not be applied"),
    ):
        migrate(connection, [*done, half])
    assert counts(old) == before
    with Store.open(old) as store:
        assert len(store.read(SampleRow)) == before["samples"]


def test_a_process_killed_in_a_migration_leaves_the_old_file_usable(old: Path) -> None:
    import signal
    import subprocess
    import sys

    before = counts(old)
    code = (
        "import os, signal, sys, duckdb\n"
        "from warehouse.schema import migrations\n"
        "connection = duckdb.connect(sys.argv[1])\n"
        f"connection.execute('BEGIN;' + migrations()[{NEXT - 1}].sql)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, old], check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    assert counts(old) == before
    with Store.open(old) as store:
        assert len(store.read(RequestRow)) == before["requests"]
