"""What one run holds open: the write connection, the engines and the display.

One object, because their lifetimes are one: engines must be down and rows committed before another run may start,
and a Dagster resource's teardown is the place that runs whatever happened.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType

import dagster as dg

from assets.progress import Progress, Silent
from assets.runs import begin_run
from steelyard.deployments import deployments
from steelyard.engines.base import Deployment
from steelyard.engines.residency import Residents
from steelyard.engines.stale import reap_stale
from steelyard.errors import InfrastructureError, SteelyardError
from steelyard.home import logs_path, run_lock_path, weights_path
from steelyard.machine_lock import MachineLock, accelerator_locks
from steelyard.records import StudyRow
from steelyard.records_profile import PROFILE_ROWS
from steelyard.records_time import WallTimeRow
from steelyard.reports import Contract
from steelyard.study_file import LoadedStudy
from steelyard.wall_time import WALL_TIME, Step
from warehouse.store import Store

PROFILED = frozenset(row_class.TABLE for row_class in PROFILE_ROWS)
"""Tables that decide nothing: a broken contract of theirs is shown, and voids no verdict."""


class Session:
    """The open resources of one process. Everything is made on first use and closed in reverse order.

    `wait_s` is how long it waits for another process that writes to the warehouse; without it that is an error.
    `contracts` and `void_reasons` are by run, because one process may run several studies. `error` is what stopped it.
    """

    def __init__(self, progress: Progress | None = None, *, fresh: bool = False, wait_s: float = 0.0) -> None:
        self.progress: Progress = progress or Silent()
        self.fresh = fresh
        self.wait_s = wait_s
        self.error: BaseException | None = None
        self.contracts: dict[str, dict[str, Contract]] = defaultdict(dict)
        self.void_reasons: dict[str, list[str]] = defaultdict(list)
        self._closing = ExitStack()
        self._engines = ExitStack()
        self._store: Store | None = None
        self._residents: Residents | None = None
        self._holds_accelerator = False
        self._measured: str | None = None
        self._runs: dict[str, str] = {}
        self._deployments: dict[str, tuple[Deployment, ...]] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_engines()
        self._store = None
        self._closing.close()

    @property
    def store(self) -> Store:
        """The write connection. Taking it takes the machine's run lock too, so that no two runs share engines."""
        if self._store is None:
            lock = self._closing.enter_context(MachineLock(run_lock_path(), wait_s=self.wait_s, tell=self.progress.say))
            if lock.stale:
                self.progress.say(f"took over the lock: {lock.stale}")
            self._store = self._closing.enter_context(Store.open())
        return self._store

    def begin(self, loaded: LoadedStudy) -> StudyRow:
        """Begin a run of the study, or resume the one that was killed. Every later step of this process is about it."""
        run = begin_run(self.store, loaded, fresh=self.fresh)
        WALL_TIME.begin(run.run_id)
        self._runs[loaded.study_digest] = run.run_id
        return run

    def run(self, loaded: LoadedStudy) -> StudyRow:
        """The run that `begin` gave, else the latest run of exactly this study, policy and prices.

        Never a run of another digest: evidence gathered under one question must not answer another.
        """
        begun = self._runs.get(loaded.study_digest)
        if begun is not None:
            rows = self.store.read(StudyRow, run_id=begun)
        else:
            rows = self.store.read(StudyRow, study=loaded.study.study, study_digest=loaded.study_digest)
        if not rows:
            raise InfrastructureError(
                f"Study {loaded.study.study} has no run as it stands now.",
                remedy="Materialize the asset `study` first, or launch the whole job.",
            )
        return max(rows, key=lambda row: row.started_at)

    @contextmanager
    def step(self, name: Step, run: StudyRow) -> Iterator[None]:
        """A step of a run; where its time went is stored at its end, also if something stopped it, which is told first
        and whatever becomes of the account.
        """
        with WALL_TIME.step(name, run.run_id):
            try:
                yield
            except BaseException:
                with suppress(SteelyardError):
                    self.keep_time(run)
                raise
            self.keep_time(run)

    def keep_time(self, run: StudyRow) -> None:
        """Store where this process's wall time went up to now."""
        spent, began_at = WALL_TIME.spent(run.run_id), WALL_TIME.began_at
        self.store.write(
            [
                WallTimeRow(run_id=run.run_id, began_at=began_at, step=step, engines=engines, wall_s=wall_s)
                for (step, engines), wall_s in spent.items()
            ]
        )

    def findings(self, run_id: str) -> list[str]:
        """Why this process found the run void: contracts that broke, controls that misbehaved."""
        broken = [each for each in self.contracts[run_id].values() if not each.passed and each.name not in PROFILED]
        return [*self.void_reasons[run_id], *(f"data contract of {each.name}: {each.detail}" for each in broken)]

    @property
    def run_ids(self) -> list[str]:
        """Runs begun by this process."""
        return list(self._runs.values())

    def deployments(self, loaded: LoadedStudy) -> tuple[Deployment, ...]:
        """Every arm made ready to serve."""
        asked = loaded.study_digest
        if asked not in self._deployments:
            self._deployments[asked] = tuple(deployments(loaded, weights_into=weights_path()))
        return self._deployments[asked]

    def residents(self, loaded: LoadedStudy, run_id: str, arms: Sequence[str]) -> Residents:
        """Engines of the given arms, started as the residency policy says; the same object until `close_engines`.

        Those of another study are stopped first: a machine measures one study at a time.
        """
        if self._residents is not None and self._measured != run_id:
            self.close_engines()
        if self._residents is None:
            self._measured = run_id
            self._residents = self.hold(loaded, run_id, [each for each in self.deployments(loaded) if each.arm in arms])
        return self._residents

    def hold(self, loaded: LoadedStudy, run_id: str, ready: Sequence[Deployment]) -> Residents:
        """Engines of these deployments, as the study has them reside; ended with this session's."""
        if not self._holds_accelerator:
            # Engines of other state folders would measure each other as well as this one's.
            visible = (
                ready[0].env.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES")) if ready else None
            )
            self._engines.enter_context(accelerator_locks(loaded.study.hardware.device, visible))
            self._holds_accelerator = True
        residents = Residents(
            ready,
            mode=loaded.study.residency,
            run_log_dir=logs_path() / run_id,
            on_event=self.progress.say,
            start_timeout_s=loaded.study.hardware.start_timeout_s,
        )
        return self._engines.enter_context(residents)

    def close_engines(self) -> None:
        """Stop every engine. Measuring is over, or it failed."""
        self._residents = None
        self._engines.close()
        self._holds_accelerator = False


def session_resource(session: Session | None = None) -> dg.ResourceDefinition:
    """The given session, whose owner settles and closes it; or one of the run's own, settled when it ends."""

    @dg.resource(description="The write connection, the engines and the display of one run.")
    def own(_: dg.InitResourceContext) -> Iterator[Session]:
        from assets.released import settle

        reap_stale()
        with Session() as opened:
            yield opened
            settle(opened)

    return own if session is None else dg.ResourceDefinition.hardcoded_resource(session)
