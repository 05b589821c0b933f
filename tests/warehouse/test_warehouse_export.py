"""Export to a folder or an object store, and back."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.environment import describe
from steelyard.errors import InfrastructureError, InputError
from steelyard.home import published_path
from steelyard.records import ROWS, RequestRow, Row, SampleRow, StudyRow, SuiteRow, TrialRow, VerdictRow
from warehouse.export import export
from warehouse.parquet import WHOLE
from warehouse.places import Place
from warehouse.publish import publish
from warehouse.restore import restore
from warehouse.store import Store


@pytest.fixture(autouse=True)
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


def everything(store: Store) -> dict[type[Row], list[Row]]:
    """All rows that belong to a run of the warehouse; the factory's search and thinning have none."""
    known = {row.run_id for row in store.read(StudyRow)}
    return {each: [row for row in store.read(each) if row.run_id in known] for each in ROWS}  # type: ignore[attr-defined]


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


def test_back_and_forth_through_an_object_store_loses_nothing(
    three_nights: Path, filled: Store, bucket: str, tmp_path: Path
) -> None:
    told: list[str] = []
    assert export(bucket).to == bucket
    with Store.open(tmp_path / "other" / "w.duckdb") as other:
        done = restore(other, bucket, tell=told.append)
        assert (done.runs, done.there) == (3, 0)
        assert everything(other) == everything(filled)
        assert done.rows == sum(len(rows) for rows in everything(filled).values())
        again = restore(other, bucket)
        assert (again.runs, again.rows, again.there) == (0, 0, 3)
    assert told == ["3 of 3 runs restored"]


def test_a_restore_adds_what_is_missing_and_touches_nothing_else(three_nights: Path, rows: Any, tmp_path: Path) -> None:
    with Store.open(tmp_path / "other.duckdb") as other:
        kept = [row for row in rows.all() if not isinstance(row, VerdictRow)]
        other.write(kept)
        assert restore(other, str(three_nights.parent)).runs == 2
        assert other.read(VerdictRow, run_id="run-1") == []
        publish(other, tmp_path / "theirs")
    with Store.open_published(tmp_path / "theirs" / "steelyard.duckdb") as reader:
        assert {row.run_id for row in reader.read(RequestRow)} == {"run-1", "run-2", "run-3"}


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Store]:
    """Another warehouse."""
    with Store.open(tmp_path / "empty" / "warehouse.duckdb") as opened:
        yield opened


def test_without_a_manifest_there_is_no_export(three_nights: Path, empty: Store, bucket: str) -> None:
    export(bucket)
    fsspec.filesystem("memory").rm("/bucket/steelyard/parquet/_manifest.json")
    with pytest.raises(
        InputError, match=r"no complete export in memory://bucket/steelyard.*_manifest.json is not there"
    ):
        restore(empty, bucket)
    with pytest.raises(InputError, match="no complete export"):
        restore(empty, "/nowhere")
    assert export(bucket).there == 0
    assert restore(empty, bucket).runs == 3


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda table: table.drop_columns("arm"), "arm is NULL, but every row needs a value"),
        (lambda table: table.append_column("colour", pa.array(["red"] * table.num_rows)), "a column colour"),
        (lambda table: pa.concat_tables([table, table.slice(0, 1)]), "a key .trial_id, request_index. twice"),
        (
            lambda table: table.set_column(6, "scheduled_s", pa.array([float("nan")] * table.num_rows)),
            "scheduled_s is NaN or infinite",
        ),
        (
            lambda table: table.set_column(1, "request_index", pa.array(["first"] * table.num_rows)),
            "request_index is no BIGINT",
        ),
        (
            lambda table: table.set_column(2, "run_id", pa.array(["another"] * table.num_rows)),
            "rows of another run than run-2",
        ),
    ],
)
def test_a_file_that_no_export_wrote_is_refused_and_what_came_before_stays(
    three_nights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[pa.Table], pa.Table],
    complaint: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("warehouse.restore.BATCH_BYTES", 0)
    export(str(tmp_path / "out"))
    [file] = (tmp_path / "out" / "parquet" / "requests").glob("*/*/run-2.parquet")
    pq.write_table(damage(pq.ParquetFile(file).read()), file)
    with Store.open(tmp_path / "other.duckdb") as other:
        with pytest.raises(InputError, match=complaint):
            restore(other, str(tmp_path / "out"))
        assert [row.run_id for row in other.read(StudyRow)] == ["run-1"]
        assert {row.run_id for row in other.read(TrialRow)} == {"run-1"}


