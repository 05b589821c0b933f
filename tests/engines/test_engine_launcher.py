"""What is started ends: by itself, when told, when Steelyard is killed, and even when it is frozen."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from steelyard.engines.launcher import children, group_members, kill_group, stat_fields
from steelyard.engines.process import close_launchers, engine_env, launcher
from steelyard.engines.stale import reap_stale, start_time, write_record
from steelyard.errors import InfrastructureError


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "home"))
    yield
    close_launchers(idle_only=False)


def start(tmp_path, code, name="arm"):
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return launcher("none").start(arm=name, argv=command, spec={}, env=engine_env({}), log=tmp_path / f"{name}.log")


def wait_for(path: Path, timeout_s: float = 10.0) -> str:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return text
        time.sleep(0.02)
    raise AssertionError(f"{path} never came")


def gone(pids, timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        alive = [pid for pid in pids if (fields := stat_fields(pid)) is not None and fields[0] not in "ZX"]
        if not alive:
            return True
        time.sleep(0.05)
    return False


STUBBORN = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        time.sleep(60)
    print("up", flush=True)
    time.sleep(60)
"""


def test_exit_status_and_log_are_told(tmp_path):
    process = start(tmp_path, "import sys; print('hello'); sys.exit(7)")
    assert process.wait(10) == 7
    assert (tmp_path / "arm.log").read_text() == "hello\n"
    assert group_members(process.pgid) == []


def test_a_signal_is_a_negative_status(tmp_path):
    process = start(tmp_path, "import os; os.kill(os.getpid(), 11)")
    assert process.wait(10) == -signal.SIGSEGV


def test_an_engine_is_in_a_session_of_its_own(tmp_path):
    process = start(tmp_path, "import time; time.sleep(60)")
    fields = stat_fields(process.pgid)
    assert (int(fields[2]), int(fields[3])) == (process.pgid, process.pgid)
    assert process.pgid != os.getpgid(0)
    process.stop(1.0)


def test_stop_is_gentle_first(tmp_path):
    process = start(
        tmp_path,
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), sys.exit(0)))
        print("up", flush=True)
        time.sleep(60)
        """,
    )
    wait_for(tmp_path / "arm.log")
    process.stop()
    assert process.poll() == 0
    assert (tmp_path / "arm.log").read_text() == "up\nbye\n"


def test_what_ignores_sigterm_is_killed_with_its_children(tmp_path):
    process = start(tmp_path, STUBBORN)
    wait_for(tmp_path / "arm.log")
    assert len(group_members(process.pgid)) == 2
    began = time.monotonic()
    process.stop(grace_s=0.3)
    assert process.poll() == -signal.SIGKILL
    assert group_members(process.pgid) == []
    assert 0.25 < time.monotonic() - began < 3


def test_children_do_not_outlive_their_leader(tmp_path):
    process = start(tmp_path, "import os, time\nif os.fork() == 0: time.sleep(60)\nprint('up', flush=True)")
    assert process.wait(10) == 0
    assert group_members(process.pgid) == []


def test_a_frozen_engine_can_be_stopped(tmp_path):
    process = start(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    wait_for(tmp_path / "arm.log")
    kill_group(process.pgid, signal.SIGSTOP)
    process.stop(5.0)
    assert process.poll() == -signal.SIGTERM


PARENT = """
    import os, signal, sys, time
    # A job that a shell put into the background inherits this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from pathlib import Path
    from steelyard.engines.launcher import kill_group
    from steelyard.engines.process import engine_env, launcher
    folder = Path(sys.argv[1])
    code = (folder / "code.py").read_text()
    def start(name):
        return launcher("none").start(
            arm=name, argv=[sys.executable, "-c", code], spec={}, env=engine_env({}), log=folder / f"{name}.log"
        )
    one, two = start("one"), start("two")
    while not all((folder / f"{n}.log").exists() and (folder / f"{n}.log").read_text() for n in ("one", "two")):
        time.sleep(0.02)
    kill_group(two.pgid, signal.SIGSTOP)
    (folder / "up").write_text(f"{one.pgid} {two.pgid} {launcher('none').pid}\\n")
    time.sleep(60)
"""


@pytest.fixture
def orphanable(tmp_path):
    (tmp_path / "code.py").write_text(textwrap.dedent(STUBBORN))
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path)], env=engine_env({})) as parent:
        one, two, launcher_pid = map(int, wait_for(tmp_path / "up").split())
        members = [*group_members(one), *group_members(two)]
        assert len(members) == 4
        yield parent, members, launcher_pid
        for pgid in (one, two):
            kill_group(pgid, signal.SIGKILL)
        parent.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_steelyard_frozen_or_not(orphanable, number):
    parent, members, launcher_pid = orphanable
    parent.send_signal(number)
    parent.wait(10)
    assert gone([*members, launcher_pid])


def test_what_the_killed_launcher_leaves_is_reaped_later(orphanable):
    parent, members, launcher_pid = orphanable
    os.kill(launcher_pid, signal.SIGSTOP)
    parent.kill()
    parent.wait(10)
    os.kill(launcher_pid, signal.SIGKILL)
    assert gone([launcher_pid])
    told = reap_stale()
    assert gone(members)
    assert len(told) == 2, told
    assert reap_stale() == []


def test_a_recycled_process_id_is_never_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as stranger:
        record = write_record(stranger.pid, "arm")
        content = json.loads(record.read_text())
        assert content["started"] == start_time(stranger.pid)
        record.write_text(json.dumps({**content, "started": content["started"] - 100, "parent_started": 1}))
        assert reap_stale() == []
        assert stranger.poll() is None
        assert not record.exists()
        stranger.kill()


def test_engines_of_living_parents_are_left_alone(tmp_path):
    process = start(tmp_path, "import time; time.sleep(60)")
    assert reap_stale() == []
    assert process.poll() is None
    process.stop(1.0)


def test_a_dead_launcher_is_replaced_and_its_engines_are_over(tmp_path):
    process = start(tmp_path, "import time; time.sleep(60)")
    first = launcher("none")
    os.kill(first.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert group_members(process.pgid) == []
    assert launcher("none").pid != first.pid


def test_a_busy_launcher_keeps_its_environment(tmp_path):
    process = start(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(InfrastructureError):
        launcher("none", {"OMP_NUM_THREADS": "1"})
    process.stop(1.0)
    assert launcher("none", {"OMP_NUM_THREADS": "1"}).env == {"OMP_NUM_THREADS": "1"}


def test_closing_leaves_no_child(tmp_path):
    start(tmp_path, "import time; time.sleep(60)")
    pid = launcher("none").pid
    assert pid in children(os.getpid())
    close_launchers()
    assert pid in children(os.getpid()), "a busy launcher is not idle"
    close_launchers(idle_only=False)
    assert pid not in children(os.getpid())


def test_what_changes_measurements_unseen_is_kept_out(monkeypatch):
    for name in ("OMP_NUM_THREADS", "VLLM_ATTENTION_BACKEND", "LD_PRELOAD", "MY_SECRET", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("HF_TOKEN", "t")
    env = engine_env({"OMP_NUM_THREADS": "2"}, {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    assert env["OMP_NUM_THREADS"] == "2"
    assert env["HF_TOKEN"] == "t"
    assert env["VLLM_NO_USAGE_STATS"] == "1"
    assert not {"VLLM_ATTENTION_BACKEND", "LD_PRELOAD", "MY_SECRET", "OPENAI_API_KEY"} & set(env)
