"""Into the warehouse: once, under one name, and never where a gate could take it for a measurement."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steelyard.cli_import import keep, tell
from steelyard.comparisons import compare_speed
from steelyard.errors import InputError
from steelyard.importers import Asked, Imported, read_foreign
from steelyard.records import ArmRow, StudyRow
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.records_trials import RequestRow, TrialRow
from warehouse.contracts import frame_of, validate
from warehouse.store import Store

FIXTURES = Path(__file__).parent / "fixtures"
FILES = {
    "vllm-bench": FIXTURES / "vllm_appended.json",
    "guidellm": FIXTURES / "guidellm_v2.json",
    "aiperf": FIXTURES / "aiperf" / "profile_export.jsonl",
    "lm-eval": FIXTURES / "lm_eval",
}
TABLES = (StudyRow, ArmRow, TrialRow, RequestRow, SuiteRow, SampleRow)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "warehouse.duckdb") as opened:
        yield opened


@pytest.fixture(params=FILES.values(), ids=FILES)
def imported(request: pytest.FixtureRequest) -> Imported:
    return read_foreign(request.param)


def everything(store: Store) -> list[Any]:
    return [row for table in TABLES for row in store.read(table)]


def test_what_is_stored_is_what_was_read_and_twice_is_once(store: Store, imported: Imported) -> None:
    assert keep(store, imported)
    before = everything(store)
    assert len(before) == 1 + sum(
        map(len, (imported.arms, imported.trials, imported.requests, imported.suites, imported.samples))
    )
    assert store.read(TrialRow) == sorted(imported.trials, key=lambda t: t.trial_id)
    assert not keep(store, imported)
    assert everything(store) == before


def test_another_file_is_another_run(store: Store, tmp_path: Path) -> None:
    for path in FILES.values():
        assert keep(store, read_foreign(path))
    changed = json.loads((FIXTURES / "vllm_rate.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps({**changed, "date": "20261123-000000"}))
    assert keep(store, read_foreign(FIXTURES / "vllm_rate.json"))
    assert keep(store, read_foreign(tmp_path / "other.json"))
    assert len(store.read(StudyRow)) == len(FILES) + 2


def test_a_run_is_kept_under_one_name(store: Store) -> None:
    keep(store, read_foreign(FILES["vllm-bench"], Asked(name="weekly", arm="a")))
    for asked, field in ((Asked(name="monthly", arm="a"), "--as"), (Asked(name="weekly", arm="b"), "--arm")):
        with pytest.raises(InputError, match="as study weekly with arm a") as error:
            keep(store, read_foreign(FILES["vllm-bench"], asked))
        assert error.value.field == field


def test_the_name_of_a_measured_study_is_refused(store: Store) -> None:
    foreign = read_foreign(FILES["vllm-bench"], Asked(name="nightly"))
    measured = dataclasses.replace(foreign.study, run_id="nightly-1", status="complete", seed=0, cpu_count=2)
    store.write([measured])
    with pytest.raises(InputError, match="has measured"):
        keep(store, foreign)
    assert store.read(TrialRow) == []


def test_nothing_of_it_can_be_judged(imported: Imported) -> None:
    assert imported.study.status == "imported"
    assert {row.role for row in imported.arms} == {row.status for row in imported.arms} == {"imported"}
    assert {row.deployment_digest for row in imported.arms} == {None}
    assert not any(row.valid for row in imported.trials)
    assert all(row.invalid_reasons for row in imported.trials)
    for row in (*imported.trials, *imported.requests, *imported.suites, *imported.samples):
        assert row.deployment_digest.startswith("imported-")
    assert not validate("arms", frame_of(imported.arms)).success


def test_even_called_baseline_and_candidate_of_one_run_two_imports_give_no_pair(imported: Imported) -> None:
    forged = [
        dataclasses.replace(trial, run_id="forged", arm=arm)
        for arm in ("baseline", "fast")
        for trial in imported.trials
    ]
    speed = compare_speed("forged", forged, arms=["fast"], confidence=0.95)
    assert all(row.n == 0 and row.estimate is None for row in speed)
    # Gates ask for suites by category, and this is none of theirs.
    assert not {row.category for row in imported.suites} & {"accuracy", "safety"}


def test_measured_columns_keep_their_contracts(imported: Imported) -> None:
    """Only what marks a row as foreign breaks a contract: the digest, and what its tool cannot know."""
    marks = ("deployment_digest", "category", "route", "duration_s")
    for table, rows in (
        ("trials", imported.trials), ("requests", imported.requests), ("suites", imported.suites),
        ("samples", imported.samples),
    ):  # fmt: skip
        if rows:
            failures = validate(table, frame_of(rows)).failures
            assert failures, "a foreign table must not pass as a measured one"
            assert [each for each in failures if not any(mark in each for mark in marks)] == []


def test_the_table_names_the_run_and_its_notes(capsys: pytest.CaptureFixture[str], imported: Imported) -> None:
    tell(imported, new=True)
    said = capsys.readouterr().out
    assert imported.study.run_id in said
    assert imported.arms[0].arm in said
    assert all(note.split()[0] in said for note in imported.notes)
    tell(imported, new=False)
    assert "nothing changed" in capsys.readouterr().out


def test_a_copy_under_another_name_is_the_same_run(store: Store, tmp_path: Path) -> None:
    keep(store, read_foreign(FILES["guidellm"]))
    assert not keep(store, read_foreign(Path(shutil.copy(FILES["guidellm"], tmp_path / "copy.json"))))
