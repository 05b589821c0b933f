"""Which engines are up at once: all of them, as many as fit, or one at a time.

Interleaved blocks switch arms every few seconds, so engines should stay up together; but two engines that compute at
once measure each other. Resident engines are therefore frozen (SIGSTOP) unless it is their turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal

from steelyard.engines.base import Deployment, Engine
from steelyard.engines.launcher import group_members
from steelyard.engines.probe import check_alive, freeze, memory_bytes, thaw
from steelyard.engines.process import close_launchers
from steelyard.engines.serving import serve
from steelyard.errors import CrashedWhileServing, EngineError, Hung, InputError
from steelyard.wall_time import WALL_TIME, starting_and_ending

Mode = Literal["auto", "resident", "exclusive"]
Event = Callable[[str], None]

STARTS_AT_ONCE = 2
# Left to the client, to caches that grow while serving, and to everybody else on the machine.
RESERVE_BYTES = 2 << 30
GROWTH = 1.15
ALIVE_TIMEOUT_S = 20.0
# vLLM's own default of gpu_memory_utilization.
DEFAULT_SHARE = 0.9

_log = logging.getLogger(__name__)


class Residents:
    """The engines of a study. Use it as a context; leaving it ends every engine, whatever happened.

    `on_event` is told in plain sentences what happens. `failures` holds why an arm is not served. `seen` holds the
    latest engine of every arm that ever answered, also after it was stopped. The first deployment is the baseline: it
    is stopped for another arm's sake only if nothing else is left to stop. Attached engines take no room.
    """

    def __init__(
        self, deployments: Sequence[Deployment], *, mode: Mode, run_log_dir: Path, on_event: Event = _log.info,
        start_timeout_s: float = 180.0,
    ) -> None:  # fmt: skip
        if not deployments:
            raise InputError("There is no deployment to serve.", remedy="Give the study a baseline.")
        self.deployments = {each.arm: each for each in deployments}
        self.baseline = deployments[0].arm
        self.mode = mode
        self.run_log_dir = run_log_dir
        self.start_timeout_s = start_timeout_s
        self.failures: dict[str, EngineError] = {}
        self.seen: dict[str, Engine] = {}
        self._tell = on_event
        self._running: dict[str, tuple[AbstractContextManager[Engine], Engine]] = {}
        self._recent: list[str] = []
        self._restarted: set[str] = set()
        self._used: set[str] = set()
        self._launched = [arm for arm, each in self.deployments.items() if each.engine != "attach"]
        self._needs: dict[str, int | None] = {}
        self._room: int | None = None
        self._reason = ""
        self._decide_beforehand()

    def __enter__(self) -> Residents:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with WALL_TIME.engines("starting"):
            self.stop_all()
            close_launchers()

    @property
    def resident(self) -> bool:
        """Whether engines stay up together: all of them, or as many as fit."""
        return not self.exclusive or (self._room or 1) > 1

    @property
    def exclusive(self) -> bool:
        """Whether using another arm may start its engine anew: not all fit at once, or nobody knows yet."""
        if self.mode == "exclusive":
            return True
        return len(self._launched) > (1 if self._room is None else self._room)

    @property
    def reason(self) -> str:
        """What was chosen and why, in a sentence; complete after `start_all`."""
        return self._reason or "Nothing was started yet."

    @property
    def engines(self) -> dict[str, Engine]:
        """The engines that are up, by arm."""
        return {arm: engine for arm, (_, engine) in self._running.items()}

    def start_all(self) -> dict[str, EngineError]:
        """Start what is to be up together and return why other arms failed. A baseline that fails raises.

        In exclusive mode each arm is started once too, so that a failure and the digest are known before measuring.
        """
        self._begin(self.baseline)
        self._fill([arm for arm in self.deployments if arm != self.baseline])
        if self._reason:
            self._tell(self._reason)
        return dict(self.failures)

    def add(self, deployment: Deployment) -> None:
        """One arm more, started when it is used. Its name must be new."""
        if deployment.arm in self.deployments:
            raise InputError(f"There is an arm {deployment.arm} already.", remedy="Give each arm a name of its own.")
        if not self.deployments:
            self.baseline = deployment.arm
        self.deployments[deployment.arm] = deployment
        if deployment.engine != "attach":
            self._launched.append(deployment.arm)
            if self._needs:
                self._decide()
            elif deployment.device != "cpu":
                self._decide_beforehand()

    def remove(self, arm: str) -> None:
        """End the arm's engine, if it is up, and forget the arm; it can be added again."""
        if arm in self._running:
            self._stop(arm)
        del self.deployments[arm]
        for known in (self._launched, self._recent):
            if arm in known:
                known.remove(arm)
        for seen in (self._restarted, self._used):
            seen.discard(arm)
        self.failures.pop(arm, None)
        if self.baseline == arm and self.deployments:
            self.baseline = next(iter(self.deployments))

    def renew(self, order: Sequence[str]) -> None:
        """Stop all engines and start those of `order` anew, in that order, if any has answered since its start.

        After it all have the same past, whatever each was asked before; engines that somebody else runs keep theirs.
        Where engines take turns all are stopped, and started when they are used. An arm that does not come up is tried
        once more when it is used.
        """
        wanted = [arm for arm in order if arm in self._launched and arm not in self.failures]
        if not wanted or not self._used:
            return
        for arm in self._up():
            self._stop(arm)
        self._used.clear()
        if not self.exclusive:
            self._fill(wanted)
            for arm in wanted:
                self.failures.pop(arm, None)
            self._tell(f"{len(wanted)} engines were started anew, so that none has a longer past than another.")

    def _fill(self, others: Sequence[str]) -> None:
        """Start arms until no more fit at once, and each that is left for a moment; freeze them all."""
        # Attached engines cost nothing; the first of each kind starts alone, because it says what the kind takes.
        tried = set()
        for arm in others:
            if arm not in self._launched or self._unsized(arm):
                tried.add(arm)
                self._try_begin(arm)
        waiting = [arm for arm in others if arm not in tried]
        now = waiting[: max(0, (self._room or 1) - len(self._up()))]
        # What other threads say is not heard by the account.
        with WALL_TIME.engines("starting"), ThreadPoolExecutor(STARTS_AT_ONCE, thread_name_prefix="start") as pool:
            for arm, error in zip(now, pool.map(self._try_start, now), strict=True):
                if error is not None:
                    self._fail(arm, error)
        for arm in now:
            self._observe(arm)
        for engine in self.engines.values():
            freeze(engine)
        for arm in waiting[len(now) :]:
            self._try_begin(arm)
        for engine in self.engines.values():
            freeze(engine)

    @contextmanager
    def use(self, arm: str) -> Iterator[Engine]:
        """The arm's engine, running while every other is frozen or stopped.

        An engine that died or hangs is restarted once in the study's life; after that its error is raised.
        """
        engine = self._awake(arm)
        self._used.add(arm)
        try:
            yield engine
        finally:
            if self._running.get(arm, (None, None))[1] is engine:
                freeze(engine)

    def _awake(self, arm: str) -> Engine:
        if arm not in self.deployments:
            raise InputError(f"There is no arm {arm}.", remedy=f"There are {', '.join(self.deployments)}.")
        if arm in self.failures:
            raise self.failures[arm]
        if arm in self._running:
            engine = self._running[arm][1]
            thaw(engine)
            try:
                check_alive(engine, timeout_s=min(ALIVE_TIMEOUT_S, engine.deployment.max_answer_wait_s))
            except (CrashedWhileServing, Hung) as error:
                self._stop(arm)
                if arm in self._restarted:
                    self.failures[arm] = error
                    raise
                self._restarted.add(arm)
                self._tell(f"{arm} is restarted: {error.message}")
        for other, (_, engine) in self._running.items():
            if other != arm:
                freeze(engine)
        if arm not in self._running:
            try:
                self._begin(arm)
            except EngineError as error:
                self.failures[arm] = error
                raise
        self._touch(arm)
        return self._running[arm][1]

    def _touch(self, arm: str) -> None:
        if arm in self._recent:
            self._recent.remove(arm)
        self._recent.append(arm)

    def _up(self) -> list[str]:
        """Arms whose engine we started and that is up, least recently used first."""
        up = [arm for arm in self._running if arm in self._launched]
        return sorted(up, key=lambda each: self._recent.index(each) if each in self._recent else -1)

    def _make_room(self, arm: str) -> None:
        """Stop the least recently used engine until `arm` fits; the baseline only if nothing else is left to stop."""
        if arm not in self._launched or self._room is None:
            return
        while len(others := [each for each in self._up() if each != arm]) >= self._room:
            victims = [each for each in others if each != self.baseline] or others
            self._tell(f"{victims[0]} makes room for {arm}.")
            self._stop(victims[0])

    def _begin(self, arm: str) -> None:
        """Make room, start, and learn what it takes, unless it is up. Raises EngineError."""
        if arm in self._running:
            return
        self._make_room(arm)
        self._start(arm)
        self._observe(arm)

    def _try_begin(self, arm: str) -> None:
        try:
            self._begin(arm)
        except EngineError as error:
            self._fail(arm, error)

    def _start(self, arm: str) -> Engine:
        serves = serve(self.deployments[arm], run_log_dir=self.run_log_dir, start_timeout_s=self.start_timeout_s)
        context = starting_and_ending(serves)
        engine = context.__enter__()
        self._running[arm] = (context, engine)
        self.seen[arm] = engine
        self._touch(arm)
        self._tell(f"{arm} gave its first token after {engine.start_s:.1f} s.")
        return engine

    def _try_start(self, arm: str) -> EngineError | None:
        try:
            self._start(arm)
        except EngineError as error:
            return error
        return None

    def _fail(self, arm: str, error: EngineError) -> None:
        self.failures[arm] = error
        self._tell(f"{arm} cannot be served: {error.message}")

    def _decide_beforehand(self) -> None:
        """What can be said without starting anything; otherwise the room stays unknown."""
        launched = [self.deployments[arm] for arm in self._launched]
        if self.mode == "exclusive":
            self._room, self._reason = 1, "One engine at a time, as the study asks."
        elif not launched:
            self._room, self._reason = 1, "No engine is started: all of them are run by somebody else."
        elif any(each.device != "cpu" for each in launched):
            share = max(_accelerator_share(each) for each in launched)
            self._settle(max(1, int(0.95 / share)), f"each claims up to {share:.0%} of the accelerator's memory")

    def _unsized(self, arm: str) -> bool:
        """Whether what this arm takes can be learned only by starting one of its kind."""
        each = self.deployments[arm]
        return arm in self._launched and each.device == "cpu" and each.engine not in self._needs

    def _observe(self, arm: str) -> None:
        """Note what a started engine takes, and decide anew if it is the first of its kind or takes more than
        was reckoned with.
        """
        if arm not in self._running or arm not in self._launched:
            return
        engine = self._running[arm][1]
        kind = engine.deployment.engine
        if engine.deployment.device != "cpu" or self.mode == "exclusive":
            return
        known, used = self._needs.get(kind), memory_bytes(engine)
        if kind in self._needs and (used is None or known is None or used <= known * GROWTH):
            return
        self._needs[kind] = used
        self._decide()
        self._make_room(arm)

    def _decide(self) -> None:
        """From the memory of the engines seen so far, how many arms fit at once. A kind not yet seen is taken to be
        as large as the largest.
        """
        import psutil

        sizes = [size for size in self._needs.values() if size is not None]
        if not sizes or None in self._needs.values():
            self._settle(1, "what an engine takes cannot be read on this machine")
            return
        largest = max(sizes)
        available = psutil.virtual_memory().available
        free = available - RESERVE_BYTES

        def takes(arm: str) -> float:
            return (self._needs.get(self.deployments[arm].engine) or largest) * GROWTH

        why = f"the largest takes {largest / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are free"
        up = self._up()
        if sum(takes(arm) for arm in self._launched if arm not in up) <= free:
            self._settle(len(self._launched), why)
        else:
            # By the largest, because whichever arms take turns, any of them may be up together.
            held = sum(takes(arm) for arm in up)
            self._settle(max(1, int((free + held) / (largest * GROWTH) + 1e-9)), why)

    def _settle(self, fits: int, why: str) -> None:
        arms = len(self._launched)
        self._room = min(fits, arms)
        if self._room == arms == 1:
            self._reason = "One engine is started, and it stays up."
        elif self._room == arms:
            self._reason = f"All {arms} engines are resident together, which is faster than starting each anew: {why}."
        elif self._room >= 2:
            self._reason = f"{fits} of {arms} engines are resident at once, the others take turns: {why}."
        else:
            asked = " although the study asks for resident" if self.mode == "resident" else ""
            self._reason = f"One engine at a time{asked}: {why}."

    def _stop(self, arm: str) -> None:
        context, engine = self._running.pop(arm)
        try:
            context.__exit__(None, None, None)
        finally:
            if engine.pgid is not None and group_members(engine.pgid):
                self._tell(f"{arm} left processes behind in group {engine.pgid}.")

    def stop_all(self) -> None:
        """End every engine, several at once."""
        with WALL_TIME.engines("starting"), ThreadPoolExecutor(8, thread_name_prefix="stop") as pool:
            list(pool.map(self._stop, list(self._running)))


def _accelerator_share(deployment: Deployment) -> float:
    """Share of the accelerator's memory that an engine claims when it starts; vLLM's default where none is given."""
    try:
        return float(deployment.args.get("gpu_memory_utilization") or DEFAULT_SHARE) or DEFAULT_SHARE
    except (TypeError, ValueError):
        # Its start names the bad argument.
        return DEFAULT_SHARE
