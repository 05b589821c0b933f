from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import InfrastructureError, InputError
from steelyard.records import ROWS, StudyRow, VerdictRow
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.records_trials import EngineMetricRow, RequestRow, TrialRow
from warehouse.store import Store

ROOT = Path(__file__).parents[2]


def by_key(found: list[Any]) -> list[Any]:
    return sorted(found, key=lambda row: [getattr(row, name) for name in row.KEY])


def test_what_is_written_is_read_back_equal_for_every_table(filled: Store, rows: Any) -> None:
    for row_class in ROWS:
        written = rows.of(row_class)
        assert written, f"the factory makes no {row_class.__name__}"
        assert filled.read(row_class) == by_key(written)


def test_moments_come_back_in_utc_whatever_zone_they_had(store: Store, study_of: Callable[..., StudyRow]) -> None:
    far = datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    store.write([study_of("r", started_at=far)])
    (row,) = store.read(StudyRow, started_at=far)
    assert row.started_at == far
    assert row.started_at.tzinfo is UTC


def test_writing_again_replaces_by_key(filled: Store, rows: Any) -> None:
    counts = {row_class: len(filled.read(row_class)) for row_class in ROWS}
    assert filled.write(rows.all()) == len(rows.all())
    assert {row_class: len(filled.read(row_class)) for row_class in ROWS} == counts
    changed = dataclasses.replace(rows.trials[0], valid=False, invalid_reasons=["late"])
    filled.write([changed])
    assert filled.read(TrialRow, trial_id=changed.trial_id) == [changed]
    assert len(filled.read(RequestRow, trial_id=changed.trial_id)) == 8


def test_a_repeated_trial_keeps_nothing_of_its_first_attempt(filled: Store, rows: Any) -> None:
    trial = rows.trials[0]
    of_trial = [row for row in rows.requests if row.trial_id == trial.trial_id]
    filled.write([trial], of_trial[:3])
    assert filled.read(RequestRow, trial_id=trial.trial_id) == of_trial[:3]
    assert len(filled.read(EngineMetricRow, trial_id=trial.trial_id)) == 2
    assert len(filled.read(RequestRow)) == len(rows.requests) - len(of_trial) + 3


def test_a_repeated_suite_keeps_nothing_of_its_first_attempt(filled: Store, rows: Any) -> None:
    suite = next(row for row in rows.suites if row.arm == "int8")
    mine = [row for row in rows.samples if (row.arm, row.suite) == (suite.arm, suite.suite)]
    filled.write([suite], mine[:2])
    assert filled.read(SampleRow, arm=suite.arm, suite=suite.suite) == by_key(mine[:2])
    assert len(filled.read(SampleRow)) == len(rows.samples) - len(mine) + 2


def test_a_suite_grows_by_a_window(store: Store, rows: Any) -> None:
    suite = rows.suites[0]
    samples = [row for row in rows.samples if (row.arm, row.suite) == (suite.arm, suite.suite)]
    assert len(samples) > 2
    store.extend(suite, samples[:2])
    assert store.read(SampleRow) == by_key(samples[:2])
    grown = dataclasses.replace(suite, documents=suite.documents + 1)
    store.extend(grown, samples[2:])
    assert store.read(SuiteRow) == [grown]
    assert store.read(SampleRow) == by_key(samples)
    with pytest.raises(InfrastructureError, match="kept nothing"):
        store.extend(suite, samples[:1])
    assert store.read(SuiteRow) == [grown]
    assert store.read(SampleRow) == by_key(samples)


def test_rows_of_several_types_are_written_all_or_none(store: Store, rows: Any) -> None:
    trial = rows.trials[0]
    of_trial = [row for row in rows.requests if row.trial_id == trial.trial_id]
    bad = dataclasses.replace(of_trial[-1], status=None)
    with pytest.raises(InfrastructureError, match=r"requests.status was given NULL"):
        store.write([trial], [*of_trial[:-1], bad])
    assert store.read(TrialRow) == []
    assert store.read(RequestRow) == []
    store.write([trial], of_trial)
    assert len(store.read(RequestRow)) == len(of_trial)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"duration_s": float("nan")}, "trials.duration_s was given NaN"),
        ({"ttft_p50_s": float("inf")}, "trials.ttft_p50_s was given NaN or infinity"),
        ({"started_at": datetime(2026, 1, 1)}, "trials.started_at.*no moment with a time zone"),  # noqa: DTZ001
        ({"block": "first"}, "trials.block was given a value that is no BIGINT"),
        ({"block": 1.5}, "trials.block was given a value that is no BIGINT"),
        ({"arm": 7}, "trials.arm was given a value that is no VARCHAR"),
        ({"requests": 2**70}, "trials.requests was given a value that is no BIGINT"),
    ],
)
def test_what_a_column_may_not_hold_is_named(store: Store, rows: Any, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InfrastructureError, match=complaint):
        store.write([dataclasses.replace(rows.trials[0], **change)])
    assert store.read(TrialRow) == []


