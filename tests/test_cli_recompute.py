"""`steelyard recompute` as a reviewer meets it: on a published snapshot, beside whoever writes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

sys.path.insert(0, str(Path(__file__).parent / "gates"))

from recorded_run import RUN, recorded

from steelyard import cli
from steelyard.reports.facts import Facts
from warehouse.facts import BUNDLE
from warehouse.publish import publish
from warehouse.store import Store


def write(store: Store, facts: Facts) -> None:
    store.write([facts.study], *(getattr(facts, field) for field in BUNDLE))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("recorded")
    with Store.open(home / "warehouse.duckdb") as store:
        write(store, recorded())
        publish(store, home / "published")
    return home


@pytest.fixture
def home(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(template, tmp_path / "var", symlinks=True)
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "var"))
    return tmp_path / "var"


@pytest.fixture
def edit(home: Path) -> Iterator[Callable[[str], None]]:
    """Runs one statement on the snapshot, as somebody with a write connection would."""
    snapshot = home / "published" / "steelyard.duckdb"
    snapshot.chmod(0o644)

    def run(sql: str) -> None:
        with duckdb.connect(snapshot) as connection:
            connection.execute(sql)

    return run


def test_an_untouched_run_agrees_while_another_process_holds_the_live_file(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(home / "warehouse.duckdb"):
        assert cli.main(["recompute"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.startswith(f"{RUN}  complete, written by Steelyard 0.1.0 (no checkout)\n")
    assert "differences" in shown.out.splitlines()[1]
    assert "bit for bit" in shown.out.splitlines()[-1]
    assert not list(home.glob("*.wal"))


def test_a_run_by_name_and_as_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recompute", RUN, "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["run_id"], found["agrees"], found["differences"]) == (RUN, True, [])
    assert found["tables"]["trials"]["rows"] == len(recorded().trials)
    assert found["tables"]["verdicts"]["as_stored"] == ["decided_at"]
    assert all(each["differences"] == 0 for each in found["tables"].values())


def test_an_edited_verdict_ends_with_3_and_is_named(
    edit: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    edit("UPDATE verdicts SET verdict = 'promote' WHERE arm = 'known-bad'")
    assert cli.main(["recompute"]) == 3
    shown = capsys.readouterr().out
    assert "verdicts, arm known-bad: verdict is stored as 'promote', recomputed 'reject'." in shown
    assert shown.splitlines()[-1].startswith("1 difference: ")
    assert cli.main(["recompute", "--json"]) == 3
    [found] = json.loads(capsys.readouterr().out)["differences"]
    assert (found["table"], found["key"], found["column"]) == ("verdicts", "arm known-bad", "verdict")
    assert (found["stored"], found["recomputed"]) == ("promote", "reject")
    assert found["sentence"].startswith("verdicts, arm known-bad")


def test_many_differences_are_cut_on_screen_and_whole_as_json(
    edit: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    edit("UPDATE comparisons SET estimate = estimate * 1.01")
    assert cli.main(["recompute"]) == 3
    assert "more; --json gives all of them." in capsys.readouterr().out
    cli.main(["recompute", "--json"])
    assert len(json.loads(capsys.readouterr().out)["differences"]) > 50


def test_moments_and_days_survive_as_json(edit: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    edit("UPDATE studies SET study_json = replace(study_json, '\"seed\":7', '\"seed\":9')")
    edit("UPDATE prices SET dated = DATE '2020-01-01' WHERE used")
    assert cli.main(["recompute", "--json"]) == 3
    named = {each["column"] for each in json.loads(capsys.readouterr().out)["differences"]}
    assert {"seed", "study_digest"} <= named


def test_another_snapshot_than_the_state_folders(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.duckdb"
    shutil.copy(home / "published" / "steelyard.duckdb", kept)
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "empty"))
    assert cli.main(["recompute"]) == 2
    assert "There is no run yet." in capsys.readouterr().err
    assert cli.main(["recompute", "--snapshot", str(kept)]) == 0
    assert cli.main(["recompute", "--snapshot", str(tmp_path / "none.duckdb")]) == 2
    assert "none.duckdb" in capsys.readouterr().err


def test_an_unknown_run_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recompute", "never-ran"]) == 2
    assert "There is no run never-ran." in capsys.readouterr().err


def test_a_snapshot_of_an_older_steelyard_is_read(
    edit: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for table, column in (("suites", "empty"), ("studies", "driver_version"), ("prices", "place")):
        edit(f"ALTER TABLE {table} DROP COLUMN {column}")
    assert cli.main(["recompute"]) == 0
    assert "note: suites: empty not compared" in capsys.readouterr().out
