"""Export to a folder or an object store."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pytest

from steelyard.errors import InfrastructureError, InputError
from steelyard.records_quality import SampleRow, SuiteRow
from warehouse.export import export
from warehouse.places import Place
from warehouse.publish import publish
from warehouse.restore import restore
from warehouse.store import Store

pytestmark = pytest.mark.usefixtures("home")


def test_an_export_is_a_warehouse_others_can_open(three_nights: Path, filled: Store, tmp_path: Path) -> None:
    done = export(str(tmp_path / "out"))
    assert (done.to, done.runs, done.there) == (str(tmp_path / "out"), 3, 0)
    shutil.rmtree(three_nights.parent)
    with duckdb.connect(tmp_path / "out" / "steelyard.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT count(DISTINCT run_id) FROM request_evidence").fetchall() == [(3,)]
    assert sorted((tmp_path / "out" / "parquet" / "requests").glob("*/*/*.parquet"))


def test_what_is_there_already_is_not_sent_again(
    three_nights: Path, filled: Store, rows: Any, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    first = export(str(tmp_path / "out"))
    again = export(str(tmp_path / "out"))
    assert again.there == 9
    assert again.sent == first.sent - 9
    filled.write(rows_of("run-4", rows.study.started_at + timedelta(days=3)).all())
    trial = rows.trials[0]
    filled.write([trial], [row for row in rows.requests if row.trial_id == trial.trial_id][:1])
    publish(filled)
    third = export(str(tmp_path / "out"))
    assert (third.runs, third.there) == (4, 6)
    with duckdb.connect(tmp_path / "out" / "steelyard.duckdb", read_only=True) as connection:
        found = connection.execute("SELECT count(*) FROM requests WHERE trial_id = ?", [trial.trial_id]).fetchall()
        assert found == [(1,)]


def test_an_export_may_choose_study_and_nights(three_nights: Path, tmp_path: Path) -> None:
    assert export(str(tmp_path / "late"), since="2026-03-02").runs == 2
    with duckdb.connect(tmp_path / "late" / "steelyard.duckdb", read_only=True) as connection:
        for table in ("studies", "trials", "requests", "verdicts", "samples"):
            found = connection.execute(f"SELECT DISTINCT run_id FROM {table} ORDER BY 1").fetchall()
            assert found == [("run-2",), ("run-3",)], table
    assert export(str(tmp_path / "one"), study="nightly-chat").runs == 3
    for asked in ({"study": "nobody"}, {"since": "2030-01-01"}):
        with pytest.raises(InputError, match="There is no run"):
            export(str(tmp_path / "none"), **asked)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("to", "complaint"),
    [
        ("nosuch://bucket", "is nowhere to export to"),
        ("sftp://host/path", "needs a package that is not installed"),
    ],
)
def test_a_destination_nobody_can_write_to_is_named(three_nights: Path, to: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        export(to)


def test_a_destination_that_refuses_is_named(three_nights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InfrastructureError, match=r"file refused: .*Not a directory"):
        export(str(tmp_path / "file"))


def test_what_arrives_short_is_found(three_nights: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    put = type(store).put_file

    def short(self: Any, local: str, remote: str, **more: Any) -> None:
        put(self, local, remote, **more)
        if remote.endswith("run-3.parquet"):
            self.pipe_file(remote, b"short")

    monkeypatch.setattr(type(store), "put_file", short)
    with pytest.raises(InfrastructureError, match=r"run-3.parquet has 5 bytes there"):
        export(bucket)
    assert not Place.of(bucket).tree.manifest()["complete"]


def test_without_a_snapshot_there_is_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no published warehouse"):
        export(str(tmp_path / "out"))


def test_an_export_that_would_lose_runs_there_is_refused(three_nights: Path, tmp_path: Path, empty: Store) -> None:
    export(str(tmp_path / "out"))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"holds 1 runs that this export has not, such as run-1.*lost there"):
        export(str(tmp_path / "out"), since="2026-03-02")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    export(str(tmp_path / "late"), since="2026-03-02")
    assert export(str(tmp_path / "late")).there == 6
    assert restore(empty, str(tmp_path / "late")).runs == 3


def test_an_export_cut_short_says_so_and_goes_on(
    three_nights: Path, empty: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.export.NOTED_EVERY", 1)
    put = Place.put
    sent: list[str] = []

    def stop(self: Place, file: Path, target: str) -> int:
        if len(sent) == 7:
            raise KeyboardInterrupt
        sent.append(target)
        return put(self, file, target)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "put", stop)
        with pytest.raises(KeyboardInterrupt):
            export(str(tmp_path / "out"))
    with pytest.raises(InputError, match="says that it was cut short"):
        restore(empty, str(tmp_path / "out"))
    assert export(str(tmp_path / "out")).there == 6
    assert restore(empty, str(tmp_path / "out")).runs == 3


def test_an_export_cut_short_over_an_older_one_is_none(
    three_nights: Path, empty: Store, filled: Store, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(str(tmp_path / "out"))
    trial = rows.trials[0]
    filled.write([trial], [row for row in rows.requests if row.trial_id == trial.trial_id][:1])
    publish(filled)

    def refuse(*_: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Place, "put", refuse)
        with pytest.raises(KeyboardInterrupt):
            export(str(tmp_path / "out"))
    with pytest.raises(InputError, match="cut short"):
        restore(empty, str(tmp_path / "out"))
    assert export(str(tmp_path / "out")).there == 6
    assert restore(empty, str(tmp_path / "out")).runs == 3


def test_raw_rows_that_went_go_at_the_destination_too(three_nights: Path, filled: Store, tmp_path: Path) -> None:
    export(str(tmp_path / "out"))
    filled.replace_run("run-1", SampleRow, [])
    publish(filled)
    export(str(tmp_path / "out"))
    assert sorted(path.stem for path in (tmp_path / "out" / "parquet" / "samples").glob("*/*/*")) == ["run-2", "run-3"]


def test_a_part_without_samples_can_still_be_asked_for_them(
    filled: Store, rows: Any, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    timed = rows_of("run-2", rows.study.started_at + timedelta(days=1))
    filled.write([row for row in timed.all() if not isinstance(row, SuiteRow | SampleRow)])
    publish(filled)
    export(str(tmp_path / "out"), since="2026-03-02")
    with duckdb.connect(tmp_path / "out" / "steelyard.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM flips").fetchall() == [(0,)]
        assert connection.execute("SELECT count(*) FROM samples").fetchall() == [(0,)]


def test_a_reader_of_the_destination_keeps_what_it_opened(
    three_nights: Path, filled: Store, rows: Any, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    export(str(tmp_path / "out"))
    with duckdb.connect(tmp_path / "out" / "steelyard.duckdb", read_only=True) as reader:
        filled.write(rows_of("run-4", rows.study.started_at + timedelta(days=3)).all())
        publish(filled)
        export(str(tmp_path / "out"))
        assert reader.execute("SELECT count(*) FROM studies").fetchall() == [(3,)]


def test_the_published_folder_is_no_destination(three_nights: Path) -> None:
    for inside in (three_nights.parent, three_nights.parent / "deeper"):
        with pytest.raises(InputError, match="the published folder itself"):
            export(str(inside))


def test_a_cut_short_put_is_no_row_of_the_destination(
    three_nights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(str(out))
    count = "SELECT count(*) FROM requests"
    with Store.open_published(out / "steelyard.duckdb") as store:
        whole = store.scalar(count)
    [file, *_] = sorted((out / "parquet" / "requests").rglob("*.parquet"))
    place = Place.of(str(out)).tree

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        place.put(file, file.relative_to(out / "parquet").as_posix())
    with pytest.raises(KeyboardInterrupt):
        place.write("", "_manifest.json")
    monkeypatch.undo()
    with Store.open_published(out / "steelyard.duckdb") as store:
        assert store.scalar(count) == whole
    assert place.manifest()["complete"] is True


def test_a_publish_that_would_lose_runs_is_refused(three_nights: Path, empty: Store) -> None:
    with pytest.raises(InfrastructureError, match=r"holds 3 runs that the live warehouse has not.*steelyard restore"):
        publish(empty)
    assert restore(empty, str(three_nights.parent)).runs == 3
    publish(empty)


def test_a_store_whose_client_raises_anything_is_told_in_a_sentence(
    three_nights: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoCredentialsError(Exception):
        pass

    def refuse(*_: Any, **__: Any) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    for method in ("put_file", "cat_file", "pipe_file"):
        with monkeypatch.context() as patch:
            patch.setattr(type(fsspec.filesystem("memory")), method, refuse)
            with pytest.raises(InfrastructureError, match="refused: Unable to locate credentials"):
                export(bucket)