def test_nan_inside_a_list_is_refused(store: Store, rows: Any) -> None:
    with pytest.raises(InfrastructureError, match=r"requests.token_times_s was given NaN"):
        store.write([dataclasses.replace(rows.requests[0], token_times_s=[0.1, float("nan")])])


def test_two_rows_with_one_key_are_refused(store: Store, rows: Any) -> None:
    with pytest.raises(InfrastructureError, match=r"Two rows for trials.*trial_id"):
        store.write([rows.trials[0]], [rows.trials[0]])


def test_replace_run_leaves_other_runs_alone(filled: Store, rows: Any, rows_of: Callable[..., Any]) -> None:
    other = rows_of("run-2")
    filled.write(other.all())
    kept = rows.verdicts[:1]
    assert filled.replace_run("run-1", VerdictRow, kept) == 1
    assert filled.read(VerdictRow, run_id="run-1") == kept
    assert filled.read(VerdictRow, run_id="run-2") == by_key(other.verdicts)
    assert filled.replace_run("run-1", VerdictRow, []) == 0
    assert filled.read(VerdictRow, run_id="run-1") == []


def test_replace_run_refuses_strangers_and_keeps_what_was_there(filled: Store, rows: Any) -> None:
    with pytest.raises(InputError, match="run-1"):
        filled.replace_run("run-2", VerdictRow, rows.verdicts)
    with pytest.raises(InputError, match="TrialRow"):
        filled.replace_run("run-1", VerdictRow, rows.trials)
    broken = dataclasses.replace(rows.verdicts[0], verdict=None)
    with pytest.raises(InfrastructureError, match=r"verdicts.verdict"):
        filled.replace_run("run-1", VerdictRow, [broken])
    assert filled.read(VerdictRow) == by_key(rows.verdicts)


def test_read_finds_null_and_names_unknown_columns(filled: Store, rows: Any) -> None:
    assert len(filled.read(SampleRow, score=None)) == sum(row.score is None for row in rows.samples) > 0
    with pytest.raises(InputError, match="samples has no column scores"):
        filled.read(SampleRow, scores=None)


def test_of_rows_that_agree_only_the_first_is_read(filled: Store, rows: Any) -> None:
    found = filled.read(SampleRow, one_per=("arm", "suite"))
    every = by_key(rows.samples)
    assert len(found) < len(every)
    first: dict[tuple[str, str], SampleRow] = {}
    for row in every:
        first.setdefault((row.arm, row.suite), row)
    assert found == by_key(list(first.values()))
    with pytest.raises(InputError, match="no column colour"):
        filled.read(SampleRow, one_per=("colour",))


def test_query_and_scalar(filled: Store, rows: Any) -> None:
    frame = filled.query("SELECT arm, count(*) AS n FROM trials WHERE block = ? GROUP BY arm ORDER BY arm", [0])
    assert frame.to_numpy().tolist() == [["again", 2], ["baseline", 2], ["broken", 2], ["int8", 2]]
    assert filled.scalar("SELECT count(*) FROM trials WHERE arm = $arm", {"arm": "int8"}) == 6
    assert filled.scalar("SELECT arm FROM trials WHERE arm = 'nobody'") is None
    assert len(filled.query("DESCRIBE trials")) > 10


@pytest.mark.parametrize("sql", ["DELETE FROM trials", "SELECT 1; DROP TABLE trials", "DROP TABLE trials"])
def test_a_query_cannot_write(filled: Store, rows: Any, sql: str) -> None:
    with pytest.raises(InputError, match="one SELECT"):
        filled.query(sql)
    assert len(filled.read(TrialRow)) == len(rows.trials)


def test_a_bad_query_is_explained(filled: Store) -> None:
    with pytest.raises(InputError, match="nowhere"):
        filled.query("SELECT * FROM nowhere")


def test_done_and_unfinished(filled: Store, rows: Any, study_of: Callable[..., StudyRow]) -> None:
    assert filled.done_trials("run-1") == {row.trial_id for row in rows.trials}
    assert filled.done_trials("run-2") == set()
    assert filled.done_suites("run-1") == {(row.arm, row.suite) for row in rows.suites}
    digest = rows.study.study_digest
    assert filled.unfinished_run("nightly-chat", digest) is None
    later = rows.study.started_at + timedelta(days=1)
    running = {"status": "running", "finished_at": None}
    newest = study_of("run-4", later, **running)
    filled.write([study_of("run-3", **running), newest, study_of("run-5", later, study_digest="other", **running)])
    assert filled.unfinished_run("nightly-chat", digest) == newest
    assert filled.unfinished_run("another", digest) is None


