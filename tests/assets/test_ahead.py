from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from assets import ahead


def test_imports_go_on_beside_and_are_done_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def slow() -> None:
        time.sleep(0.2)
        seen["done"] = True

    monkeypatch.setattr(ahead, "_import", slow)
    with ahead.imports_beside():
        assert not seen, "nobody waits for the beginning"
    assert seen, "nothing may run beside what comes next"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is the whole process's")
def test_they_yield_to_whatever_starts_and_what_fails_is_left_to_who_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nice: list[int] = []

    def broken() -> None:
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        raise OSError("no such library")

    monkeypatch.setattr("warehouse.contracts.prepare", broken)
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with ahead.imports_beside():
        pass
    assert nice == [ahead.LATER]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_a_failure_meanwhile_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_import", lambda: time.sleep(5))
    began = time.monotonic()
    with pytest.raises(ValueError, match="no engine"), ahead.imports_beside():
        raise ValueError("no engine")
    assert time.monotonic() - began < 2
