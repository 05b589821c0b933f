"""Steelyard's side of the launcher: start an engine, learn that it ended, stop it, leave nothing behind.

Each engine is the leader of its own session and process group.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from steelyard.engines.launcher import group_members, kill_group, wait_group_gone
from steelyard.engines.scratch import make_scratch, remove_scratch
from steelyard.engines.stale import write_record
from steelyard.errors import CrashedAtStart, InfrastructureError
from steelyard.home import QUIET, logs_path
from steelyard.wall_time import WALL_TIME

GRACE_S = 5.0
PRELOAD_TIMEOUT_S = 120.0

# What would silently change what is measured, or does not belong into an engine's log.
_DROPPED_PREFIXES = (
    "VLLM_",
    "OMP_",
    "KMP_",
    "GOMP_",
    "MKL_",
    "OPENBLAS_",
    "TORCH",
    "PYTORCH_",
    "LD_PRELOAD",
    "MALLOC_",
)
_SECRET_PARTS = ("SECRET", "PASSWORD", "API_KEY", "ACCESS_KEY", "CREDENTIAL")
_KEPT = {"TORCH_HOME"}


class EngineProcess:
    """A started engine. `pgid` is the id of its leader, session and process group."""

    def __init__(self, launcher: LauncherClient, pgid: int, arm: str) -> None:
        self.launcher, self.pgid, self.arm = launcher, pgid, arm
        self.stopping = False
        self._exited = threading.Event()
        self._status: int | None = None
        self._record = write_record(pgid, arm)

    def poll(self) -> int | None:
        """Exit status once the whole group is gone (negative: the signal), None while it runs."""
        return self._status if self._exited.is_set() else None

    def wait(self, timeout_s: float) -> int | None:
        """As `poll`, after waiting for the end."""
        self._exited.wait(timeout_s)
        return self.poll()

    def ended(self, status: int) -> None:
        """The launcher says that the group is gone."""
        self._status = status
        # Before the waiters wake: one that looks for what is left must find nothing.
        self._record.unlink(missing_ok=True)
        self._exited.set()

    def stop(self, grace_s: float = GRACE_S) -> None:
        """SIGTERM, and SIGKILL to the group after `grace_s`. Returns when no process is left in the group."""
        self.stopping = True
        if not self._exited.is_set():
            self.launcher.send(do="stop", pid=self.pgid, grace_s=grace_s)
            self._exited.wait(grace_s + 5.0)
        # The launcher may be dead or slow; what it should have done is done here.
        if group_members(self.pgid) and not self._exited.is_set():
            kill_group(self.pgid, signal.SIGKILL)
            wait_group_gone(self.pgid)
            self.ended(-signal.SIGKILL)


class LauncherClient:
    """One launcher process, `none` or `vllm` preloaded; safe to use from several threads, once it is ready."""

    def __init__(self, preload: Literal["none", "vllm"], env: Mapping[str, str]) -> None:
        self.preload, self.env = preload, dict(env)
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._gone = threading.Event()
        self._answers: dict[int, tuple[threading.Event, dict[str, Any]]] = {}
        self._engines: dict[int, EngineProcess] = {}
        self._early: dict[int, int] = {}
        log = logs_path() / "engines" / f"launcher-{preload}-{os.getpid()}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self.scratch = make_scratch()
        self._started = time.monotonic()
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "steelyard.engines.launcher", preload],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env={**engine_env(env), "TMPDIR": str(self.scratch)},
                start_new_session=True,
            )
        self._up = WALL_TIME.starting_beside()
        threading.Thread(target=self._listen, name=f"launcher-{preload}", daemon=True).start()

    def wait_ready(self) -> None:
        """Wait until it can start engines. Raises InfrastructureError, and ends it, if it does not come up."""
        deadline = self._started + PRELOAD_TIMEOUT_S
        while not self._ready.wait(0.02) and not self._gone.is_set() and time.monotonic() < deadline:
            continue
        if not self.alive:
            self.close()
            raise InfrastructureError(
                f"the launcher of engines ({self.preload}) did not come up.", remedy=f"Its log is {self.log}."
            )

    @property
    def alive(self) -> bool:
        """Whether it can start engines."""
        return self._ready.is_set() and not self._gone.is_set()

    @property
    def gone(self) -> bool:
        """Whether its process has ended."""
        return self._gone.is_set()

    @property
    def pid(self) -> int:
        """Process id of the launcher."""
        return self._process.pid

    @property
    def busy(self) -> bool:
        """Whether engines run that it started."""
        return bool(self._engines)

    def start(
        self, *, arm: str, argv: Sequence[str], spec: Mapping[str, Any], env: Mapping[str, str], log: Path
    ) -> EngineProcess:
        """Start an engine; `argv` is used without, `spec` with preloading. Raises CrashedAtStart if it cannot be."""
        env = {**env, "TMPDIR": str(self.scratch)}
        answer = self._ask("started", 30.0, do="start", argv=list(argv), spec=dict(spec), env=env, log=str(log))
        if answer is None:
            raise CrashedAtStart("The launcher of engines ended.", remedy=f"See {self.log}.", arm=arm)
        with self._lock:
            engine = EngineProcess(self, answer["pid"], arm)
            self._engines[engine.pgid] = engine
            early = self._early.pop(engine.pgid, None)
        if early is not None:
            self._on_exit(engine.pgid, early)
        elif self._gone.is_set():
            engine.stop()
        return engine

    def check(self, cases: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
        """Refusals by arm from the preloaded engine's own parser; None if it could not say."""
        answer = self._ask("checked", 60.0, do="check", cases=list(cases))
        return None if answer is None else answer["answer"].get("refusals")

    def send(self, **command: Any) -> None:
        """Send a command without waiting for an answer."""
        data = json.dumps(command).encode() + b"\n"
        with self._lock, contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def _ask(self, event: str, timeout_s: float, **command: Any) -> dict[str, Any] | None:
        number = next(self._ids)
        answered, answer = threading.Event(), dict[str, Any]()
        self._answers[number] = (answered, answer)
        self.send(id=number, **command)
        deadline = time.monotonic() + timeout_s
        while not answered.wait(0.05) and not self._gone.is_set() and time.monotonic() < deadline:
            continue
        self._answers.pop(number, None)
        return answer if answer.get("event") == event else None

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            with self._process.stdout as events:
                for line in events:
                    self._heard(json.loads(line))
        finally:
            self._up()
            self._gone.set()
            for engine in list(self._engines.values()):
                kill_group(engine.pgid, signal.SIGKILL)
                wait_group_gone(engine.pgid)
                self._on_exit(engine.pgid, -signal.SIGKILL)

    def _heard(self, event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            self._up()
            self._ready.set()
        elif event["event"] == "exited":
            self._on_exit(event["pid"], event["status"])
        elif (waiting := self._answers.get(event["id"])) is not None:
            waiting[1].update(event)
            waiting[0].set()

    def _on_exit(self, pid: int, status: int) -> None:
        with self._lock:
            engine = self._engines.pop(pid, None)
            if engine is None:
                self._early[pid] = status
        if engine is not None:
            engine.ended(status)

    def close(self) -> None:
        """End the launcher and every engine it started."""
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._gone.set()
        remove_scratch(self.scratch)


_clients: dict[str, LauncherClient] = {}
_clients_lock = threading.Lock()


def launcher(preload: Literal["none", "vllm"], env: Mapping[str, str] | None = None) -> LauncherClient:
    """The launcher of that kind of this process, started if need be. Raises InfrastructureError if it will not come up.

    `env` is what must be in the environment while the preload is imported. There is one preloaded launcher at a time,
    so a second environment is refused while the first has engines: it would cost the imports and their memory again.
    """
    client = preload_with(preload, env or {})
    client.wait_ready()
    return client


def preload_with(preload: Literal["none", "vllm"], env: Mapping[str, str]) -> LauncherClient:
    """The same, not waited for: it may still import."""
    asked = dict(env)
    with _clients_lock:
        client = _clients.get(preload)
        if client is not None and not client.gone and client.env != asked and client.busy:
            raise InfrastructureError("the launcher has another environment.", remedy="Start the engine without it.")
        if client is None or client.gone or client.env != asked:
            if client is not None:
                client.close()
            client = _clients[preload] = LauncherClient(preload, asked)
        return client


def running(preload: Literal["none", "vllm"]) -> LauncherClient | None:
    """The launcher of that kind if one is up or on its way, whatever its environment."""
    client = _clients.get(preload)
    if client is None or client.gone:
        return None
    with contextlib.suppress(InfrastructureError):
        client.wait_ready()
    return client if client.alive else None


def close_launchers(*, idle_only: bool = True) -> None:
    """End this process's launchers, by default only those without engines, and give their memory back."""
    with _clients_lock:
        for preload in [each for each, client in _clients.items() if not (idle_only and client.busy)]:
            _clients.pop(preload).close()


@atexit.register
def _close_all() -> None:
    close_launchers(idle_only=False)


_forgotten: list[LauncherClient] = []


def _forget() -> None:
    """In a forked copy of this process: do not speak to the original's launchers, nor hold their input open.

    The descriptors are pointed elsewhere rather than closed, and the objects kept, because closing would take locks
    that a thread which does not exist here may hold.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for client in _clients.values():
        for stream in (client._process.stdin, client._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    os.dup2(null, stream.fileno(), inheritable=False)
    os.close(null)
    _forgotten.extend(_clients.values())
    _clients.clear()


os.register_at_fork(after_in_child=_forget)


def engine_env(asked: Mapping[str, str], defaults: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of an engine: ours without what would change measurements unseen and without secrets, quiet, then
    `defaults`, then what the arm asks for. `HF_TOKEN` stays: gated models need it.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if key in _KEPT or not (key.startswith(_DROPPED_PREFIXES) or any(part in key.upper() for part in _SECRET_PARTS))
    }
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *(part for part in kept.get("PYTHONPATH", "").split(os.pathsep) if part)])
    return {**kept, **QUIET, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(defaults or {}), **asked}