def test_ten_thousand_requests_take_less_than_two_seconds(store: Store, rows: Any) -> None:
    base = dataclasses.replace(rows.requests[0], token_times_s=[0.01 * k for k in range(128)])
    many = [dataclasses.replace(base, request_index=index) for index in range(10_000)]
    for _ in range(2):
        started = time.process_time()
        store.write(many)
        assert time.process_time() - started < 2
    assert store.scalar("SELECT count(*) FROM requests") == 10_000


def test_the_file_is_free_after_an_error(tmp_path: Path, rows: Any) -> None:
    def fail() -> None:
        with Store.open(tmp_path / "w.duckdb") as store:
            store.write([rows.study])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    child = subprocess.run(
        [sys.executable, "-c", "import sys, duckdb; duckdb.connect(sys.argv[1]).close()", tmp_path / "w.duckdb"],
        check=False, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert child.returncode == 0


def test_a_second_process_is_told_who_holds_the_file(store: Store) -> None:
    code = (
        "import sys, pathlib\nfrom steelyard.errors import InfrastructureError\nfrom warehouse.store import Store\n"
        "try:\n    Store.open(pathlib.Path(sys.argv[1]))\n"
        "except InfrastructureError as error:\n    print(error)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, store.path], check=True, timeout=60, capture_output=True, cwd=ROOT
    ).stdout
    assert f"pid {os.getpid()}" in told.decode()
    assert "steelyard.duckdb read-only" in told.decode()


def test_a_file_that_is_no_warehouse_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.duckdb").write_text("not a database, but long enough to look like one " * 100)
    with pytest.raises(InfrastructureError, match="could not be opened"):
        Store.open(tmp_path / "w.duckdb")


def test_home_is_the_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "deep" / "home"))
    with Store.open() as store:
        assert store.path == tmp_path / "deep" / "home" / "warehouse.duckdb"
    assert store.path.exists()


def test_threads_share_one_store(store: Store, rows: Any) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for index in range(5):
                trial = dataclasses.replace(rows.trials[0], trial_id=f"t{number}-{index}")
                asked = [dataclasses.replace(row, trial_id=trial.trial_id) for row in rows.requests[:8]]
                store.write([trial], asked)
                store.read(TrialRow, trial_id=trial.trial_id)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (len(store.read(TrialRow)), len(store.read(RequestRow))) == (20, 160)


_WRITER = """
import dataclasses, pathlib, sys, time
from warehouse.store import Store
from steelyard.records_trials import EngineMetricRow
row = EngineMetricRow(trial_id="", metric="m", run_id="r", arm="a", deployment_digest="d" * 64, kind="gauge", value=1.0)
with Store.open(pathlib.Path(sys.argv[1])) as store:
    for trial in range(10_000):
        rows = [dataclasses.replace(row, trial_id=f"t{trial:05d}", metric=f"m{index}") for index in range(50)]
        store.write(rows)
        print(trial, flush=True)
        if trial == 30:
            with store.exclusive() as connection:
                connection.execute("BEGIN")
                connection.execute("UPDATE engine_metrics SET value = 2")
                connection.execute("INSERT INTO engine_metrics SELECT 'half', metric, run_id, arm, deployment_digest,"
                                   " kind, value FROM engine_metrics WHERE trial_id = 't00000'")
                print("inside", flush=True)
                time.sleep(60)
"""


def test_kill_9_keeps_what_was_committed_and_nothing_else(tmp_path: Path, rows: Any) -> None:
    path = tmp_path / "w.duckdb"
    child = subprocess.Popen([sys.executable, "-c", _WRITER, path], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert child.stdout is not None
        said = []
        for line in child.stdout:
            said.append(line.strip())
            if line.strip() == "inside":
                break
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait(timeout=30)
        child.stdout.close()
    assert child.returncode == -signal.SIGKILL
    assert said[-1] == "inside"
    with Store.open(path) as store:
        assert store.scalar("SELECT count(DISTINCT trial_id) FROM engine_metrics") == 31
        assert store.scalar("SELECT count(*) FROM engine_metrics") == 31 * 50
        assert store.scalar("SELECT max(value) FROM engine_metrics") == 1
        again = store.read(EngineMetricRow, trial_id="t00030")
        store.write(again)
        store.write([dataclasses.replace(row, trial_id="t00031") for row in again])
    with Store.open(path) as store:
        assert store.scalar("SELECT count(*) FROM engine_metrics") == 32 * 50
        assert (
            store.scalar("SELECT max(n) FROM (SELECT count(*) AS n FROM engine_metrics GROUP BY trial_id, metric)") == 1
        )


def test_a_suite_without_samples_of_its_own_run_keeps_other_runs(filled: Store, rows_of: Callable[..., Any]) -> None:
    other = rows_of("run-2")
    filled.write(other.all())
    suite = other.suites[0]
    filled.write([suite], [row for row in other.samples if (row.arm, row.suite) == (suite.arm, suite.suite)][:1])
    assert len(filled.read(SuiteRow, run_id="run-1")) == 8
    assert len(filled.read(SampleRow, run_id="run-1")) == len(rows_of().samples)
