"""The process between Steelyard and its engines: starts them, watches them, and outlives nobody.

It runs as `python -m steelyard.engines.launcher PRELOAD`, with PRELOAD `none` or `vllm`, and speaks JSON lines:
commands on standard input, events on standard output. It imports nothing heavy with `none`, so it costs little, and
starts each engine as a new program. With `vllm` it imports vLLM once and forks an engine per command, which saves the
imports (the larger part of a start on a CPU) and shares their memory.

Why a process of its own: it stays outside the engines' process groups, so that stopping a group (SIGSTOP) does not stop
what must clean up; and it sees the end of its input when Steelyard dies in any way, kill -9 included, and then
kills every engine. Orphans of an engine are re-parented to it (PR_SET_CHILD_SUBREAPER) and end with it. If it is itself
killed, the engines' leaders get SIGKILL from the kernel (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PRELOADS = {"none": None, "vllm": "steelyard.engines.vllm_shim"}


def prctl(option: int, value: int) -> None:
    """`prctl(2)`, best effort: outside Linux there is none, and the pipe alone must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that forked it ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Launcher:
    """The loop: commands in, engines up, events out."""

    def __init__(self, module: str | None) -> None:
        self.parent = os.getppid()
        self.commands = os.dup(0)
        self.events = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self.wake_write, False)
        self.deadlines: dict[int, float] = {}
        self.leaders: set[int] = set()
        self.module = importlib.import_module(module) if module else None
        self.ended = False

    def run(self) -> None:
        """Serve commands until the input ends, the parent is gone or SIGTERM comes; then kill every engine."""
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        try:
            if self.module is not None:
                self.module.preload()
                # Objects that live for ever need no garbage collector, and touching them would unshare their pages.
                gc.collect()
                gc.freeze()
            self._send(event="ready")
            self._loop()
        finally:
            self._kill_all()

    def _end(self, *_: object) -> None:
        self.ended = True

    def _loop(self) -> None:
        rest = b""
        while not self.ended and os.getppid() == self.parent:
            readable, _, _ = select.select([self.commands, self.wake_read], [], [], self._patience())
            if self.wake_read in readable:
                os.read(self.wake_read, 4096)
            self._reap()
            self._enforce()
            if self.commands in readable:
                chunk = os.read(self.commands, 1 << 16)
                if not chunk:
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))

    def _patience(self) -> float:
        now = time.monotonic()
        return min([1.0, *(max(0.0, deadline - now) for deadline in self.deadlines.values())])

    def _obey(self, command: dict[str, Any]) -> None:
        if command["do"] == "start":
            self._start(command)
        elif command["do"] == "stop":
            self._stop(command["pid"], command["grace_s"])
        elif command["do"] == "check":
            self._send(event="checked", id=command["id"], answer=self._check(command["cases"]))

    def _send(self, **event: Any) -> None:
        data = json.dumps(event).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self.events, data) :]
        except OSError:
            self.ended = True

    def _start(self, command: dict[str, Any]) -> None:
        log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        led_read, led_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                os.close(led_read)
                self._become_leader(log, command["env"])
                os.close(led_write)
                if self.module is None:
                    os.execve(command["argv"][0], command["argv"], command["env"])
                status = self.module.run(command["spec"])
            except SystemExit as exit_:
                status = exit_.code if isinstance(exit_.code, int) else 1
            except BaseException:  # noqa: BLE001 - a forked child must never unwind into the launcher's loop
                traceback.print_exc()
            finally:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                os._exit(status)
        os.close(log)
        self.leaders.add(pid)
        # "started" promises that the group exists: nobody could stop or freeze it before.
        os.close(led_write)
        os.read(led_read, 1)
        os.close(led_read)
        self._send(event="started", id=command["id"], pid=pid)

    def _become_leader(self, log: int, env: dict[str, str]) -> None:
        signal.set_wakeup_fd(-1)
        for each in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        launcher = os.getppid()
        os.setsid()
        die_with_parent()
        if os.getppid() != launcher:
            os._exit(70)
        for descriptor in (self.commands, self.events, self.wake_read, self.wake_write):
            os.close(descriptor)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.environ.clear()
        os.environ.update(env)

    def _check(self, cases: list[dict[str, Any]]) -> dict[str, Any]:
        module = self.module
        assert module is not None
        return in_fork(lambda: {"refusals": module.check(cases)})

    def _stop(self, pid: int, grace_s: float) -> None:
        if pid not in self.leaders:
            return
        os.kill(pid, signal.SIGTERM)
        # A frozen process takes SIGTERM only once it runs again.
        kill_group(pid, signal.SIGCONT)
        self.deadlines[pid] = time.monotonic() + grace_s

    def _enforce(self) -> None:
        now = time.monotonic()
        for pid in [pid for pid, deadline in self.deadlines.items() if deadline <= now]:
            del self.deadlines[pid]
            kill_group(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.leaders:
                self.leaders.discard(pid)
                self.deadlines.pop(pid, None)
                kill_group(pid, signal.SIGKILL)
                wait_group_gone(pid)
                self._send(event="exited", pid=pid, status=os.waitstatus_to_exitcode(status))

    def _kill_all(self) -> None:
        for pid in self.leaders:
            kill_group(pid, signal.SIGKILL)
        for pid in children(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        # Orphans arrive as their parents die; a second look catches them.
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline and (alive := children(os.getpid())):
            for pid in alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                except OSError:
                    continue


def in_fork(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returns in a forked copy of this process; empty if it raised, with the traceback printed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            data = json.dumps(work()).encode()
            while data:
                data = data[os.write(write, data) :]
        except BaseException:  # noqa: BLE001 - a forked child must never unwind into its parent's code
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        data = stream.read()
    os.waitpid(pid, 0)
    return json.loads(data) if data else {}


def stat_fields(pid: int) -> list[str] | None:
    """Fields of `/proc/PID/stat` from the state on (index 0 is field 3 of proc(5)); None if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def process_ids() -> list[int]:
    """Every process of the machine, as far as this one sees them."""
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdigit()]


def children(pid: int) -> list[int]:
    """Direct children of a process, zombies included."""
    found = {each: stat_fields(each) for each in process_ids()}
    return [child for child, fields in found.items() if fields is not None and int(fields[1]) == pid]


def processes_of(pgid: int) -> dict[int, list[str]]:
    """The processes of a process group, zombies included, each with its `stat_fields`."""
    found = {}
    for pid in process_ids():
        try:
            # One question to the kernel; the text of /proc/PID/stat takes it ten times as long to write.
            inside = os.getpgid(pid) == pgid
        except OSError:
            continue
        if inside and (fields := stat_fields(pid)) is not None and int(fields[2]) == pgid:
            found[pid] = fields
    return found


def group_members(pgid: int) -> list[int]:
    """Living processes of a process group. A zombie is dead once its last thread is: until then it holds its ports."""
    return [pid for pid, fields in processes_of(pgid).items() if fields[0] not in "ZX" or int(fields[17]) > 1]


def group_listens(pgid: int, port: int) -> bool | None:
    """Whether a process of the group listens on that IPv4 TCP port; None where the kernel does not tell."""
    try:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return None
    rows = [line.split() for line in lines]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port}
    for pid in group_members(pgid):
        try:
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                if str(descriptor.readlink()) in sockets:
                    return True
        except OSError:
            continue
    return False


def kill_group(pgid: int, number: int) -> bool:
    """Signal a process group; False if there is none."""
    try:
        os.killpg(pgid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def wait_group_gone(pgid: int, timeout_s: float = 2.0) -> bool:
    """Wait until no living process is left in a group."""
    deadline = time.monotonic() + timeout_s
    while group_members(pgid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


if __name__ == "__main__":
    Launcher(PRELOADS[sys.argv[1]]).run()
