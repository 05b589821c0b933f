"""What a night does with a study: every rule by itself, and in which order they hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from steelyard.nightly.plan import Known, decide, in_order

NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)


def decided(*, left_s: float = 3600, first: bool = False, **known: Any) -> tuple[str, str]:
    valid = {"valid_run": "r1", "valid_since": NOW - timedelta(hours=1), "needs_s": 600.0}
    found = decide(
        Known(study="s", **{**valid, **known}), now=NOW, deadline=NOW + timedelta(seconds=left_s), valid_for_s=64800,
        first=first,
    )  # fmt: skip
    return found.what, found.reason


def test_what_is_valid_and_unchanged_is_left() -> None:
    assert decided() == ("skip", "run r1 began 1 h ago, and nothing changed")


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"valid_run": None, "valid_since": None}, "no complete run"),
        ({"valid_since": NOW - timedelta(hours=19)}, "19 h old"),
        ({"changed": ("driver_version", "weights of bf16")}, "driver_version, weights of bf16"),
        ({"incidents": 1}, "an incident waits"),
        ({"incidents": 2}, "2 incidents wait"),
    ],
)
def test_what_runs_it(known: dict[str, Any], reason: str) -> None:
    what, why = decided(**known)
    assert what == "run"
    assert reason in why


def test_an_unfinished_run_is_resumed_also_if_another_is_valid() -> None:
    assert decided(unfinished="r2") == ("resume", "run r2 has not ended")


def test_what_does_not_fit_is_put_off_unless_nothing_ran_before() -> None:
    old = {"valid_since": NOW - timedelta(days=1)}
    assert decided(left_s=599, **old) == ("put off", "it needs about 10 min, and 10 min of the budget are left")
    assert decided(left_s=599, first=True, **old)[0] == "run"
    assert decided(left_s=0, first=True, **old) == ("put off", "the night's budget is spent")
    # What nobody has timed is begun: the deadline stops it.
    assert decided(left_s=599, needs_s=None, valid_run=None)[0] == "run"
    # A valid study is left, and not put off: it would come first tomorrow for nothing.
    assert decided(left_s=0)[0] == "skip"
    # What was begun is gone on with, or it would never end.
    assert decided(left_s=60, unfinished="r2", needs_s=9999)[0] == "resume"


def test_order() -> None:
    found = ["a", "b", "c", "d", "e"]
    assert in_order(found, wanted=[], put_off=[]) == found
    assert in_order(found, wanted=["d", "gone"], put_off=["e", "b"], waiting=["c"]) == ["c", "e", "b", "d", "a"]
