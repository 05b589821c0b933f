from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from steelyard.errors import InfrastructureError, InputError
from steelyard.records import RAW, ROWS
from steelyard.records_quality import SampleRow
from steelyard.records_trials import RequestRow
from warehouse.publish import KEPT, publish
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
    raw = tuple(row_class.TABLE for row_class in RAW)
    for sql in (
        "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal",
        f"SELECT view_name, comment FROM duckdb_views() WHERE NOT internal AND view_name NOT IN {raw}",
        f"SELECT table_name, comment FROM duckdb_tables() WHERE NOT internal AND table_name NOT IN {raw}",
        "SELECT table_name, constraint_type, constraint_column_names FROM duckdb_constraints() "
        f"WHERE table_name NOT IN {raw}",
    ):
        live = sorted(map(str, filled.query(sql).to_numpy().tolist()))
        assert sorted(map(str, reader.execute(sql).df().to_numpy().tolist())) == live
    for (view,) in reader.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall():
        assert reader.execute(f"SELECT count(*) FROM {view}").fetchall()[0][0] > 0


def test_raw_rows_are_views_with_their_meaning(filled: Store, reader: Any) -> None:
    told = dict(reader.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall())
    for row_class in RAW:
        assert told[row_class.TABLE] == row_class.MEANING


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


def test_a_copy_that_followed_the_link_is_not_published_into(filled: Store, published: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(published, copy)
    before = sorted(copy.rglob("*"))
    with pytest.raises(InfrastructureError, match=r"is no link.*was copied.*Move .* away"):
        publish(filled, copy)
    assert sorted(copy.rglob("*")) == before


def files_of(published: Path, table: str) -> list[Path]:
    return sorted((published / "parquet" / table).glob("**/*.parquet"))


def test_parquet_holds_every_table(filled: Store, published: Path) -> None:
    with duckdb.connect() as connection:
        for row_class in ROWS:
            where = published / "parquet" / row_class.TABLE / "**" / "*.parquet"
            read = f"read_parquet('{where}', hive_partitioning = false)"
            found = connection.execute(f"SELECT count(*) FROM {read}").fetchall()[0][0]
            assert found == filled.scalar(f"SELECT count(*) FROM {row_class.TABLE}") > 0
            kinds = connection.execute(f"DESCRIBE SELECT * FROM {read}").fetchall()
            live = filled.query(f"DESCRIBE {row_class.TABLE}")
            assert [kind[:2] for kind in kinds] == list(zip(live.column_name, live.column_type, strict=True))


def test_raw_rows_are_partitioned_by_study_and_night(filled: Store, published: Path) -> None:
    place = Path("study=nightly-chat", "night=2026-03-01", "run-1.parquet")
    for row_class in RAW:
        assert files_of(published, row_class.TABLE) == [published / "parquet" / row_class.TABLE / place]
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT DISTINCT study, night, typeof(night) "
            f"FROM read_parquet('{published}/parquet/requests/*/*/*.parquet', hive_partitioning = true)"
        ).fetchall()
    assert found == [("nightly-chat", date(2026, 3, 1), "DATE")]


def test_a_publish_writes_what_changed_and_links_the_rest(
    filled: Store, published: Path, rows: Any, rows_of: Callable[..., Any]
) -> None:
    def inodes() -> dict[str, int]:
        return {
            f"{table.TABLE}/{path.name}": path.stat().st_ino
            for table in RAW
            for path in files_of(published, table.TABLE)
        }

    first = inodes()
    filled.write(rows_of("run-2", rows.study.started_at + timedelta(days=1)).all())
    publish(filled, published)
    second = inodes()
    assert first.items() < second.items()
    assert {name for name in second if name not in first} == {f"{table.TABLE}/run-2.parquet" for table in RAW}
    trial = rows.trials[0]
    filled.write([trial], [row for row in rows.requests if row.trial_id == trial.trial_id][:1])
    publish(filled, published)
    third = inodes()
    assert {name for name in third if third[name] != second[name]} == {f"{table.TABLE}/run-1.parquet" for table in RAW}
    with Store.open_published(published / "steelyard.duckdb") as reader:
        assert len(reader.read(RequestRow, trial_id=trial.trial_id)) == 1


