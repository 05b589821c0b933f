"""`steelyard nightly`: every study in its turn under one budget, resumed after a crash, told only where it matters.

A night decides, waits and tells; it measures nothing. Each study is a process of its own (`night_child`), its run is
stored and judged as any other's, and what must survive a kill is written before it is acted upon: the log of the night
(`steelyard.nightly.log`), the warehouse, the events on their way (`steelyard.nightly.outbox`).
"""

from __future__ import annotations

import json
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from assets.incidents import open_incidents
from assets.released import publish_late
from assets.session import Session
from pipelines.headless import on_stderr, prepare_dagster_home, tell_of_stale
from pipelines.night_child import ChildEnd, run_child
from pipelines.night_known import known_of, newest_ended, note_end, standings, withheld
from pipelines.night_upkeep import upkeep
from pipelines.studies import found_studies, misnamed
from steelyard.durations import shown
from steelyard.errors import InfrastructureError, SteelyardError, StudyVoid
from steelyard.home import metrics_path, nightly_path, nights_path, quiet, snapshot_path, warehouse_path
from steelyard.incidents import told
from steelyard.machine_lock import MachineLock
from steelyard.nightly import log
from steelyard.nightly.channels import channels
from steelyard.nightly.log import Night, Step
from steelyard.nightly.metrics import write_metrics
from steelyard.nightly.news import Event, Standing, changes, failure, of_step, summary
from steelyard.nightly.outbox import Outbox
from steelyard.nightly.plan import Decision, decide, in_order
from steelyard.nightly.settings import Nightly, nightly_settings
from steelyard.records_incidents import IncidentRow
from steelyard.study_file import LoadedStudy
from warehouse.ledger import head_of
from warehouse.store import Store

TRIES = 2
"""A run that the infrastructure failed is tried again once, and resumes; then it is told."""
WAIT_S = 300.0
"""How long the night waits for a person's own run, between two of its studies."""
Tell = Callable[[str], None]


def run_night(*, budget_s: float | None = None, resume: bool = False, silent: bool = False) -> int:
    """One night, or the rest of one that was killed. 0, or the gravest that happened: 3 for void, 4 for a failure.

    With `resume` only a night that was killed and has time left is gone on with; else nothing happens. Raises
    InputError for a settings file that cannot be used, InfrastructureError if another night is under way.
    """
    quiet()
    prepare_dagster_home()
    settings = nightly_settings(nightly_path())
    tell: Tell = (lambda _: None) if silent else on_stderr
    if threading.current_thread() is threading.main_thread():
        # As Ctrl-C does: the run under way is put away, and the night can be resumed.
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with MachineLock(nights_path() / "nightly.lock", "the night"):
        night, abandoned = _begin(settings, budget_s, datetime.now(UTC), resume=resume)
        if night is None:
            tell("No night was interrupted that has time left.")
            return 0
        return _Night(settings, night, tell).run(abandoned)


def plan_night(*, budget_s: float | None = None) -> list[tuple[str, Decision]]:
    """What a night that began now would do, study by study, as far as it can be said beforehand."""
    settings = nightly_settings(nightly_path())
    before, now = log.newest(nights_path()), datetime.now(UTC)
    deadline = now + timedelta(seconds=budget_s or settings.budget_s)
    found, first = [], True
    studies = _chosen(found_studies(), settings)
    with Session() as session:
        for name in _ordered(session.store, studies, settings, before):
            known = known_of(session.store, studies[name])
            decision = decide(known, now=now, deadline=deadline, valid_for_s=settings.valid_for_s, first=first)
            if decision.what not in (log.SKIP, log.PUT_OFF):
                first = False
                now += timedelta(seconds=known.needs_s or 0)
            found.append((name, decision))
    return found


def _begin(
    settings: Nightly, budget_s: float | None, now: datetime, *, resume: bool
) -> tuple[Night | None, Night | None]:
    """The night to go on with or to begin, and the one before if nobody ended it."""
    before = log.newest(nights_path())
    abandoned = None
    if before is not None and before.status == log.UNDER_WAY:
        if now < before.deadline:
            before.resumed += 1
            return before, None
        if not resume:
            before.status = log.ABANDONED
            log.write(nights_path(), before)
            abandoned = before
    if resume:
        return None, None
    deadline = now + timedelta(seconds=budget_s or settings.budget_s)
    return Night(night=f"{now:%Y%m%d-%H%M%S}", started_at=now, deadline=deadline), abandoned


def _chosen(found: Sequence[LoadedStudy], settings: Nightly) -> dict[str, LoadedStudy]:
    return {each.study.study: each for each in found if each.study.study not in settings.skip}


