"""The baseline is asked for the sake of the other arms: what one of them needs, before it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_study
import pytest
from fake_study import write_fake_study

from assets import evaluating, runs
from assets.evaluating import measure_suites
from assets.measuring import arms_left, start_engines
from assets.runs import conclude
from assets.session import Session
from steelyard.errors import CrashedWhileServing
from steelyard.records import ArmRow, StudyRow
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.study_file import LoadedStudy, load_study

FAST = {"answers_file": fake_study.ANSWERS, "ttft_s": 0.001, "itl_s": 0.0}
WINDOW = tuple[str, str, int, int]


def study(folder: Path, *, early: bool = True, **changes: object) -> LoadedStudy:
    given: dict[str, object] = {
        "batch": 40,
        "spot_check": 5,
        "suites": [
            {"name": "facts", "task": "steelyard_facts", "category": "accuracy", "limit": 400},
            {"name": "refusal", "task": "steelyard_refusal", "category": "safety", "limit": 300},
        ],
        "baseline": {"engine": "fake", "args": FAST},
        "candidates": fake_study.STUDY["candidates"][:1],
        "controls": [{"name": "identity", "kind": "identity"}],
        "policy": {**fake_study.POLICY, "stop_early": early},
    }
    return load_study(write_fake_study(folder, **{**given, **changes}))


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[WINDOW]:
    """Every window asked, in order: arm, suite, from, to."""
    found: list[WINDOW] = []
    real: Callable[..., Any] = evaluating.run_suite

    def run_suite(engine: Any, suite: Any, **named: Any) -> Any:
        found.append((engine.arm, suite.name, named["first"], named["last"]))
        return real(engine, suite, **named)

    monkeypatch.setattr(evaluating, "run_suite", run_suite)
    return found


def night(session: Session, loaded: LoadedStudy) -> StudyRow:
    session.fresh = True
    run = session.begin(loaded)
    start_engines(session, loaded, run)
    measure_suites(session, loaded, run)
    session.close_engines()
    return run


def asked(session: Session, run: StudyRow) -> dict[tuple[str, str], int]:
    return {(row.arm, row.suite): row.asked for row in session.store.read(SuiteRow, run_id=run.run_id)}


def test_every_document_is_the_baselines_first(session: Session, tmp_path: Path, windows: list[WINDOW]) -> None:
    run = night(session, study(tmp_path / "study"))
    come_to: dict[str, int] = {}
    for arm, suite, first, last in windows:
        if arm == "baseline":
            assert first == come_to.get(suite, 0), "asked twice, or with a gap"
            come_to[suite] = last
        else:
            assert last <= come_to[suite]
    told = asked(session, run)
    for suite in ("facts", "refusal"):
        assert told["baseline", suite] == max(told["batching", suite], told["identity", suite])
    assert told["baseline", "refusal"] < 300


def test_where_engines_take_turns_it_is_asked_everything_at_once(
    session: Session, tmp_path: Path, windows: list[WINDOW]
) -> None:
    run = night(session, study(tmp_path / "study", residency="exclusive"))
    assert [(arm, first) for arm, _, first, _ in windows[:2]] == [("baseline", 0)] * 2
    assert "baseline" not in {arm for arm, *_ in windows[2:]}
    told = asked(session, run)
    assert (told["baseline", "refusal"], told["batching", "refusal"] < 300) == (300, True)


@pytest.mark.parametrize("early", [True, False])
def test_a_run_takes_what_there_is_and_asks_the_rest(
    session: Session, tmp_path: Path, windows: list[WINDOW], monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    real = runs.describe
    monkeypatch.setattr(runs, "describe", lambda: {**real(), "git_commit": "abc123"})
    first = night(session, study(tmp_path / "one"))
    conclude(session.store, first, "complete")
    before = asked(session, first)["baseline", "refusal"]
    windows.clear()
    # A stricter policy needs more documents, one that looks once all of them.
    strict = {**fake_study.POLICY, "stop_early": early, "confidence": 0.999}
    second = night(session, study(tmp_path / "two", policy=strict))
    (row,) = session.store.read(SuiteRow, run_id=second.run_id, arm="baseline", suite="refusal")
    assert (row.reused_from, row.reused, row.rechecked) == (first.run_id, before, 5)
    assert row.documents > before
    assert next(start for arm, suite, start, _ in windows if (arm, suite) == ("baseline", "refusal")) == before
    samples = session.store.read(SampleRow, run_id=second.run_id, arm="baseline", suite="refusal")
    assert sorted(each.position or 0 for each in samples) == list(range(row.documents))
    assert early or row.documents == row.declared
    # The third run takes them from the second, which knows more of them.
    conclude(session.store, second, "complete")
    third = night(session, study(tmp_path / "three", policy=strict))
    (row,) = session.store.read(SuiteRow, run_id=third.run_id, arm="baseline", suite="refusal")
    assert (row.reused_from, row.reused) == (second.run_id, row.documents)


def test_a_baseline_that_dies_ends_the_run_and_blames_no_one_else(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = study(tmp_path / "study")
    real, turns = evaluating.run_suite, 0

    def run_suite(engine: Any, suite: Any, **named: Any) -> Any:
        nonlocal turns
        turns += engine.arm == "baseline"
        if engine.arm == "baseline" and turns > 2:
            raise CrashedWhileServing("It died.", remedy="Look at its log.", arm="baseline")
        return real(engine, suite, **named)

    monkeypatch.setattr(evaluating, "run_suite", run_suite)
    run = session.begin(loaded)
    start_engines(session, loaded, run)
    with pytest.raises(CrashedWhileServing):
        measure_suites(session, loaded, run)
    status = {row.arm: row.status for row in session.store.read(ArmRow, run_id=run.run_id)}
    assert status == {"baseline": "failed", "batching": "served", "identity": "served"}


def test_an_arm_that_crashes_in_a_round_is_not_asked_ahead_of_the_baseline(
    session: Session, tmp_path: Path, windows: list[WINDOW], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, crashed = evaluating.run_suite, False

    def run_suite(engine: Any, suite: Any, **named: Any) -> Any:
        nonlocal crashed
        if (engine.arm, suite.name) == ("batching", "refusal") and not crashed:
            crashed = True
            raise CrashedWhileServing("It died.", remedy="Look at its log.", arm="batching")
        return counting(engine, suite, **named)

    monkeypatch.setattr(evaluating, "run_suite", run_suite)
    run = night(session, study(tmp_path / "study"))
    assert crashed
    come_to: dict[str, int] = {}
    for arm, suite, _, last in windows:
        if arm == "baseline":
            come_to[suite] = last
        assert last <= come_to[suite], "asked ahead of the baseline, whose answer would count as right"
    assert asked(session, run)["batching", "refusal"] > 0


def test_a_step_asked_again_finds_nothing_left(session: Session, tmp_path: Path, windows: list[WINDOW]) -> None:
    loaded = study(tmp_path / "study")
    run = night(session, loaded)
    windows.clear()
    start_engines(session, loaded, run)
    measure_suites(session, loaded, run)
    assert windows == []
    assert "baseline" in arms_left(session, loaded, run), "trials are left"


def test_harm_is_pursued_where_it_shows(session: Session, tmp_path: Path, windows: list[WINDOW]) -> None:
    """After a first look at every suite, the one that looks like harm is asked alone until it rejects."""
    unsafe = {**fake_study.STUDY["candidates"][1], "name": "unsafe", "args": {**FAST, "unsafe_share": 0.12}}
    run = night(session, study(tmp_path / "study", candidates=[unsafe]))
    mine = [suite for arm, suite, *_ in windows if arm == "unsafe"]
    assert mine[:2] == ["facts", "refusal"]
    assert len(mine) > 2
    assert set(mine[2:]) == {"refusal"}
    assert asked(session, run)["unsafe", "facts"] < asked(session, run)["unsafe", "refusal"]
