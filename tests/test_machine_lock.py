"""Locks: who holds one is named, what a killed process left is recognised, and two GPUs do not wait for each other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steelyard import machine_lock
from steelyard.errors import InfrastructureError
from steelyard.machine_lock import MachineLock, accelerator_locks, accelerators, is_free

HOLD = """
import sys, time
from pathlib import Path
from steelyard.machine_lock import MachineLock
with MachineLock(Path(sys.argv[1]), "the thing") as lock:
    if "child" in sys.argv:
        import os
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def holding(path: Path, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), *more], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith("held"):
        assert line, "it ended"
    return process


def test_the_holder_is_named_and_a_killed_one_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert is_free(path)
    process = holding(path)
    try:
        assert not is_free(path)
        with (
            pytest.raises(InfrastructureError, match=f"the thing .*pid {process.pid} since"),
            MachineLock(path, "the thing"),
        ):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert is_free(path)
    with MachineLock(path, "the thing") as lock:
        assert lock.stale is not None
        assert f"pid {process.pid}" in lock.stale
        assert json.loads(path.read_text())["pid"] == os.getpid()
    with MachineLock(path, "the thing") as lock:
        assert lock.stale is None


def test_a_child_that_a_killed_holder_left_behind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    process = holding(path, "child")
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = [pid for pid in machine_lock.holders(path) if pid != os.getpid()]
    try:
        assert len(left) == 1
        with pytest.raises(InfrastructureError, match=f"which is gone.*{left[0]}"), MachineLock(path):
            pass
    finally:
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def test_it_waits_and_tells_for_whom(tmp_path: Path) -> None:
    path, told = tmp_path / "a.lock", list[str]()
    process = holding(path)

    def tell(text: str) -> None:
        told.append(text)
        process.kill()

    try:
        with MachineLock(path, "the thing", wait_s=20, tell=tell):
            assert len(told) == 1
            assert f"pid {process.pid}" in told[0]
    finally:
        process.kill()
        process.communicate()
    began = time.monotonic()
    with MachineLock(path), pytest.raises(InfrastructureError), MachineLock(path, wait_s=0.6):
        pass
    assert time.monotonic() - began >= 0.6


def test_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_lock, "gpu_uuids", lambda: ["GPU-aa", "GPU-bb", "GPU-cc"])
    assert accelerators("cpu", "0") == ["cpu"]
    assert accelerators("cuda") == ["GPU-aa", "GPU-bb", "GPU-cc"]
    assert accelerators("cuda", "2,0") == ["GPU-cc", "GPU-aa"]
    assert accelerators("cuda", "GPU-b") == ["GPU-bb"]
    # What nobody understands locks everything, and never nothing.
    assert accelerators("cuda", "MIG-1") == ["GPU-aa", "GPU-bb", "GPU-cc"]
    monkeypatch.setattr(machine_lock, "gpu_uuids", list)
    assert accelerators("cuda", "0") == ["cuda"]


def test_nights_on_different_gpus_run_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr(machine_lock, "gpu_uuids", lambda: ["GPU-aa", "GPU-bb"])
    with accelerator_locks("cuda", "0"), accelerator_locks("cuda", "1"), accelerator_locks("cpu"):
        pass
    with accelerator_locks("cuda", "1"):
        with pytest.raises(InfrastructureError, match="accelerator GPU-bb"), accelerator_locks("cuda"):
            pass
        # The first of the two that was to be held was given back.
        assert is_free(tmp_path / "locks" / "GPU-aa.lock")
    with accelerator_locks("cuda"):
        pass


def test_a_lock_that_cannot_be_opened_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="cannot be opened"), MachineLock(tmp_path / "file" / "a.lock"):
        pass
