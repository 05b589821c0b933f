"""What a night knows of a study: valid while nothing it rests on changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_study import write_fake_study

from assets.runs import new_run
from pipelines import night_known
from pipelines.night_known import known_of, newest_ended, standings
from pipelines.studies import misnamed
from steelyard.deployments import deployments
from steelyard.nightly.news import Ended
from steelyard.records import ArmRow, StudyRow
from steelyard.study_file import LoadedStudy, load_study
from warehouse.store import Store

NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedStudy:
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "var"))
    return load_study(write_fake_study(tmp_path / "study"))


@pytest.fixture
def store(tmp_path: Path, loaded: LoadedStudy) -> Iterator[Store]:
    with Store.open(tmp_path / "w.duckdb") as opened:
        yield opened


def run(loaded: LoadedStudy, status: str = "complete", hours: float = 0, **changes: object) -> StudyRow:
    made = new_run(loaded, NOW + timedelta(hours=hours))
    ended = NOW + timedelta(hours=hours, minutes=20)
    return dataclasses.replace(made, status=status, finished_at=None if status == "running" else ended, **changes)


def arms(loaded: LoadedStudy, run_id: str, folder: Path) -> list[ArmRow]:
    return [
        ArmRow(
            run_id=run_id, arm=each.arm, role="candidate", lever=None, claim=None, note=None, engine=each.engine,
            engine_version="1", args_json="{}", deployment_digest="d", weights_digest=each.weights_digest,
            tokenizer_digest=each.tokenizer_digest, template_digest=each.template_digest, env_json="{}",
            resolved_json=None, start_s=1.0, status="served", error=None,
        )
        for each in deployments(loaded, weights_into=folder)
    ]  # fmt: skip


def test_without_a_run_nothing_is_known(store: Store, loaded: LoadedStudy) -> None:
    known = known_of(store, loaded)
    assert (known.valid_run, known.unfinished, known.needs_s, known.incidents) == (None, None, None, 0)


def test_a_complete_run_of_what_is_there_is_valid(store: Store, loaded: LoadedStudy, tmp_path: Path) -> None:
    done = run(loaded)
    store.write([done], arms(loaded, done.run_id, tmp_path / "weights"))
    known = known_of(store, loaded)
    assert (known.valid_run, known.valid_since, known.changed) == (done.run_id, done.started_at, ())
    assert known.needs_s == 1200
    assert newest_ended(store, loaded.study.study, NOW) == done
    assert newest_ended(store, loaded.study.study, NOW + timedelta(hours=1)) is None


@pytest.mark.parametrize("column", ["packages_json", "driver_version", "cpu_model"])
def test_an_upgrade_is_named(store: Store, loaded: LoadedStudy, tmp_path: Path, column: str) -> None:
    done = run(loaded, **{column: "another"})
    store.write([done], arms(loaded, done.run_id, tmp_path / "weights"))
    assert known_of(store, loaded).changed == (column,)
    begun = run(loaded, "running", hours=1, **{column: "another"})
    store.write([begun])
    assert known_of(store, loaded).unfinished is None


def test_other_weights_are_named(store: Store, loaded: LoadedStudy, tmp_path: Path) -> None:
    done = run(loaded)
    rows = arms(loaded, done.run_id, tmp_path / "weights")
    store.write([done], [dataclasses.replace(rows[0], weights_digest="other"), *rows[1:]])
    assert known_of(store, loaded).changed == (f"weights of {rows[0].arm}",)


def test_a_study_edited_since_has_no_valid_run_but_a_duration(store: Store, loaded: LoadedStudy) -> None:
    store.write([run(loaded, study_digest="0" * 64)])
    known = known_of(store, loaded)
    assert (known.valid_run, known.needs_s) == (None, 1200)


def test_an_unfinished_run_is_found(store: Store, loaded: LoadedStudy) -> None:
    begun = run(loaded, "running")
    store.write([begun])
    assert known_of(store, loaded).unfinished == begun.run_id


def test_nothing_is_promoted_in_an_empty_warehouse(store: Store) -> None:
    assert standings(store) == ([], Ended(expired={}, withdrawn={}))
    assert night_known.open_incidents(store, "any") == []


def test_a_name_that_no_study_has_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_STUDIES", str(tmp_path))
    for name, text in (("a", "study: chat"), ("b-template", "study: search"), ("c", "study: [")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.yaml").write_text(text)
    assert misnamed(["chat", "search", "chta"]) == ["chta"]
