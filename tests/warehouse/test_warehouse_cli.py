"""`steelyard query`, `export`, `restore` and `thin`, as a person calls them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from steelyard.cli import main
from warehouse.publish import publish
from warehouse.store import Store


@pytest.fixture
def home(filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose warehouse is filled, published and closed."""
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path))
    publish(filled)
    filled.close()
    return tmp_path


def test_a_query_is_a_table_csv_or_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT arm, count(*) AS n, NULL AS nothing FROM trials WHERE block = 0 GROUP BY arm ORDER BY arm"
    assert main(["query", sql]) == 0
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == ["arm", "n", "nothing"]
    assert first.split() == ["again", "2"]
    assert main(["query", sql, "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["arm,n,nothing", "again,2,"]
    assert main(["query", sql, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == {"arm": "again", "n": 2, "nothing": None}


def test_an_answer_is_told_as_it_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets are no markup, every digit is kept, and a day has no midnight."""
    sql = "SELECT 'a [red]b[/INST]' AS text, 3e-12 AS p, DATE '2026-11-21' AS night, 3.0 AS whole"
    assert main(["query", sql]) == 0
    assert capsys.readouterr().out.splitlines()[1].split("  ")[0] == "a [red]b[/INST]"
    assert main(["query", sql, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"text": "a [red]b[/INST]", "p": 3e-12, "night": "2026-11-21", "whole": 3.0}
    ]


def test_a_whole_number_stays_one_beside_null(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT unnest([3, NULL]) AS n, sum(1) AS total, [1, NULL] AS many, DATE '2026-11-23' AS day"
    assert main(["query", sql, "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ['3,1,"[1, null]",2026-11-23', ',1,"[1, null]",2026-11-23']
    assert main(["query", sql, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[1] == {"n": None, "total": 1, "many": [1, None], "day": "2026-11-23"}


def test_a_query_is_read_from_standard_input(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 1 AS one"))
    assert main(["query", "-", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "one\n1\n"


def test_a_query_goes_to_a_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("csv", "json", "table", "parquet"):
        assert main(["query", "SELECT arm FROM arms ORDER BY arm", "--format", form, "--out", str(home / form)]) == 0
    assert capsys.readouterr().out == ""
    assert pd.read_parquet(home / "parquet").arm.tolist() == ["again", "baseline", "broken", "int8"]
    assert main(["query", "SELECT 1", "--format", "csv", "--out", str(home / "no" / "where")]) == 4
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["SELECT * FROM nowhere"], 2, "nowhere"),
        (["DELETE FROM trials"], 2, "one SELECT"),
        (["SELECT 1", "--format", "parquet"], 2, "--format: Parquet is no text"),
        (["SELECT 1", "--snapshot", "/nowhere.duckdb"], 2, "no published warehouse /nowhere.duckdb"),
    ],
)
def test_a_query_that_cannot_be_answered_is_told_in_a_sentence(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, told: str
) -> None:
    assert main(["query", *arguments]) == status
    assert told in capsys.readouterr().err


def test_many_rows_are_counted_and_not_all_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "SELECT * FROM range(300)"]) == 0
    assert "100 more rows; --format csv has all" in capsys.readouterr().out


def test_a_warehouse_is_exported_lost_and_restored(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(home / "out")]) == 0
    assert "1 runs" in capsys.readouterr().out
    (home / "warehouse.duckdb").unlink()
    shutil.rmtree(home / "published")
    assert main(["restore", str(home / "out")]) == 0
    assert "1 runs added (" in capsys.readouterr().out
    assert main(["query", "SELECT count(*) AS n FROM requests", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "n\n192\n"


def test_the_published_folder_itself_restores_a_damaged_live_file(home: Path, capsys: Any) -> None:
    (home / "warehouse.duckdb").write_bytes(b"damaged" * 1000)
    assert main(["thin", "--dry-run"]) == 4
    assert "could not be opened" in capsys.readouterr().err
    (home / "warehouse.duckdb").unlink()
    assert main(["restore", str(home / "published")]) == 0
    assert "1 runs added (" in capsys.readouterr().out


def test_a_study_is_no_place_to_export_to(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "study.yaml").write_text("study: x")
    assert main(["export", str(home)]) == 2
    assert f"steelyard bundle {home}" in capsys.readouterr().err
    assert main(["export", str(home / "out"), "--since", "yesterday"]) == 2
    assert "--since: yesterday is no date" in capsys.readouterr().err


def test_thinning_follows_the_policy(
    home: Path, rows: Any, rows_of: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open() as store:
        store.write(rows_of("run-2", rows.study.started_at + timedelta(days=1)).all())
    policy = home / "nightly.yaml"
    policy.write_text("retention: {after_days: 30, keep: 0.25}")
    assert main(["thin", "--policy", str(policy), "--dry-run"]) == 0
    assert "run-1: 192 requests" in capsys.readouterr().out
    assert main(["thin", "--policy", str(policy)]) == 0
    assert "run-1: 192 requests" in capsys.readouterr().out
    assert main(["thin", "--policy", str(policy)]) == 0
    assert "No run is old enough" in capsys.readouterr().out
    assert main(["query", "SELECT count(*) AS n FROM requests WHERE run_id = 'run-1'", "--format", "csv"]) == 0
    assert int(capsys.readouterr().out.split()[1]) < 96
    policy.write_text("{}")
    assert main(["thin", "--policy", str(policy)]) == 0
    assert "all rows are kept" in capsys.readouterr().out
    assert main(["thin", "--policy", str(home / "nowhere.yaml")]) == 2
