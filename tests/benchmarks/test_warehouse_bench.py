"""The warehouse bench: its nights are nights, and its page says what it measured."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from benchmarks import warehouse
from benchmarks.warehouse_parts.nights import Nights
from steelyard.records import StudyRow, VerdictRow
from steelyard.records_trials import RequestRow, TrialRow
from warehouse.example import EXAMPLE
from warehouse.store import Store


def test_generated_nights_have_the_shape_of_the_real_one(tmp_path: Path) -> None:
    nights = dict(itertools.islice(Nights(EXAMPLE / "parquet", 1000), 2))
    with Store.open(tmp_path / "w.duckdb") as store:
        store.load(nights)
        first, second = store.read(StudyRow)
        assert (second.started_at - first.started_at).days == 1
        assert store.scalar("SELECT count(*) FROM requests WHERE run_id = ?", [first.run_id]) == 1000
        trials = {row.trial_id for row in store.read(TrialRow, run_id=second.run_id)}
        assert {row.trial_id for row in store.read(RequestRow, run_id=second.run_id)} <= trials
        assert len(store.read(VerdictRow, run_id=first.run_id)) > 10


def test_a_small_bench_says_all_it_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path))
    page = tmp_path / "warehouse.md"
    options = ["--sizes", "2", "--requests", "500", "--rounds", "1", "--page", str(page)]
    assert warehouse.main(options) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in ("ingest_rows_per_s", "publish_s", "views_p95_s", "peak_gib", "bare_duckdb_ratio"):
        assert told[name] > 0, name
    assert (told["nights"], told["requests"]) == (2, 1000)
    text = page.read_text()
    assert "| flips |" in text
    assert "1,000 requests over 2 nights" in text
    assert not (tmp_path / "bench-warehouse").exists()
