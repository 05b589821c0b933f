from __future__ import annotations

import threading
import time

import pytest

from steelyard.wall_time import WallTime


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("steelyard.wall_time._age_s", lambda: 7.0)
    return now


def test_every_second_is_in_one_step_and_one_state(clock: list[float]) -> None:
    account = WallTime()
    clock[0] += 50
    account.begin("one")
    with account.step("trials", "one"):
        clock[0] += 1
        with account.engines("starting"):
            clock[0] += 2
        with account.engines("answering"):
            clock[0] += 4
            with account.engines("starting"):
                clock[0] += 8
    clock[0] += 16
    assert account.spent("one") == {
        # What the process did before is its first run's: seven seconds by the kernel's account.
        ("rest", "idle"): 7.0 + 16.0,
        ("trials", "idle"): 1.0,
        ("trials", "starting"): 2.0 + 8.0,
        ("trials", "answering"): 4.0,
    }


def test_of_several_runs_in_a_process_each_has_its_own(clock: list[float]) -> None:
    account = WallTime()
    account.begin("one")
    clock[0] += 5
    account.begin("two")
    clock[0] += 3
    with account.step("trials", "one"):
        clock[0] += 2
    clock[0] += 1
    assert account.spent("one") == {("rest", "idle"): 7.0 + 5.0 + 1.0, ("trials", "idle"): 2.0}
    assert account.spent("two") == {("rest", "idle"): 3.0}


def test_while_an_engine_starts_beside_us_nobody_is_idle(clock: list[float]) -> None:
    account = WallTime()
    clock[0] += 3
    is_up = account.starting_beside()
    clock[0] += 2
    account.begin("one")
    with account.engines("answering"):
        clock[0] += 1
    with account.step("arms", "one"):
        clock[0] += 4
        second = account.starting_beside()
        clock[0] += 1
        is_up()
        clock[0] += 1
        second()
        is_up()
        clock[0] += 5
    assert account.spent("one") == {
        ("rest", "idle"): 5.0,
        ("rest", "starting"): 2.0,
        ("rest", "answering"): 1.0,
        ("arms", "starting"): 6.0,
        ("arms", "idle"): 5.0,
    }


def test_of_a_run_that_had_no_step_here_nothing_is_said(clock: list[float]) -> None:
    account = WallTime()
    clock[0] += 5
    assert account.spent("old") == {}


def test_what_fails_is_counted_and_closed(clock: list[float]) -> None:
    account = WallTime()
    account.begin("one")

    def fail() -> None:
        with account.step("suites", "one"), account.engines("answering"):
            clock[0] += 2
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    clock[0] += 1
    assert account.spent("one") == {("rest", "idle"): 8.0, ("suites", "answering"): 2.0}


def test_another_thread_is_not_heard(clock: list[float]) -> None:
    account = WallTime()
    account.begin("one")
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with account.engines("answering"):
            entered.set()
            leave.wait(5)

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(5)
    clock[0] += 4
    with account.engines("starting"):
        clock[0] += 2
    leave.set()
    thread.join()
    assert account.spent("one") == {("rest", "idle"): 11.0, ("rest", "starting"): 2.0}
