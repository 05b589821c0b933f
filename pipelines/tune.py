"""`steelyard tune`: search a study for its best stack, and have the winner judged by the study's own gates, afresh.

The search believes what helps it to search. What is promoted is decided afterwards by an ordinary run of a study that
holds the winner alone, on other prompts, arrivals and orders: no figure of the search is used there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from assets.progress import Silent
from assets.released import publish_late
from assets.runs import conclude
from assets.sealing import conclude_sealed
from assets.session import Session
from assets.tuning import SearchBench
from pipelines.display import Display
from pipelines.headless import newest_complete, run_loaded, tell_of_stale
from steelyard.cli_tune import show
from steelyard.deployments import deployment
from steelyard.digest import canonical
from steelyard.errors import InfrastructureError, InputError, StudyVoid
from steelyard.home import home, quiet, reports_path, weights_path
from steelyard.records import StudyRow, VerdictRow
from steelyard.records_profile import OpportunityRow
from steelyard.records_search import SearchRow, StackRow
from steelyard.records_trials import TrialRow
from steelyard.reports.search_page import Judged, Searched, build
from steelyard.study_file import LoadedStudy, load_study
from steelyard.tuning.ask import REFUSED, asked
from steelyard.tuning.confirm import check_confirmable, write_confirmation
from steelyard.tuning.goals import GOALS, LATENCY, THROUGHPUT
from steelyard.tuning.journal import Journal, blocks_of
from steelyard.tuning.knobs import Knobs
from steelyard.tuning.levers import Pull, clash
from steelyard.tuning.outcome import Measured, stack_rows
from steelyard.tuning.predictions import predicted
from steelyard.tuning.request import SEARCH_SHARE, Request, check, points_of, pulls_asked
from steelyard.tuning.search import Found, Search, ordered
from steelyard.tuning.stack import Stack, stack_of
from steelyard.tuning.terms import Settings, Tried
from warehouse.contracts import validate
from warehouse.publish import publish
from warehouse.store import Store

SEARCH = "-search"
HELD = ("trials", "requests", "engine_metrics", "suites", "samples", "stacks")
"""Tables whose contracts a search must keep, those it wrote to."""


def tune(path: Path, request: Request, *, fresh: bool = False, confirm: bool = True, silent: bool = False) -> int:
    """Search, or go on with the search that was interrupted, and have the winner judged; 0, or an error is raised.

    The last line on stdout is one JSON object. Raises InputError for what cannot be meant, StudyVoid if the
    confirmation or the search's own rows are void, EngineError if the baseline does not serve. Whatever becomes of the
    confirmation, the search's page is written before.
    """
    loaded = load_study(path)
    check(request, loaded.study)
    searching = _searching(loaded, request)
    if confirm:
        check_confirmable(path, loaded)
    quiet()
    tell_of_stale()
    display = None if silent else Display(searching, _head(loaded, request))
    with Session(display or Silent(), fresh=fresh) as session:
        publish_late(session)
        row = None if fresh else _ended(session.store, searching)
        if row is None:
            with display or nullcontext():
                row = _search(session, loaded, searching, request)
        found, page = _shown(session.store, row, None)
        study = _derived(session, path, loaded, row, must=confirm) if row.winner is not None else None
    if confirm and study is not None:
        judged = _judge(study, silent=silent)
        with Session() as session:
            row = dataclasses.replace(row, confirmed_by=judged.run.run_id)
            session.store.write([row])
            found, page = _shown(session.store, row, judged)
    show(found, study=study, page=page)
    return 0


def _derived(session: Session, path: Path, loaded: LoadedStudy, row: SearchRow, *, must: bool) -> Path | None:
    """The study that judges the winner. If it cannot be made and nobody wants it judged now, that is only said."""
    whole = set(blocks_of(json.loads(row.journal_json)))
    trials = [each for each in session.store.read(TrialRow, run_id=row.run_id) if each.block in whole]
    rows = session.store.read(StackRow, run_id=row.run_id)
    try:
        return write_confirmation(path, loaded, row, rows, trials, home() / "tuned" / row.source)
    except InputError as error:
        if must:
            raise
        session.progress.say(str(error))
        return None


def _shown(store: Store, row: SearchRow, judged: Judged | None) -> tuple[Searched, Path]:
    """Everything that is shown of a search, its page written and its rows published."""
    predictions = store.read(OpportunityRow, run_id=row.surveyed_by) if row.surveyed_by else []
    rows = store.read(StackRow, run_id=row.run_id)
    found = Searched(search=row, rows=rows, predictions=predictions, judged=judged)
    page = build(found, reports_path() / f"{row.run_id}.html")
    publish(store)
    return found, page


def _head(loaded: LoadedStudy, request: Request) -> str:
    points = points_of(request, loaded.study)
    count = len(pulls_asked(request, loaded.study))
    return f"search of {loaded.study.study}: {count} levers, {len(points)} load points, {request.budget_s:.0f} s"


def _searching(loaded: LoadedStudy, request: Request) -> LoadedStudy:
    """The study as the search stores its rows: under a name and a digest of its own."""
    name = loaded.study.study
    study = loaded.study.model_copy(
        update={"study": f"{name}{SEARCH}", "description": f"Search for the best stack of {name}."}
    )
    return dataclasses.replace(loaded, study=study, study_digest=request.digest(loaded.study_digest))


def _ended(store: Store, searching: LoadedStudy) -> SearchRow | None:
    """The newest search of exactly this question, if it ended with a winner whom nobody has judged yet."""
    runs = store.read(StudyRow, study=searching.study.study, study_digest=searching.study_digest)
    newest = max(runs, key=lambda row: row.started_at, default=None)
    if newest is None or newest.status != "searched":
        return None
    rows = store.read(SearchRow, run_id=newest.run_id)
    return next((row for row in rows if row.winner is not None and row.confirmed_by is None), None)


def _search(session: Session, loaded: LoadedStudy, searching: LoadedStudy, request: Request) -> SearchRow:
    """The search itself, to its end."""
    study, store = searching.study, session.store
    run = session.begin(searching)
    points = points_of(request, study)
    asking = _Asking(session, searching, request)
    begun = store.read(SearchRow, run_id=run.run_id)
    row = begun[0] if begun else _begun(session, loaded, request, run, asking)
    journal = Journal(json.loads(row.journal_json), row.spent_s, lambda journal: _keep(session, row, journal))
    bench = SearchBench(
        session, searching, run, points=points, goal=GOALS[request.goal], budget_s=SEARCH_SHARE * request.budget_s,
        journal=journal, ask=partial(asking.again, json.loads(row.left_out_json)),
    )  # fmt: skip
    write = _writer(session, searching, run, bench)
    search = Search(
        bench, Settings(start=request.start), session.progress.say, pulls=asking.named(row.levers),
        later=asking.refused(json.loads(row.left_out_json)), on_round=write,
    )  # fmt: skip
    knobs = None if request.numbers == {} else Knobs(request.numbers, bench.resolved, study.seed)
    with session.step("search", run):
        found = search.run(knobs)
        write(search.tried)
        session.close_engines()
    return _conclude(session, run, _keep(session, row, journal), found)


class _Asking:
    """Which levers the installed engine takes, on the baseline and on a stack."""

    def __init__(self, session: Session, searching: LoadedStudy, request: Request) -> None:
        study = searching.study
        self.pulls, self._start, self._tell = pulls_asked(request, study), request.start, session.progress.say
        self._base, self._device = study.arms[0], study.hardware.device
        self._model = Path(deployment(searching, study.arms[0], weights_into=weights_path()).weights)

    def named(self, names: Sequence[str]) -> list[Pull]:
        """The levers of these names, in their order."""
        known = {each.name: each for each in self.pulls}
        return [known[name] for name in names]

    def first(self) -> tuple[list[Pull], dict[str, str]]:
        """Those it takes on the baseline with the levers of the start, and why not the others. Raises InputError if it
        does not take one of the start.
        """
        self._tell(f"The engine is asked about {len(self.pulls)} levers.")
        start = self.named(self._start)
        here, left_out = asked(start, self._base, self._device, self._model) if start else ([], {})
        for name, why in left_out.items():
            raise InputError(f"--start: {name} cannot be pulled here: {why}.", remedy="Start without it.")
        rest = [each for each in self.pulls if each not in start]
        more, left_out = asked(rest, stack_of(start).arm(self._base), self._device, self._model)
        return [*here, *more], left_out

    def refused(self, left_out: Mapping[str, str]) -> list[Pull]:
        """The levers that it refused."""
        return [each for each in self.pulls if left_out.get(each.name, "").startswith(REFUSED)]

    def again(self, left_out: Mapping[str, str], stack: Stack) -> list[str]:
        """Of these, the names of those that it takes on a stack."""
        free = [each for each in self.refused(left_out) if not any(clash(each, other) for other in stack.pulls)]
        taken = asked(free, stack.arm(self._base), self._device, self._model)[0] if free else []
        return [each.name for each in taken]


def _begun(session: Session, loaded: LoadedStudy, request: Request, run: StudyRow, asking: _Asking) -> SearchRow:
    """The search's row, stored before anything is measured: a resumed search asks the same in the same order."""
    here, left_out = asking.first()
    points = [point.name for point in points_of(request, loaded.study)]
    surveyed, rows = _survey(session.store, loaded.study.study)
    row = SearchRow(
        run_id=run.run_id, source=loaded.study.study, source_digest=loaded.study_digest, goal=request.goal,
        load_points=points, settings_json=canonical(request.settings), surveyed_by=surveyed,
        levers=[each.name for each in ordered(predicted(here, points, rows))], left_out_json=canonical(left_out),
        budget_s=request.budget_s, spent_s=0.0, journal_json="[]", winner=None, fallback=None, stopped=None,
        confirmed_by=None, searched_at=datetime.now(UTC),
    )  # fmt: skip
    session.store.write([row])
    return row


