"""Runs from an export back into a warehouse, whole, once, and only what an export wrote."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.environment import describe
from steelyard.errors import InfrastructureError, InputError
from steelyard.home import published_path
from steelyard.records import ROWS, Row, StudyRow, VerdictRow
from steelyard.records_trials import RequestRow, TrialRow
from warehouse.export import export
from warehouse.parquet import WHOLE
from warehouse.publish import publish
from warehouse.restore import restore
from warehouse.store import Store

pytestmark = pytest.mark.usefixtures("home")


def everything(store: Store) -> dict[type[Row], list[Row]]:
    """All rows that belong to a run of the warehouse; the factory's search and thinning have none."""
    known = {row.run_id for row in store.read(StudyRow)}
    return {each: [row for row in store.read(each) if row.run_id in known] for each in ROWS}  # type: ignore[attr-defined]


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


@pytest.mark.parametrize("changed", [{"run_id": "../../etc"}, {"study": "a/b"}, {"run_id": ".hidden"}])
def test_a_name_that_would_leave_its_folder_is_refused(
    three_nights: Path, empty: Store, tmp_path: Path, changed: dict[str, str]
) -> None:
    export(str(tmp_path / "out"))
    studies = tmp_path / "out" / "parquet" / "studies" / WHOLE
    table = pq.ParquetFile(studies).read()
    [(column, value)] = changed.items()
    position = table.column_names.index(column)
    pq.write_table(table.set_column(position, column, pa.array([value] * table.num_rows)), studies)
    with pytest.raises(InputError, match="which no Steelyard gives"):
        restore(empty, str(tmp_path / "out"))
    assert empty.read(StudyRow) == []
