"""The view against the rule: whatever `expiry_problems` says of a promotion, the view says in SQL."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from steelyard.gates.expiry import Standing, expiry_problems
from steelyard.records import ArmRow, StudyRow, VerdictRow
from warehouse.publish import publish
from warehouse.store import Store

ARM = "int8"


def state(store: Store, run: str = "run-1") -> tuple[str, str | None]:
    frame = store.query(
        "SELECT state, expired_because FROM promotions_in_force WHERE run_id = ? AND arm = ?", [run, ARM]
    )
    assert len(frame) == 1
    return frame.state[0], frame.expired_because[0]


def rule(store: Store) -> list[str]:
    def standing(run: str) -> Standing:
        [study] = store.read(StudyRow, run_id=run)
        verdicts = store.read(VerdictRow, run_id=run)
        return Standing(study=study, arms=store.read(ArmRow, run_id=run), verdicts=verdicts)

    return expiry_problems(ARM, then=standing("run-1"), now=standing("run-2"))


def later(store: Store, rows_of: Callable[..., Any], rows: Any, verdict: str = "inconclusive") -> Any:
    """A newer complete run that promotes nothing."""
    found = rows_of("run-2", rows.study.started_at + timedelta(days=1))
    verdicts = [dataclasses.replace(row, verdict=verdict) for row in found.verdicts]
    found = dataclasses.replace(found, verdicts=verdicts, promotions=[])
    store.write(found.all())
    return found


def test_a_promotion_holds_while_nothing_changed(filled: Store, rows: Any, rows_of: Callable[..., Any]) -> None:
    assert state(filled) == ("in force", None)
    later(filled, rows_of, rows)
    assert rule(filled) == []
    assert state(filled) == ("in force", None)
    seen = filled.query("SELECT * FROM promotions_in_force").iloc[0]
    assert (seen.checked_run_id, seen.latest_verdict, seen.lever) == ("run-2", "inconclusive", "quantization")


STUDY_CHANGES: list[dict[str, Any]] = [
    {"policy_digest": "f" * 64}, {"driver_version": "580.1"}, {"accelerator": "H200"}, {"platform": "Linux 7"},
    {"cpu_model": None}, {"packages_json": '{"torch":"2.10"}'}, {"packages_json": '{"dagster":"2"}'},
    {"hostname_digest": "f" * 12}, {"study_digest": "f" * 64}, {"steelyard_version": "9"},
]  # fmt: skip
ARM_CHANGES: list[dict[str, Any]] = [
    {"engine_version": "2", "deployment_digest": "f" * 64}, {"weights_digest": "f" * 64, "deployment_digest": "f" * 64},
    {"weights_digest": None}, {"deployment_digest": "f" * 64}, {"status": "failed"}, {"deployment_digest": None},
    {"engine": "vllm"}, {"note": "another note"}, {"start_s": 99.0},
]  # fmt: skip


@pytest.mark.parametrize("changes", STUDY_CHANGES, ids=str)
def test_view_and_rule_agree_on_the_machine_and_the_policy(
    changes: dict[str, Any], filled: Store, rows: Any, rows_of: Callable[..., Any]
) -> None:
    newer = later(filled, rows_of, rows)
    filled.write([dataclasses.replace(newer.study, **changes)])
    expired = bool(rule(filled))
    assert state(filled)[0] == ("expired" if expired else "in force")
    assert expired == (not set(changes) & {"hostname_digest", "study_digest", "steelyard_version"}
                       and changes != {"packages_json": '{"dagster":"2"}'})  # fmt: skip


@pytest.mark.parametrize("arm", [ARM, "baseline", "broken"])
@pytest.mark.parametrize("changes", ARM_CHANGES, ids=str)
def test_view_and_rule_agree_on_what_is_served(
    arm: str, changes: dict[str, Any], filled: Store, rows: Any, rows_of: Callable[..., Any]
) -> None:
    newer = later(filled, rows_of, rows)
    filled.write([dataclasses.replace(row, **changes) for row in newer.arms if row.arm == arm])
    expired = bool(rule(filled))
    assert state(filled)[0] == ("expired" if expired else "in force")
    assert expired == (arm != "broken" and not set(changes) & {"note", "start_s"})


@pytest.mark.parametrize("verdict", ["promote", "inconclusive", "reject", "void"])
def test_view_and_rule_agree_on_later_verdicts(
    verdict: str, filled: Store, rows: Any, rows_of: Callable[..., Any]
) -> None:
    later(filled, rows_of, rows, verdict)
    assert (state(filled)[0] == "expired") == bool(rule(filled)) == (verdict == "reject")


def test_an_arm_that_left_the_study(filled: Store, rows: Any, rows_of: Callable[..., Any]) -> None:
    newer = later(filled, rows_of, rows)
    filled.replace_run("run-2", ArmRow, [row for row in newer.arms if row.arm != ARM])
    assert rule(filled) == [f"{ARM} is no longer in the study"]
    assert state(filled) == ("expired", "arm or baseline no longer serves")


def test_the_newest_promotion_of_an_arm_is_the_one(filled: Store, rows: Any, rows_of: Callable[..., Any]) -> None:
    filled.write(rows_of("run-2", rows.study.started_at + timedelta(days=1)).all())
    assert state(filled) == ("expired", "promoted again by run run-2")
    assert state(filled, "run-2") == ("in force", None)
    assert filled.scalar("SELECT count(*) FROM promotions_in_force WHERE state = 'in force'") == 1


@pytest.mark.parametrize("status", ["running", "void", "failed"])
def test_only_complete_runs_count(status: str, filled: Store, rows: Any, rows_of: Callable[..., Any]) -> None:
    newer = later(filled, rows_of, rows)
    filled.write([dataclasses.replace(newer.study, status=status, policy_digest="f" * 64)])
    assert state(filled) == ("in force", None)
    filled.write([dataclasses.replace(rows.study, status=status)])
    assert state(filled) == ("expired", "the study has no complete run")


def test_other_studies_do_not_count_and_the_snapshot_has_it(filled: Store, tmp_path: Any, study_of: Any) -> None:
    filled.write([study_of("other-1", study="other", policy_digest="f" * 64)])
    assert state(filled) == ("in force", None)
    publish(filled, tmp_path / "published")
    with Store.open_published(tmp_path / "published" / "steelyard.duckdb") as snapshot:
        assert state(snapshot) == ("in force", None)