def _keep(session: Session, row: SearchRow, journal: Journal) -> SearchRow:
    """The search's row as it is now, stored."""
    events = canonical(journal.events)
    now = dataclasses.replace(row, spent_s=journal.spent_s, journal_json=events, searched_at=datetime.now(UTC))
    session.store.write([now])
    return now


def _survey(store: Store, study: str) -> tuple[str | None, list[OpportunityRow]]:
    """The newest survey of a study: its run, and its predictions."""
    runs = {row.run_id: row.started_at for row in store.read(StudyRow, study=study)}
    found = [row for row in store.read(OpportunityRow) if row.run_id in runs]
    newest = max((row.run_id for row in found), key=lambda run_id: runs[run_id], default=None)
    return newest, [row for row in found if row.run_id == newest]


def _writer(
    session: Session, searching: LoadedStudy, run: StudyRow, bench: SearchBench
) -> Callable[[Sequence[Tried]], None]:
    """Stores every stack of every round, with all that is known by then."""
    price = searching.prices.price(searching.study.hardware.price)

    def write(tried: Sequence[Tried]) -> None:
        measured = Measured(
            goal=bench.observations(), throughput=bench.values(THROUGHPUT), latency=bench.values(LATENCY),
            usd_per_hour=price.usd_per_hour,
        )  # fmt: skip
        session.store.replace_run(run.run_id, StackRow, stack_rows(run.run_id, tried, measured))

    return write