def _ordered(store: Store, studies: dict[str, LoadedStudy], settings: Nightly, before: Night | None) -> list[str]:
    put_off = before.put_off() if before is not None else []
    waiting = [row.study for row in open_incidents(store)]
    return in_order(list(studies), wanted=settings.studies, put_off=put_off, waiting=waiting)


class _Night:
    """One night under way."""

    def __init__(self, settings: Nightly, night: Night, tell: Tell) -> None:
        self.settings, self.night, self._tell = settings, night, tell
        self.folder = nights_path()
        self.outbox = Outbox(self.folder / "events")
        self.channels = channels(settings.notify)
        self.in_force: list[Standing] | None = None
        self.incidents: list[IncidentRow] | None = None
        self.head: str | None = None

    def run(self, abandoned: Night | None) -> int:
        """Every study in its turn, then the upkeep and the digest."""
        before = log.newest(self.folder, other_than=self.night.night)
        self._write()
        if abandoned is not None:
            why = f"The night of {abandoned.started_at:%Y-%m-%d %H:%M} UTC was killed, and nobody resumed it in time."
            self._send([failure("a night was not ended", why, abandoned)])
        try:
            tell_of_stale(self._tell)
            skipped: list[str] = []
            studies = _chosen(found_studies(skipped.append), self.settings)
            for text in skipped:
                self._failed("a study cannot be used", text)
            for name in misnamed([*self.settings.studies, *self.settings.skip]):
                self._failed("nightly.yaml names a study that is not there", f"{name}: correct `studies` or `skip`.")
            with self._session() as session:
                publish_late(session)
                self._close_interrupted(session.store)
                order = _ordered(session.store, studies, self.settings, before)
            self._news()
            for name in order:
                self._study(studies[name])
            for title, text in upkeep(self.settings, self._session):
                self._failed(title, text)
        except SteelyardError as error:
            self._failed("the night failed", str(error))
        except Exception as error:  # noqa: BLE001
            # A defect of ours must reach people as anything else does that keeps a night from its studies.
            traceback.print_exc()
            self._failed("the night failed", f"{type(error).__name__}: {error}")
        self._end()
        return self._status()

    def _study(self, loaded: LoadedStudy) -> None:
        """All turns of a study tonight. What goes wrong with one is told, and keeps the night from no other."""
        name = loaded.study.study
        try:
            while self._turn(loaded):
                pass
        except SteelyardError as error:
            self._not_run(name, str(error))
            self._failed("a study could not be run", str(error))
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            self._not_run(name, f"{type(error).__name__}: {error}")
            self._failed(f"{name} could not be run", f"{type(error).__name__}: {error}")

    def _not_run(self, name: str, why: str) -> None:
        """Note that a study could not be begun or ended; the next night begins with it."""
        step = next((each for each in reversed(self.night.steps) if each.study == name), None)
        if step is None:
            step = Step(study=name, decision=log.PUT_OFF, reason=why.splitlines()[0])
            self.night.steps.append(step)
        if step.outcome == log.UNDER_WAY:
            step.outcome, step.error, step.ended_at = log.FAILED, why, datetime.now(UTC)
        self._write()

    def _turn(self, loaded: LoadedStudy) -> bool:
        """What is next with a study tonight; whether something may follow it."""
        name = loaded.study.study
        done = [step for step in self.night.steps if step.study == name]
        with self._session() as session:
            known = known_of(session.store, loaded)
            mine = {row.run_id for row in open_incidents(session.store, name)}
        now = datetime.now(UTC)
        first = not any(step.started_at for step in self.night.steps)
        if not done:
            decision = decide(
                known, now=now, deadline=self.night.deadline, valid_for_s=self.settings.valid_for_s, first=first
            )
        elif done[-1].outcome == log.COMPLETE and done[-1].decision != log.CONFIRM and done[-1].run_id in mine:
            decision = decide(known, now=now, deadline=self.night.deadline, valid_for_s=0.0, first=False)
            if decision.what != log.PUT_OFF:
                decision = Decision(log.CONFIRM, f"run {done[-1].run_id} opened an incident")
        else:
            return False
        step = Step(study=name, decision=decision.what, reason=decision.reason, run_id=known.unfinished)
        self.night.steps.append(step)
        self._tell(f"{now:%H:%M:%S}  {name}: {decision.what}: {decision.reason}")
        if decision.what in (log.SKIP, log.PUT_OFF):
            step.outcome, step.ended_at = log.LEFT, now
            self._write()
            return False
        step.started_at = now
        self._write()
        self._run(loaded, step)
        return step.outcome == log.COMPLETE

    def _run(self, loaded: LoadedStudy, step: Step) -> None:
        path = self.folder / self.night.night / f"{step.study}-{step.decision.replace(' ', '-')}.log"
        while step.tries < TRIES:
            step.tries += 1
            ended = run_child(loaded.root, path, self.night.deadline)
            self._judge(step, ended)
            if step.outcome != log.FAILED or ended.status == 2 or datetime.now(UTC) >= self.night.deadline:
                break
            self._tell(f"{datetime.now(UTC):%H:%M:%S}  {step.study}: failed, try {step.tries} of {TRIES}")
        step.ended_at = datetime.now(UTC)
        told = ", ".join(f"{arm} {verdict}" for arm, verdict in step.verdicts.items()) or step.error or ""
        self._tell(f"{step.ended_at:%H:%M:%S}  {step.study}: {step.outcome} in {shown(step.wall_s or 0)}: {told}")
        self._news(step)
        # Only now: killed before, the night must find the step under way, try it again and tell of it.
        self._write()

    def _judge(self, step: Step, ended: ChildEnd) -> None:
        """How a run ended, by its exit status and by what it said."""
        step.error = None
        if ended.result is not None and ended.status in (0, StudyVoid.exit_code):
            step.run_id, step.verdicts = ended.result["run_id"], ended.result["verdicts"]
            step.outcome = log.COMPLETE if ended.status == 0 else log.VOID
            step.error = None if ended.status == 0 else ended.error
        elif ended.stopped:
            step.outcome = log.STOPPED
        else:
            step.outcome = log.FAILED
            how = f"signal {-ended.status}" if ended.status < 0 else f"exit {ended.status}"
            step.error = ended.error or f"It ended by {how} and said nothing."

    def _close_interrupted(self, store: Store) -> None:
        """A study that was under way when the night was killed: its run may have ended all the same."""
        step = self.night.step_under_way()
        if step is None:
            return
        run = newest_ended(store, step.study, step.started_at) if step.started_at else None
        if run is None:
            self.night.steps.remove(step)
        else:
            note_end(store, step, run)
            step.ended_at = run.finished_at
            self._send(of_step(self.night, step))
        self._write()

    def _news(self, step: Step | None = None) -> None:
        """Tell what a step did, and which promotions people do not know of or should no longer rely on."""
        self._send(of_step(self.night, step) if step is not None else [])
        if not snapshot_path().is_file():
            return
        told_of, turn = self.outbox.standing()
        with Store.open_published() as store:
            self.in_force, ended = standings(store)
            self.incidents = open_incidents(store)
            head = head_of(store)
            self.head = head.entry if head else None
            if step is not None and step.run_id is not None:
                step.withheld = withheld(store, step.run_id)
        found = changes(told_of, self.in_force, ended, turn)
        self._send(found)
        self.outbox.stand(self.in_force, turn + bool(found))

    def _failed(self, title: str, text: str) -> None:
        line = f"{title}: {text.splitlines()[0] if text else ''}"
        if line in self.night.failures:
            return
        self.night.failures.append(line)
        self._tell(f"{title}: {text}")
        self._send([failure(title, text, self.night)])

    def _send(self, events: Sequence[Event]) -> None:
        """Write events down and deliver what waits. A channel that fails is said here, and nothing else stops."""
        try:
            for event in self.outbox.put(events):
                self._tell(f"told      {event.kind}: {event.title}")
            for why in self.outbox.deliver(self.channels):
                self._tell(why)
        except OSError as error:
            self._tell(f"Events cannot be written down ({error}), and are sent as they are.")
            for event in events:
                for name, send in self.channels.items():
                    self.outbox.give(name, send, event)

    def _end(self) -> None:
        self.night.ended_at, self.night.status = datetime.now(UTC), log.ENDED
        with suppress(SteelyardError, OSError):
            self._news()
        digest = summary(self.night, [told(row) for row in self.incidents or ()], self.in_force or (), self.head)
        if self.settings.notify.digest:
            self._send([digest])
        self._tell(f"\n{digest.title}\n{digest.text}\n")
        told_of = {step.study: step.outcome for step in self.night.steps}
        document = {"night": self.night.night, "studies": told_of, "failures": self.night.failures}
        print(json.dumps(document), flush=True)
        self._write()

    def _write(self) -> None:
        log.write(self.folder, self.night)
        live = warehouse_path()
        write_metrics(
            metrics_path(), self.night, in_force=self.in_force,
            open_incidents=None if self.incidents is None else len(self.incidents), waiting=self.outbox.waiting(),
            warehouse_bytes=live.stat().st_size if live.is_file() else None,
        )  # fmt: skip

    def _session(self) -> Session:
        return Session(wait_s=WAIT_S)

    def _status(self) -> int:
        outcomes = {step.outcome for step in self.night.steps}
        if log.FAILED in outcomes or self.night.failures:
            return InfrastructureError.exit_code
        return StudyVoid.exit_code if log.VOID in outcomes else 0
