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

Mode = Literal["auto", "resident", "exclusive"]
Event = Callable[[str], None]

STARTS_AT_ONCE = 2
# Left to the client, to caches that grow while serving, and to everybody else on the machine.
RESERVE_BYTES = 2 << 30
GROWTH = 1.15
ALIVE_TIMEOUT_S = 20.0

_log = logging.getLogger(__name__)


class Residents:
    """The engines of a study. Use it as a context; leaving it ends every engine, whatever happened.

    `on_event` is told in plain sentences what happens. `failures` holds why an arm is not served. The first deployment
    is the baseline: it is never stopped for another arm's sake.
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
        self._tell = on_event
        self._running: dict[str, tuple[AbstractContextManager[Engine], Engine]] = {}
        self._recent: list[str] = []
        self._restarted: set[str] = set()
        self._room = 1 if mode == "exclusive" else len(self.deployments)
        self._reason = "" if mode != "exclusive" else "One engine at a time, as the study asks."

    def __enter__(self) -> Residents:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()
        close_launchers()

    @property
    def resident(self) -> bool:
        """Whether engines stay up together."""
        return self._room > 1 and self.mode != "exclusive"

    @property
    def exclusive(self) -> bool:
        """Whether using another arm starts its engine anew."""
        return not self.resident

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
        first = self._start(self.baseline)
        others = [arm for arm in self.deployments if arm != self.baseline]
        self._decide(first)
        now = others[: max(0, self._room - 1)]
        with ThreadPoolExecutor(STARTS_AT_ONCE, thread_name_prefix="start") as pool:
            for arm, error in zip(now, pool.map(self._try_start, now), strict=True):
                if error is not None:
                    self._fail(arm, error)
        for engine in self.engines.values():
            freeze(engine)
        for arm in others[len(now) :]:
            try:
                self._make_room(arm)
                freeze(self._start(arm))
            except EngineError as error:
                self._fail(arm, error)
        return dict(self.failures)

    @contextmanager
    def use(self, arm: str) -> Iterator[Engine]:
        """The arm's engine, running while every other is frozen or stopped.

        An engine that died or hangs is restarted once in the study's life; after that its error is raised.
        """
        engine = self._awake(arm)
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
            self._make_room(arm)
            try:
                self._start(arm)
            except EngineError as error:
                self.failures[arm] = error
                raise
        self._touch(arm)
        return self._running[arm][1]

    def _touch(self, arm: str) -> None:
        if arm in self._recent:
            self._recent.remove(arm)
        self._recent.append(arm)

    def _make_room(self, arm: str) -> None:
        """Stop the least recently used engine until `arm` fits; the baseline only if nothing else is left to stop."""
        while len(self._running) >= self._room:
            order = sorted(self._running, key=lambda each: self._recent.index(each) if each in self._recent else -1)
            victims = [each for each in order if each != self.baseline] or order
            self._tell(f"{victims[0]} makes room for {arm}.")
            self._stop(victims[0])

    def _start(self, arm: str) -> Engine:
        context = serve(self.deployments[arm], run_log_dir=self.run_log_dir, start_timeout_s=self.start_timeout_s)
        engine = context.__enter__()
        self._running[arm] = (context, engine)
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

    def _decide(self, first: Engine) -> None:
        """From the first engine's memory, how many arms fit at once."""
        arms = len(self.deployments)
        used = memory_bytes(first)
        if self.mode == "exclusive":
            return
        if used is None or first.deployment.device != "cpu":
            fits, why = self._fits_elsewhere(first)
        else:
            import psutil

            available = psutil.virtual_memory().available
            fits = 1 + max(0, int((available - RESERVE_BYTES) / (used * GROWTH)))
            why = f"the first takes {used / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are free"
        if fits >= arms:
            self._room = arms
            self._reason = f"All {arms} engines are resident together, which is faster than starting each anew: {why}."
        elif fits >= 2:
            self._room = fits
            self._reason = f"{fits} of {arms} engines are resident at once, the others take turns: {why}."
        else:
            self._room = 1
            asked = " although the study asks for resident" if self.mode == "resident" else ""
            self._reason = f"One engine at a time{asked}: {why}."
        self._tell(self._reason)

    def _fits_elsewhere(self, first: Engine) -> tuple[int, str]:
        """Engines somebody else runs take nothing of ours; on an accelerator each claims its share of the memory."""
        if first.pgid is None:
            return len(self.deployments), "the engines are run by somebody else"
        share = float(first.deployment.args.get("gpu_memory_utilization") or 0.9)
        return max(1, int(0.95 / share)), f"each claims {share:.0%} of the accelerator's memory"

    def _stop(self, arm: str) -> None:
        context, engine = self._running.pop(arm)
        try:
            context.__exit__(None, None, None)
        finally:
            if engine.pgid is not None and group_members(engine.pgid):
                self._tell(f"{arm} left processes behind in group {engine.pgid}.")

    def stop_all(self) -> None:
        """End every engine, several at once."""
        with ThreadPoolExecutor(8, thread_name_prefix="stop") as pool:
            list(pool.map(self._stop, list(self._running)))
