from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from steelyard.errors import InfrastructureError
from steelyard.records import ROWS
from warehouse.publish import publish
from warehouse.store import Store


@pytest.fixture
def published(filled: Store, tmp_path: Path) -> Path:
    return publish(filled, tmp_path / "published")


@pytest.fixture
def reader(published: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(published / "steelyard.duckdb", read_only=True) as connection:
        yield connection


def test_the_snapshot_holds_tables_views_comments_and_keys(filled: Store, reader: Any) -> None:
    for row_class in ROWS:
        live = filled.query(f"SELECT * FROM {row_class.TABLE} ORDER BY {', '.join(row_class.KEY)}")
        copy = reader.execute(f"SELECT * FROM {row_class.TABLE} ORDER BY {', '.join(row_class.KEY)}").df()
        assert copy.equals(live) or copy.astype(str).equals(live.astype(str))
        assert len(copy) > 0
    for sql in (
        "SELECT table_name, column_name, data_type, is_nullable, comment FROM duckdb_columns() WHERE NOT internal",
        "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal",
        "SELECT table_name, comment FROM duckdb_tables() WHERE NOT internal",
        "SELECT table_name, constraint_type, constraint_column_names FROM duckdb_constraints()",
    ):
        live = sorted(map(str, filled.query(sql).to_numpy().tolist()))
        assert sorted(map(str, reader.execute(sql).df().to_numpy().tolist())) == live
    for (view,) in reader.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall():
        assert reader.execute(f"SELECT count(*) FROM {view}").fetchall()[0][0] > 0


def test_the_snapshot_is_in_the_old_format_read_only_and_alone(published: Path) -> None:
    snapshot = published / "steelyard.duckdb"
    head = snapshot.read_bytes()[:20]
    assert (head[8:12], int.from_bytes(head[12:20], "little")) == (b"DUCK", 64)
    assert snapshot.stat().st_mode & 0o222 == 0
    assert sorted(path.name for path in published.iterdir()) == [".parquet-versions", "parquet", "steelyard.duckdb"]


def test_views_work_when_the_snapshot_is_attached_under_another_name(published: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{published / 'steelyard.duckdb'}' AS tonight (READ_ONLY)")
        assert connection.execute("SELECT count(*) FROM tonight.flips").fetchall()[0][0] > 0


def test_parquet_holds_every_table(filled: Store, published: Path) -> None:
    with duckdb.connect() as connection:
        for row_class in ROWS:
            where = published / "parquet" / row_class.TABLE / "*.parquet"
            found = connection.execute(f"SELECT count(*) FROM '{where}'").fetchall()[0][0]
            assert found == filled.scalar(f"SELECT count(*) FROM {row_class.TABLE}") > 0
            kinds = connection.execute(f"DESCRIBE SELECT * FROM '{where}'").fetchall()
            live = filled.query(f"DESCRIBE {row_class.TABLE}")
            assert [kind[:2] for kind in kinds] == list(zip(live.column_name, live.column_type, strict=True))


def test_publishing_changes_nothing_in_the_live_file(filled: Store, published: Path, rows: Any) -> None:
    assert filled.query("SELECT database_name FROM duckdb_databases() WHERE NOT internal").to_numpy().tolist() == [
        ["warehouse"]
    ]
    filled.write(rows.all())


def test_an_empty_warehouse_can_be_published(store: Store, tmp_path: Path) -> None:
    folder = publish(store, tmp_path / "published")
    with duckdb.connect(folder / "steelyard.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM flips").fetchall() == [(0,)]
        assert connection.execute(f"SELECT count(*) FROM '{folder}/parquet/trials/*.parquet'").fetchall() == [(0,)]


def test_home_is_the_default_place(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "it's home"))
    assert publish(store) == tmp_path / "it's home" / "published"
    assert (tmp_path / "it's home" / "published" / "parquet" / "trials" / "data.parquet").exists()


def test_leftovers_of_a_killed_publisher_go(filled: Store, published: Path) -> None:
    (published / ".new-steelyard.duckdb").write_text("half")
    (published / ".new-parquet").symlink_to("nowhere")
    (published / ".parquet-versions" / "00000002" / "trials").mkdir(parents=True)
    publish(filled, published)
    assert sorted(path.name for path in published.iterdir()) == [".parquet-versions", "parquet", "steelyard.duckdb"]
    assert (published / "parquet" / "trials" / "data.parquet").exists()


def test_only_the_last_two_parquet_versions_are_kept(filled: Store, published: Path) -> None:
    for _ in range(3):
        publish(filled, published)
    assert sorted(path.name for path in (published / ".parquet-versions").iterdir()) == ["00000003", "00000004"]
    assert (published / "parquet").resolve().name == "00000004"


def test_a_failed_publish_leaves_the_old_copies(filled: Store, published: Path, rows_of: Callable[..., Any]) -> None:
    before = (published / "steelyard.duckdb").stat().st_ino, (published / "parquet").resolve()
    filled.write(rows_of("run-2").all())
    # A folder in the place of the new file is what a full or read-only disk looks like to the first writer.
    (published / ".new-steelyard.duckdb").mkdir()
    with pytest.raises(InfrastructureError, match="could not be published"):
        publish(filled, published)
    assert ((published / "steelyard.duckdb").stat().st_ino, (published / "parquet").resolve()) == before
    (published / ".new-steelyard.duckdb").rmdir()
    publish(filled, published)
    with duckdb.connect(published / "steelyard.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM studies").fetchall() == [(2,)]


_HOLDER = """
import sys, duckdb
with duckdb.connect(sys.argv[1], read_only=True) as connection:
    print(connection.execute("SELECT count(*) FROM studies").fetchall()[0][0], flush=True)
    sys.stdin.readline()
    print(connection.execute("SELECT count(*), count(DISTINCT run_id) FROM requests").fetchall()[0], flush=True)
"""


def test_an_open_reader_keeps_its_old_snapshot(
    filled: Store, published: Path, rows: Any, rows_of: Callable[..., Any]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, published / "steelyard.duckdb"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "1"
        filled.write(rows_of("run-2").all())
        publish(filled, published)
        answer, _ = child.communicate("go\n", timeout=30)
        assert answer.strip() == str((len(rows.requests), 1))
        assert child.returncode == 0
    with duckdb.connect(published / "steelyard.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT count(DISTINCT run_id) FROM requests").fetchall() == [(2,)]


_READERS = """
import sys, pathlib, duckdb
folder, stop = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
opened, seen = 0, set()
while not stop.exists() or opened < 5:
    with duckdb.connect(folder / "steelyard.duckdb", read_only=True) as connection:
        studies = connection.execute("SELECT count(*) FROM studies").fetchall()[0][0]
        requests = connection.execute("SELECT count(DISTINCT run_id) FROM request_evidence").fetchall()[0][0]
        assert studies == requests, (studies, requests)
    with duckdb.connect() as connection:
        assert connection.execute(f"SELECT count(*) FROM '{folder}/parquet/studies/*.parquet'").fetchall()[0][0] >= 1
    opened, seen = opened + 1, seen | {studies}
print(opened, len(seen))
"""


def test_a_reader_that_opens_while_we_publish_never_fails(
    filled: Store, published: Path, tmp_path: Path, rows_of: Callable[..., Any]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _READERS, published, tmp_path / "stop"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as child:  # fmt: skip
        try:
            for number in range(5):
                filled.write(rows_of(f"run-{number + 2}").all())
                publish(filled, published)
        finally:
            (tmp_path / "stop").touch()
            said, complaints = child.communicate(timeout=60)
    assert (child.returncode, complaints) == (0, "")
    opened, snapshots = map(int, said.split())
    assert opened >= 5
    assert snapshots >= 2