def test_a_file_that_is_no_parquet_is_named(three_nights: Path, empty: Store, tmp_path: Path) -> None:
    export(str(tmp_path / "out"))
    (tmp_path / "out" / "parquet" / "verdicts" / "data.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InfrastructureError, match="could not be read"):
        restore(empty, str(tmp_path / "out"))


def test_an_export_of_an_older_schema_lacks_columns_and_tables(
    three_nights: Path, empty: Store, tmp_path: Path
) -> None:
    export(str(tmp_path / "out"))
    arms = tmp_path / "out" / "parquet" / "arms" / "data.parquet"
    pq.write_table(pq.ParquetFile(arms).read().drop_columns("model"), arms)
    shutil.rmtree(tmp_path / "out" / "parquet" / "wall_times")
    assert restore(empty, str(tmp_path / "out")).runs == 3
    assert empty.scalar("SELECT count(*) FROM arms WHERE model IS NOT NULL") == 0


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


def test_a_folder_whose_name_looks_like_a_pattern(three_nights: Path, empty: Store, tmp_path: Path) -> None:
    export(str(tmp_path / "[out]*"))
    assert restore(empty, str(tmp_path / "[out]*")).rows > 0
    assert empty.read(RequestRow)


def test_a_copy_that_lost_its_raw_rows_is_refused_whole(three_nights: Path, empty: Store, tmp_path: Path) -> None:
    export(str(tmp_path / "out"))
    for table in ("requests", "samples", "engine_metrics"):
        [file] = (tmp_path / "out" / "parquet" / table).glob("*/*/run-2.parquet")
        file.unlink()
    with pytest.raises(InputError, match=r"lacks the raw rows of 1 runs that its manifest names, such as run-2"):
        restore(empty, str(tmp_path / "out"))
    shutil.rmtree(tmp_path / "out" / "parquet" / "studies")
    with pytest.raises(InputError):
        restore(empty, str(tmp_path / "out"))
    assert empty.read(StudyRow) == []


def test_a_run_that_another_machine_has_not_ended_is_left_out(
    filled: Store, empty: Store, rows: Any, tmp_path: Path
) -> None:
    filled.write([dataclasses.replace(rows.study, status="running", finished_at=None)])
    publish(filled)
    export(str(tmp_path / "out"))
    done = restore(empty, str(tmp_path / "out"))
    assert (done.runs, done.running) == (0, 1)
    here = describe()["hostname_digest"]
    filled.write([dataclasses.replace(rows.study, status="running", finished_at=None, hostname_digest=here)])
    publish(filled)
    export(str(tmp_path / "out"))
    assert restore(empty, str(tmp_path / "out")).runs == 1


def test_two_runs_of_one_name_are_not_taken_for_one(filled: Store, empty: Store, rows: Any, tmp_path: Path) -> None:
    publish(filled)
    export(str(tmp_path / "out"))
    empty.write([dataclasses.replace(rows.study, hostname_digest="another")])
    with pytest.raises(InputError, match="another one than the run of that name here"):
        restore(empty, str(tmp_path / "out"))


def test_an_export_of_a_newer_steelyard_is_refused_by_name(filled: Store, empty: Store, tmp_path: Path) -> None:
    publish(filled)
    export(str(tmp_path / "out"))
    (tmp_path / "out" / "parquet" / "recalls").mkdir()
    tree = tmp_path / "out" / "parquet"
    shutil.copy(tree / "studies" / WHOLE, tree / "recalls" / WHOLE)
    with pytest.raises(InputError, match="does not know, such as recalls: a newer one"):
        restore(empty, str(tmp_path / "out"))
    assert empty.read(StudyRow) == []


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


def test_a_backup_of_before_a_run_ended_does_not_take_its_end_back(
    filled: Store, empty: Store, rows: Any, tmp_path: Path
) -> None:
    publish(filled)
    empty.write([dataclasses.replace(rows.study, status="running", finished_at=None)])
    with pytest.raises(InfrastructureError, match=r"not to their end.*steelyard restore"):
        publish(empty)
    assert restore(empty, str(published_path())).renewed == 1
    assert everything(empty) == everything(filled)
    publish(empty)


def test_a_run_that_went_on_elsewhere_is_brought_forward_and_one_that_went_on_here_is_not(
    filled: Store, empty: Store, rows: Any
) -> None:
    sign_off, entry = (dataclasses.replace(row, run_id="run-1") for row in rows.review)
    entries = [dataclasses.replace(entry, seq=2 + n, entry=f"{n}" * 64) for n in (1, 2, 3)]
    empty.write(rows.all())
    filled.write([sign_off, entries[0]])
    publish(filled)
    first = restore(empty, str(published_path()))
    assert (first.runs, first.renewed, first.there, first.apart) == (0, 1, 0, 0)
    assert everything(empty) == everything(filled)
    assert restore(empty, str(published_path())).there == 1

    empty.write([entries[1]])
    before = everything(empty)
    assert restore(empty, str(published_path())).apart == 0
    filled.write([entries[2]])
    publish(filled)
    last = restore(empty, str(published_path()))
    assert (last.renewed, last.there, last.apart) == (0, 1, 1)
    assert everything(empty) == before


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
