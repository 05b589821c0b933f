"""The baseline's answers of an earlier run stand only for the same question to the same deployment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_study
import pytest
from fake_study import write_fake_study

from assets import evaluating, reuse, runs
from assets.evaluating import measure_suites
from assets.measuring import start_engines
from assets.runs import conclude
from assets.session import Session
from steelyard.records import StudyRow
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.study_file import LoadedStudy, load_study

Asked = list[tuple[str, str, int]]
SPOT = 5


@pytest.fixture(autouse=True)
def committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a checkout without changes, whatever this one has."""
    real = runs.describe
    monkeypatch.setattr(runs, "describe", lambda: {**real(), "git_commit": "abc123"})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Every call of a suite: the arm, `all` or `again`, and the documents."""
    found: Asked = []

    def counting(module: Any, how: str) -> None:
        real: Callable[..., Any] = module.run_suite

        def run_suite(engine: Any, suite: Any, **named: Any) -> Any:
            result = real(engine, suite, **named)
            found.append((engine.arm, how, len(result.samples)))
            return result

        monkeypatch.setattr(module, "run_suite", run_suite)

    counting(evaluating, "all")
    counting(reuse, "again")
    return found


FAST = {"answers_file": fake_study.ANSWERS, "ttft_s": 0.001, "itl_s": 0.0}
SMALL = {
    "spot_check": SPOT,
    "baseline": {"engine": "fake", "args": FAST},
    "candidates": fake_study.STUDY["candidates"][:1],
    "controls": [{"name": "identity", "kind": "identity"}],
    "suites": [
        {"name": "choice", "task": "steelyard_facts_choice", "category": "accuracy", "limit": 24},
        {"name": "refusal", "task": "steelyard_refusal", "category": "safety", "limit": 24},
    ],
}


def fake_study(folder: Path, **changes: object) -> LoadedStudy:
    return load_study(write_fake_study(folder, **{**SMALL, **changes}))


def night(session: Session, loaded: LoadedStudy, status: str = "complete") -> StudyRow:
    session.fresh = True
    run = session.begin(loaded)
    start_engines(session, loaded, run)
    measure_suites(session, loaded, run)
    session.close_engines()
    return conclude(session.store, session.run(loaded), status)


def baseline_of(session: Session, run: StudyRow) -> tuple[list[SuiteRow], list[SampleRow]]:
    return (
        session.store.read(SuiteRow, run_id=run.run_id, arm="baseline"),
        session.store.read(SampleRow, run_id=run.run_id, arm="baseline"),
    )


def of_baseline(asked: Asked, how: str) -> list[int]:
    return [documents for arm, route, documents in asked if (arm, route) == ("baseline", how)]


def test_the_second_night_asks_a_sample_and_takes_the_rest(session: Session, tmp_path: Path, asked: Asked) -> None:
    loaded = fake_study(tmp_path / "study")
    first = night(session, loaded)
    assert of_baseline(asked, "all")
    assert not of_baseline(asked, "again")
    others = [each for each in asked if each[0] != "baseline"]
    asked.clear()
    second = night(session, loaded)
    assert second.run_id != first.run_id
    assert not of_baseline(asked, "all")
    assert of_baseline(asked, "again") == [SPOT] * len(loaded.study.suites)
    # Nobody else's answers are reused: the identity control is the same deployment, and measures the noise.
    assert [each for each in asked if each[0] != "baseline"] == others
    (before, then), (rows, samples) = baseline_of(session, first), baseline_of(session, second)
    assert samples == [dataclasses.replace(each, run_id=second.run_id) for each in then]
    assert [(row.reused_from, row.rechecked, row.changed) for row in rows] == [(first.run_id, SPOT, 0)] * len(rows)
    assert [row.mean_score for row in rows] == [row.mean_score for row in before]
    asked.clear()
    third = night(session, loaded)
    assert {row.reused_from for row in baseline_of(session, third)[0]} == {first.run_id}


def test_every_night_asks_other_documents(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = fake_study(tmp_path / "study")
    night(session, loaded)
    drawn: list[tuple[int, ...]] = []
    real = reuse.run_suite
    monkeypatch.setattr(
        reuse, "run_suite", lambda *given, **named: (drawn.append(tuple(named["only"])), real(*given, **named))[1]
    )
    night(session, loaded)
    night(session, loaded)
    half = len(drawn) // 2
    assert len(drawn) == 2 * len(loaded.study.suites)
    assert drawn[:half] != drawn[half:]


def test_answers_that_changed_are_all_asked_again(session: Session, tmp_path: Path, asked: Asked) -> None:
    loaded = fake_study(tmp_path / "study")
    first = night(session, loaded)
    _, samples = baseline_of(session, first)
    worse = [dataclasses.replace(each, score=1 - (each.score or 0.0)) for each in samples]
    session.store.write(worse)
    asked.clear()
    second = night(session, loaded)
    assert of_baseline(asked, "again")
    assert of_baseline(asked, "all")
    rows, fresh = baseline_of(session, second)
    assert {row.reused_from for row in rows} == {None}
    assert [each.score for each in fresh] == [each.score for each in samples]


@pytest.mark.parametrize(
    "change",
    [{"seed": 99}, {"baseline": {"engine": "fake", "args": {**FAST, "ttft_s": 0.002}}}, {"reuse_baseline": False}],
)
def test_another_question_or_deployment_is_asked(
    session: Session, tmp_path: Path, asked: Asked, change: dict[str, Any]
) -> None:
    night(session, fake_study(tmp_path / "one"))
    asked.clear()
    night(session, fake_study(tmp_path / "two", **change))
    assert not of_baseline(asked, "again")
    assert of_baseline(asked, "all")


def test_a_checkout_with_changes_of_its_own_reuses_nothing(
    session: Session, tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runs.describe
    monkeypatch.setattr(runs, "describe", lambda: {**real(), "git_commit": "abc123-dirty"})
    loaded = fake_study(tmp_path / "study")
    night(session, loaded)
    night(session, loaded)
    assert not of_baseline(asked, "again")


@pytest.mark.parametrize("spoilt", ["void", "machine", "missing", "part"])
def test_what_is_not_whole_or_from_elsewhere_is_not_taken(
    session: Session, tmp_path: Path, asked: Asked, spoilt: str
) -> None:
    loaded = fake_study(tmp_path / "study")
    first = night(session, loaded, "void" if spoilt == "void" else "complete")
    rows, _ = baseline_of(session, first)
    if spoilt == "machine":
        session.store.write([dataclasses.replace(first, hostname_digest="elsewhere")])
    elif spoilt == "missing":
        session.store.write([dataclasses.replace(row, answered=row.answered - 1) for row in rows])
    elif spoilt == "part":
        session.store.write([dataclasses.replace(row, documents=row.documents - 1) for row in rows])
    asked.clear()
    night(session, loaded)
    assert not of_baseline(asked, "again")