def test_rows_that_went_take_their_file_with_them(filled: Store, published: Path) -> None:
    filled.replace_run("run-1", SampleRow, [])
    publish(filled, published)
    [left] = files_of(published, "samples")
    assert left.name == "empty.parquet"
    with Store.open_published(published / "steelyard.duckdb") as reader:
        assert reader.read(SampleRow) == []


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": "another", "runs": {"run-1": "x"}}'])
def test_a_version_whose_manifest_cannot_be_trusted_is_written_in_full(
    filled: Store, published: Path, damage: str
) -> None:
    (published / "parquet" / "_manifest.json").write_text(damage)
    before = {path.stat().st_ino for path in files_of(published, "requests")}
    publish(filled, published)
    assert not before & {path.stat().st_ino for path in files_of(published, "requests")}


def test_after_a_migration_all_is_written_again(filled: Store, published: Path, rows: Any) -> None:
    before = {path.stat().st_ino for path in files_of(published, "requests")}
    with filled.exclusive() as connection:
        connection.execute("UPDATE schema_version SET checksum = 'another' WHERE name = '0017_raw_rows.sql'")
    publish(filled, published)
    assert not before & {path.stat().st_ino for path in files_of(published, "requests")}


def test_a_file_system_without_hard_links_gets_copies(
    filled: Store, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    before = {path.stat().st_ino for path in files_of(published, "requests")}
    publish(filled, published)
    assert not before & {path.stat().st_ino for path in files_of(published, "requests")}
    with Store.open_published(published / "steelyard.duckdb") as reader:
        assert reader.read(RequestRow)


def test_a_snapshot_that_was_moved_finds_the_parquet_beside_it(filled: Store, published: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else [where]*"
    elsewhere.mkdir()
    shutil.copy(published / "steelyard.duckdb", elsewhere)
    shutil.copytree((published / "parquet").resolve(), elsewhere / "parquet")
    shutil.rmtree(published)
    with Store.open_published(elsewhere / "steelyard.duckdb") as reader:
        assert len(reader.read(RequestRow)) == len(filled.read(RequestRow))
    with duckdb.connect(elsewhere / "steelyard.duckdb", read_only=True) as connection:
        with pytest.raises(duckdb.IOException, match="No files found"):
            connection.execute("SELECT count(*) FROM requests")
        (tmp_path / "plain").symlink_to(elsewhere)
        connection.execute(f"SET VARIABLE steelyard_parquet = '{tmp_path}/plain/parquet'")
        assert connection.execute("SELECT count(*) FROM request_evidence").fetchall()[0][0] > 0


def test_a_home_that_was_renamed_reads_its_own_rows_not_the_new_home_s(filled: Store, tmp_path: Path) -> None:
    old = publish(filled, tmp_path / "var")
    old.rename(tmp_path / "old")
    with Store.open(tmp_path / "new.duckdb") as new:
        publish(new, tmp_path / "var")
    for copied in (False, True):
        folder = tmp_path / "old"
        if copied:
            shutil.copytree(tmp_path / "old", tmp_path / "backup", symlinks=True)
            folder = tmp_path / "backup"
        with Store.open_published(folder / "steelyard.duckdb") as reader:
            assert len(reader.read(RequestRow)) == len(filled.read(RequestRow)) > 0


def test_a_home_whose_name_looks_like_a_pattern(filled: Store, tmp_path: Path) -> None:
    folder = publish(filled, tmp_path / "it's [a] home*")
    with duckdb.connect(folder / "steelyard.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM requests").fetchall()[0][0] > 0


def test_publishing_changes_nothing_in_the_live_file(filled: Store, published: Path, rows: Any) -> None:
    assert filled.query("SELECT database_name FROM duckdb_databases() WHERE NOT internal").to_numpy().tolist() == [
        ["warehouse"]
    ]
    filled.write(rows.all())


def test_an_empty_warehouse_can_be_published(store: Store, tmp_path: Path) -> None:
    folder = publish(store, tmp_path / "published")
    with duckdb.connect(folder / "steelyard.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM flips").fetchall() == [(0,)]
        assert connection.execute("SELECT count(*) FROM requests").fetchall() == [(0,)]
        assert connection.execute(f"SELECT count(*) FROM '{folder}/parquet/trials/*.parquet'").fetchall() == [(0,)]
        assert connection.execute(f"SELECT count(*) FROM '{folder}/parquet/samples/*/*/*.parquet'").fetchall() == [(0,)]


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


def test_the_last_versions_of_the_parquet_are_kept(
    filled: Store, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KEPT >= 7, "a notebook may be open for a week"
    monkeypatch.setattr("warehouse.publish.KEPT", 3)
    for _ in range(3):
        publish(filled, published)
    versions = sorted(path.name for path in (published / ".parquet-versions").iterdir())
    assert versions == ["00000002", "00000003", "00000004"]
    assert (published / "parquet").resolve().name == versions[-1]


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB: a live file or two snapshots fit."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting needs rights that this machine does not give")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_named_and_leaves_what_was_published(
    filled: Store, small_disk: Path, rows: Any, rows_of: Callable[..., Any]
) -> None:
    folder = publish(filled, small_disk / "published")
    (small_disk / "ballast").write_bytes(bytes(40 * 2**20 - _used(small_disk) - 2**18))
    filled.write(rows_of("run-2").all())
    with pytest.raises(InfrastructureError, match=r"could not be published.*space left on the disk"):
        publish(filled, folder)
    assert sorted(path.name for path in folder.iterdir()) == [".parquet-versions", "parquet", "steelyard.duckdb"]
    with Store.open_published(folder / "steelyard.duckdb") as reader:
        assert len(reader.read(RequestRow)) == len(rows.requests)
    (small_disk / "ballast").unlink()
    publish(filled, folder)
    with Store.open_published(folder / "steelyard.duckdb") as reader:
        assert len(reader.read(RequestRow)) == 2 * len(rows.requests)


def test_a_live_file_on_a_full_disk_keeps_what_was_committed(
    small_disk: Path, rows: Any, rows_of: Callable[..., Any]
) -> None:
    path = small_disk / "warehouse.duckdb"
    with Store.open(path) as store:
        store.write(rows.all())
    (small_disk / "ballast").write_bytes(bytes(40 * 2**20 - _used(small_disk) - 2**17))
    more = [rows_of(f"run-{number}").all() for number in range(2, 40)]
    with Store.open(path) as store, pytest.raises(InfrastructureError, match=r"kept nothing of it.*space"):
        _write_all(store, more)
    (small_disk / "ballast").unlink()
    with Store.open(path) as store:
        runs = store.query("SELECT run_id, count(*) AS n FROM requests GROUP BY run_id").set_index("run_id").n.to_dict()
        assert runs["run-1"] == len(rows.requests)
        assert set(runs.values()) == {len(rows.requests)}
        assert set(runs) == set(store.query("SELECT run_id FROM studies WHERE study = 'nightly-chat'").run_id)


def _write_all(store: Store, runs: list[Any]) -> None:
    for rows in runs:
        store.write(rows)


def _used(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _read_all(snapshot: Path) -> None:
    with Store.open_published(snapshot) as reader:
        for row_class in ROWS:
            reader.read(row_class)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97])
def test_a_snapshot_that_is_cut_short_is_refused_by_name(filled: Store, published: Path, share: float) -> None:
    snapshot = published / "steelyard.duckdb"
    whole = snapshot.read_bytes()
    snapshot.chmod(0o644)
    snapshot.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InfrastructureError, match=r"could not (be opened|answer)"):
        _read_all(snapshot)
    publish(filled, published)
    with Store.open_published(snapshot) as reader:
        assert reader.read(RequestRow)


def test_a_foreign_database_in_the_place_of_the_snapshot_is_refused(published: Path) -> None:
    snapshot = published / "steelyard.duckdb"
    snapshot.unlink()
    with duckdb.connect(snapshot) as connection:
        connection.execute("CREATE TABLE studies (anything INTEGER)")
    with pytest.raises(InputError, match="no published warehouse of Steelyard"):
        Store.open_published(snapshot)


def test_a_snapshot_in_the_place_of_the_live_file_is_refused_and_left_as_it_is(published: Path, tmp_path: Path) -> None:
    live = tmp_path / "home" / "warehouse.duckdb"
    live.parent.mkdir()
    shutil.copy(published / "steelyard.duckdb", live)
    live.chmod(0o644)
    before = live.read_bytes()
    with pytest.raises(InfrastructureError, match="is a published snapshot"):
        Store.open(live)
    assert live.read_bytes() == before
