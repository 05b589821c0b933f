"""What goes wrong with one study is told, ends no other's night, and survives a kill until it was told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_study import write_fake_study

from pipelines import nightly
from pipelines.night_child import ChildEnd
from steelyard.errors import InfrastructureError
from steelyard.nightly import log
from steelyard.nightly.log import Night, Step
from steelyard.nightly.settings import nightly_settings
from steelyard.study_file import LoadedStudy, load_study

NOW = datetime.now(UTC)


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedStudy:
    return load_study(write_fake_study(tmp_path / "study"))


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nightly._Night:
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "var"))
    begun = Night(night="20260101-020000", started_at=NOW, deadline=NOW + timedelta(hours=1))
    return nightly._Night(nightly_settings(tmp_path / "nightly.yaml"), begun, lambda _: None)


@pytest.mark.parametrize(
    ("error", "title"),
    [
        (InfrastructureError("Another run holds the warehouse.", remedy="Wait."), "a study could not be run"),
        (ValueError("a defect of ours"), "fake could not be run"),
    ],
)
def test_what_keeps_one_study_from_being_run_ends_no_night(
    night: nightly._Night, loaded: LoadedStudy, monkeypatch: pytest.MonkeyPatch, error: Exception, title: str
) -> None:
    def broken(_: LoadedStudy) -> bool:
        raise error

    monkeypatch.setattr(night, "_turn", broken)
    night._study(loaded)
    [failure] = night.night.failures
    assert failure.startswith(title)
    stored = log.newest(nightly.nights_path())
    assert stored is not None
    [step] = stored.steps
    assert (step.outcome, str(error) in (step.error or "")) == (log.FAILED, True)
    assert stored.put_off() == [loaded.study.study], "the next night begins with it"


def test_until_a_failure_is_told_the_log_says_under_way(
    night: nightly._Night, loaded: LoadedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Step(study=loaded.study.study, decision=log.RUN, reason="", started_at=NOW)
    night.night.steps.append(step)
    night._write()

    def outcome() -> str:
        stored = log.newest(nightly.nights_path())
        assert stored is not None
        return stored.steps[0].outcome

    seen: list[str] = []

    def failing(*_: object) -> ChildEnd:
        seen.append(outcome())
        return ChildEnd(status=4, result=None, error="The engine died.", stopped=False)

    send: Callable[..., None] = night._send

    def watched(events: list[object]) -> None:
        seen.append(f"{outcome()}, {len(events)} told")
        send(events)

    monkeypatch.setattr(nightly, "run_child", failing)
    monkeypatch.setattr(night, "_send", watched)
    night._run(loaded, step)
    assert seen == ["under way", "under way", "under way, 1 told"]
    assert outcome() == log.FAILED
    assert step.tries == nightly.TRIES


def test_after_the_deadline_nothing_is_tried_again(
    night: nightly._Night, loaded: LoadedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    night.night.deadline = NOW - timedelta(seconds=1)
    step = Step(study=loaded.study.study, decision=log.RUN, reason="", started_at=NOW)
    night.night.steps.append(step)
    died = ChildEnd(status=4, result=None, error="The engine died.", stopped=False)
    monkeypatch.setattr(nightly, "run_child", lambda *_: died)
    night._run(loaded, step)
    assert (step.outcome, step.error, step.tries) == (log.FAILED, "The engine died.", 1)
