"""What is not needed is not measured, and what was measured is not lost to an engine that need not serve."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import fake_study
import pytest
from fake_study import write_fake_study

from assets import measuring
from assets.contracts import TIMED, must_have_rows
from assets.evaluating import measure_suites
from assets.measuring import arms_left, measure_divergence, measure_trials, start_engines
from assets.session import Session
from steelyard.errors import CrashedAtStart
from steelyard.records import ArmRow, StudyRow
from steelyard.study_file import LoadedStudy, load_study

WRONG = {"wrong_share": 0.6, "unsafe_share": 0.6}


def study(folder: Path, *, early: bool = True, **changes: object) -> LoadedStudy:
    bad = {**fake_study.STUDY["candidates"][0], "args": WRONG}
    fast = {"engine": "fake", "args": {"answers_file": fake_study.ANSWERS, "ttft_s": 0.001, "itl_s": 0.0}}
    given: dict[str, Any] = {
        "batch": 40,
        "baseline": fast,
        "candidates": [bad],
        "policy": {**fake_study.POLICY, "stop_early": early},
    }
    return load_study(write_fake_study(folder, **{**given, **changes}))


def evaluated(session: Session, loaded: LoadedStudy) -> StudyRow:
    run = session.begin(loaded)
    start_engines(session, loaded, run)
    measure_divergence(session, loaded, run)
    measure_suites(session, loaded, run)
    return run


def test_where_every_arm_is_rejected_nobody_is_timed_and_that_breaks_no_contract(
    session: Session, tmp_path: Path
) -> None:
    loaded = study(tmp_path / "study")
    run = evaluated(session, loaded)
    measure_trials(session, loaded, run)
    assert session.store.done_trials(run.run_id) == set()
    assert not any(must_have_rows(session, loaded, run, table) for table in TIMED)
    assert must_have_rows(session, loaded, run, "suites")


def test_where_trials_are_wanted_and_missing_the_contract_is_broken(session: Session, tmp_path: Path) -> None:
    loaded = study(tmp_path / "study", candidates=fake_study.STUDY["candidates"][:1])
    run = evaluated(session, loaded)
    assert all(must_have_rows(session, loaded, run, table) for table in TIMED)


def test_a_resumed_run_does_not_start_who_needs_nothing_more(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control that was refused by its suites must stay refused, also if its engine does not come up again."""
    loaded = study(tmp_path / "study", candidates=[*fake_study.STUDY["candidates"][:1], study_candidate()])
    run = evaluated(session, loaded)
    before = {row.arm: row for row in session.store.read(ArmRow, run_id=run.run_id)}
    left = arms_left(session, loaded, run)
    assert {"baseline", "batching", "identity"} <= left
    assert not {"known-bad", "hopeless"} & left
    session.close_engines()
    started: list[str] = []
    real = measuring.arm_row

    def counted(run_id: str, arm: Any, ready: Any, engine: Any, error: str | None) -> ArmRow:
        started.append(arm.name)
        if arm.name in ("known-bad", "hopeless"):
            raise CrashedAtStart("It cannot.", remedy="None.", arm=arm.name)
        return real(run_id, arm, ready, engine, error)

    monkeypatch.setattr(measuring, "arm_row", counted)
    start_engines(session, loaded, run)
    assert sorted(started) == ["baseline", "batching", "identity"]
    after = {row.arm: row for row in session.store.read(ArmRow, run_id=run.run_id)}
    for arm in ("known-bad", "hopeless"):
        assert after[arm] == dataclasses.replace(before[arm], start_s=after[arm].start_s)
    measure_trials(session, loaded, run)
    assert {
        arm for arm, _, _ in measuring.trials_left(measuring.Evidence(session, loaded, run), session, loaded, run)
    } == set()


def study_candidate() -> dict[str, Any]:
    return {**fake_study.STUDY["candidates"][0], "name": "hopeless", "args": WRONG}
