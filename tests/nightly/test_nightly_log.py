"""The log of a night comes back as it was written, and a broken one does not stop the next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from steelyard.nightly import log
from steelyard.nightly.log import Night, Step

NOW = datetime(2026, 11, 23, 2, 0, 0, 5, tzinfo=UTC)


def night(name: str = "20261123-020000", **changes: object) -> Night:
    made = Night(night=name, started_at=NOW, deadline=NOW + timedelta(hours=8))
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    assert log.newest(tmp_path) is None
    step = Step(
        study="chat", decision=log.RUN, reason="new", outcome=log.COMPLETE, started_at=NOW, ended_at=NOW,
        run_id="r", verdicts={"a": "promote"}, tries=1,
    )  # fmt: skip
    written = night(steps=[step, Step(study="b", decision=log.RUN, reason="new")], failures=["x"])
    log.write(tmp_path, written)
    found = log.newest(tmp_path)
    assert found == written
    assert found.step_under_way() == written.steps[1]


def test_the_newest_readable_one_is_found(tmp_path: Path) -> None:
    log.write(tmp_path, night("20261121-020000"))
    log.write(tmp_path, night("20261122-020000"))
    (tmp_path / "20261123-020000.json").write_text('{"night": ')
    (tmp_path / "standing.json").write_text("{}")
    found = log.newest(tmp_path)
    assert found is not None
    assert found.night == "20261122-020000"
    other = log.newest(tmp_path, other_than="20261122-020000")
    assert other is not None
    assert other.night == "20261121-020000"


def test_what_is_to_come_first_next(tmp_path: Path) -> None:
    steps = [
        Step(study="a", decision=log.RUN, reason="", outcome=log.STOPPED),
        Step(study="b", decision=log.SKIP, reason="", outcome=log.LEFT),
        Step(study="c", decision=log.PUT_OFF, reason="", outcome=log.LEFT),
        Step(study="d", decision=log.RUN, reason="", outcome=log.COMPLETE),
        Step(study="d", decision=log.PUT_OFF, reason="", outcome=log.LEFT),
    ]
    assert night(steps=steps).put_off() == ["a", "c", "d"]
