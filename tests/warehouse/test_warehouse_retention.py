"""What goes after N days, and what never does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import InputError
from steelyard.nightly.settings import load_nightly
from steelyard.records import PromotionRow, StudyRow
from steelyard.records_keeping import ThinningRow
from steelyard.records_trials import RequestRow
from warehouse.publish import publish
from warehouse.retention import thin
from warehouse.store import Store


@pytest.fixture
def nights(filled: Store, rows: Any, rows_of: Callable[..., Any]) -> Store:
    """run-1 to run-3, a day apart; only the last has a promotion, so the first two are free to be thinned."""
    for night in (1, 2):
        filled.write(rows_of(f"run-{night + 1}", rows.study.started_at + timedelta(days=night)).all())
    filled.replace_run("run-1", PromotionRow, [])
    filled.replace_run("run-2", PromotionRow, [])
    return filled


def day(rows: Any, days: float) -> Any:
    return rows.study.started_at + timedelta(days=days)


def test_old_good_requests_are_thinned_evenly_and_failed_ones_stay(nights: Store, rows: Any) -> None:
    [done] = thin(nights, after_days=90, keep=0.25, now=day(rows, 90.5))
    left = nights.read(RequestRow, run_id="run-1")
    assert (done.run_id, done.requests, done.kept) == ("run-1", len(rows.requests), len(left))
    failed = [row for row in rows.requests if row.status != "ok"]
    assert failed
    assert [row for row in left if row.status != "ok"] == sorted(
        failed, key=lambda row: (row.trial_id, row.request_index)
    )
    whole = next(trial for trial in rows.trials if trial.failed == 0)
    assert [row.request_index for row in left if row.trial_id == whole.trial_id] == [0, 4]
    assert len(nights.read(RequestRow, run_id="run-2")) == len(rows.requests)


def test_every_other_row_stays(nights: Store, rows: Any) -> None:
    tables = [name for (name,) in nights.query("SELECT table_name FROM duckdb_tables()").itertuples(index=False)]
    kept = [name for name in tables if name not in ("requests", "thinnings", "revisions", "ledger")]
    before = {name: nights.scalar(f"SELECT count(*) FROM {name}") for name in kept}
    thin(nights, after_days=1, keep=0, now=day(rows, 400))
    assert {name: nights.scalar(f"SELECT count(*) FROM {name}") for name in kept} == before


def test_what_a_decision_rests_on_is_never_thinned(nights: Store, rows: Any) -> None:
    running = dataclasses.replace(rows.study, run_id="run-0", status="running", study="other")
    nights.write([running, *rows.trials[:0]], [dataclasses.replace(rows.requests[0], run_id="run-0", trial_id="t")])
    promoted = dataclasses.replace(rows.promotions[0], run_id="run-2")
    nights.write([promoted])
    nights.replace_run("run-3", PromotionRow, [])
    assert nights.query("SELECT run_id, state FROM promotions_in_force").to_numpy().tolist() == [["run-2", "in force"]]
    found = thin(nights, after_days=1, keep=0.1, now=day(rows, 400))
    assert [each.run_id for each in found] == ["run-1"]


def test_the_newest_promotion_of_an_arm_is_not_thinned_the_night_its_engine_fails(nights: Store, rows: Any) -> None:
    nights.write([dataclasses.replace(rows.promotions[0], run_id="run-2")])
    nights.replace_run("run-3", PromotionRow, [])
    failed = [dataclasses.replace(each, run_id="run-3", status="failed") for each in rows.arms]
    nights.replace_run("run-3", type(failed[0]), failed)
    [(state,)] = nights.query("SELECT state FROM promotions_in_force").itertuples(index=False)
    assert state != "in force"
    assert [each.run_id for each in thin(nights, after_days=1, keep=0.1, now=day(rows, 400))] == ["run-1"]


def test_thinning_is_told_and_done_once(nights: Store, rows: Any) -> None:
    now = day(rows, 200)
    found = thin(nights, after_days=90, keep=0.1, now=now)
    assert [each.run_id for each in found] == ["run-1", "run-2"]
    told = {row.run_id: row for row in nights.read(ThinningRow)}
    assert told["run-1"] == ThinningRow(
        run_id="run-1", thinned_at=now, after_days=90, keep=0.1, requests_before=len(rows.requests),
        requests_kept=found[0].kept,
    )  # fmt: skip
    assert thin(nights, after_days=90, keep=0.1, now=now) == []


def test_a_dry_run_changes_nothing(nights: Store, rows: Any) -> None:
    before = nights.read(RequestRow)
    found = thin(nights, after_days=90, keep=0.25, now=day(rows, 90.5), dry=True)
    assert [each.run_id for each in found] == ["run-1"]
    assert nights.read(RequestRow) == before
    [done] = thin(nights, after_days=90, keep=0.25, now=day(rows, 90.5))
    assert abs(found[0].kept - done.kept) <= len(rows.trials)


def test_a_thinned_run_is_published_thinned(nights: Store, rows: Any, tmp_path: Path) -> None:
    folder = publish(nights, tmp_path / "published")
    [done] = thin(nights, after_days=90, keep=0.25, now=day(rows, 90.5))
    publish(nights, folder)
    with Store.open_published(folder / "steelyard.duckdb") as reader:
        assert len(reader.read(RequestRow, run_id="run-1")) == done.kept
        assert len(reader.read(RequestRow, run_id="run-2")) == len(rows.requests)
        assert {row.run_id for row in reader.read(StudyRow)} == {"run-1", "run-2", "run-3"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("retention: {after_days: 0}", r"nightly.yaml:1: retention.after_days: .*at least 1"),
        ("retention: {after_days: 90, keep: 1}", r"nightly.yaml:1: retention.keep: .*less than 1"),
        ("retention: {after_days: 90, keeps: 0.1}", r"nightly.yaml:1: retention.keeps: "),
        ("retention: {keep: 0.1}", r"nightly.yaml:1: retention.after_days: "),
    ],
)
def test_a_policy_that_cannot_be_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "nightly.yaml").write_text(text)
    with pytest.raises(InputError, match=complaint):
        load_nightly(tmp_path / "nightly.yaml")


def test_the_shipped_policy_is_valid() -> None:
    policy = load_nightly(Path(__file__).parents[2] / "studies" / "nightly.yaml")
    assert policy.retention is not None
    assert policy.retention.after_days >= 30