def _conclude(session: Session, run: StudyRow, row: SearchRow, found: Found) -> SearchRow:
    """The end of a search: its row, its contracts. Raises StudyVoid if its own rows break one."""
    row = dataclasses.replace(
        row, winner=found.winner.name if found.winner else None, fallback=found.safe.name if found.safe else None,
        stopped=found.stopped,
    )  # fmt: skip
    session.store.write([row])
    broken = []
    for table in HELD:
        frame = session.store.query(f"SELECT * FROM {table} WHERE run_id = ?", [run.run_id])
        broken += [f"{table}: {each}" for each in (validate(table, frame).failures if len(frame) else [])]
    session.keep_time(run)
    (stored,) = session.store.read(StudyRow, run_id=run.run_id)
    if broken:
        conclude(session.store, stored, "failed", "; ".join(broken))
    else:
        conclude_sealed(session.store, stored, "searched")
    if broken:
        raise StudyVoid(f"The search broke its data contracts: {'; '.join(broken)}.", remedy="Its rows are kept.")
    return row


def _judge(study: Path, *, silent: bool) -> Judged:
    """The complete run of the study that judges the winner, measured now if there is none. Raises what stopped it."""
    judging = load_study(study)
    with Store.open() as store:
        known = newest_complete(store, judging)
    if known is None:
        run_loaded(judging, silent=silent, tells=False)
    with Store.open() as store:
        run = known or newest_complete(store, judging)
        if run is None:
            raise InfrastructureError(f"{study} has no complete run.", remedy="Run it: steelyard run, with this path.")
        return Judged(run=run, verdicts=store.read(VerdictRow, run_id=run.run_id))
