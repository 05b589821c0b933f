"""The commands about published runs: `plan`, `report`, `recompute`, `opportunities`, `serve-promoted`, `bundle`.

Like `cli` this is the composition root (docs/decisions/0001): it reaches up, inside the functions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steelyard.errors import InputError

if TYPE_CHECKING:
    from steelyard.promoted import Promoted
    from steelyard.reports.facts import Facts
    from steelyard.study_file import LoadedStudy
    from warehouse.store import Store

NO_RUN = InputError("There is no run yet.", remedy="Run a study first: steelyard run studies/laptop")


def add_published_commands(commands: Any) -> None:
    """Register the commands with the parser of `cli`."""
    plan = commands.add_parser(
        "plan", help="blocks, documents and minutes a study needs, from the noise of its last run"
    )
    plan.add_argument("study", type=Path, metavar="STUDY", help="folder with study.yaml, or a study file")
    plan.add_argument("--run", metavar="RUN", help="run whose noise is taken; default: the study's newest complete one")
    plan.set_defaults(command=_plan)

    report = commands.add_parser("report", help="write the report of a run as one HTML page")
    report.add_argument("run", nargs="?", metavar="RUN", help="run id; default: the newest")
    report.add_argument("--out", type=Path, metavar="DIR", help="folder to write into; default: the state folder")
    report.set_defaults(command=_report)

    recompute = commands.add_parser("recompute", help="compute a run again from its stored rows, bit for bit")
    recompute.add_argument("run", nargs="?", metavar="RUN", help="run id; default: the newest")
    recompute.add_argument("--json", action="store_true", help="print one JSON object")
    recompute.add_argument(
        "--snapshot", type=Path, metavar="FILE", help="published DuckDB file; default: the one in the state folder"
    )
    recompute.set_defaults(command=_recompute)

    backlog = commands.add_parser(
        "opportunities", help="what to try next: what each lever should bring, and what it did"
    )
    backlog.add_argument("study", type=Path, metavar="STUDY", help="folder with study.yaml, or a study file")
    backlog.add_argument("--json", action="store_true", help="print one JSON array")
    backlog.set_defaults(command=_opportunities)

    served = commands.add_parser("serve-promoted", help="serve what a study promoted, if it still is what was measured")
    served.add_argument("study", type=Path, metavar="STUDY", help="folder with study.yaml, or a study file")
    served.add_argument("--arm", metavar="NAME", help="promoted arm; default: the one that proved the largest gain")
    served.add_argument("--port", type=int, default=8000, help="loopback port to listen on (default: %(default)s)")
    served.set_defaults(command=_serve_promoted)

    bundle = commands.add_parser("bundle", help="write command line, environment and evidence of what was promoted")
    bundle.add_argument("study", type=Path, metavar="STUDY", help="folder with study.yaml, or a study file")
    bundle.add_argument("--arm", metavar="NAME", help="promoted arm; default: the one that proved the largest gain")
    bundle.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write into; default: promoted/STUDY in the state folder"
    )
    bundle.set_defaults(command=_bundle)


def _plan(arguments: argparse.Namespace) -> int:
    from steelyard.study_file import load_study

    loaded = load_study(arguments.study)

    def newest(store: Store) -> str:
        from steelyard.records import StudyRow

        runs = store.read(StudyRow, study=loaded.study.study, status="complete")
        if not runs:
            raise InputError(
                f"Study {loaded.study.study} has no complete run whose noise could be taken.",
                remedy="Run it once, or name a run of the same machine with --run.",
            )
        return max(runs, key=lambda row: row.started_at).run_id

    facts = _facts(arguments.run, newest)
    from steelyard.cli_plan import show
    from steelyard.planning import plan

    return show(loaded.study, plan(loaded.study, loaded.policy, facts))


def _report(arguments: argparse.Namespace) -> int:
    facts = _facts(arguments.run, _newest_run)
    from steelyard import reports
    from steelyard.home import reports_path

    folder: Path = arguments.out or reports_path()
    print(reports.build(facts, folder / f"{facts.study.run_id}.html"))
    return 0


def _recompute(arguments: argparse.Namespace) -> int:
    facts = _facts(arguments.run, _newest_run, arguments.snapshot)
    from steelyard.cli_recompute import recompute

    return recompute(facts, as_json=arguments.json)


def _serve_promoted(arguments: argparse.Namespace) -> int:
    loaded, promoted = _promoted(arguments)
    from steelyard.cli_promoted import serve_promoted

    return serve_promoted(loaded, promoted, arguments.port)


def _bundle(arguments: argparse.Namespace) -> int:
    loaded, promoted = _promoted(arguments)
    from steelyard.cli_promoted import bundle_promoted
    from steelyard.home import home

    return bundle_promoted(loaded, promoted, arguments.out or home() / "promoted" / promoted.study)


def _opportunities(arguments: argparse.Namespace) -> int:
    from steelyard.home import snapshot_path
    from steelyard.study_file import load_study

    study = load_study(arguments.study).study
    if not snapshot_path().is_file():
        raise NO_RUN
    from steelyard.cli_opportunities import NEWEST, backlog, show
    from steelyard.records import ComparisonRow, VerdictRow
    from steelyard.records_profile import OpportunityRow
    from warehouse.store import Store

    with Store.open_published() as store:
        run_id = store.scalar(NEWEST, [study.study])
        if run_id is None:
            raise InputError(
                f"No run of study {study.study} has surveyed its baseline.",
                remedy="Write `profile: {}` into the study and run it.",
            )
        found = backlog(
            run_id,
            store.read(OpportunityRow, run_id=run_id),
            store.read(ComparisonRow, run_id=run_id),
            store.read(VerdictRow, run_id=run_id),
        )
    return show(found, as_json=arguments.json)


def _promoted(arguments: argparse.Namespace) -> tuple[LoadedStudy, Promoted]:
    """The study as it stands, and what of it is promoted by the published ledger."""
    from steelyard.confirmation import promoted_study
    from steelyard.home import snapshot_path
    from steelyard.study_file import load_study

    loaded = load_study(arguments.study)
    if not snapshot_path().is_file():
        raise NO_RUN
    from steelyard.cli_promoted import promoted_of
    from warehouse.store import Store

    with Store.open_published() as store:
        return loaded, promoted_of(store, promoted_study(loaded.study), arguments.arm)


def judged(facts: Facts) -> Facts:
    """The rows of a run that Steelyard measured. Raises InputError for those of another tool: nobody judged them."""
    if facts.study.status == "imported":
        message = f"Run {facts.study.run_id} was imported and has no verdict."
        raise InputError(message, remedy="Query it in the snapshot (docs/how-to/import-other-tools.md).")
    return facts


def _facts(run: str | None, newest: Callable[[Store], str], snapshot: Path | None = None) -> Facts:
    """Everything the published warehouse holds of a judged run: the one that was named, or the newest."""
    from steelyard.home import reports_path, snapshot_path

    if snapshot is None and not snapshot_path().is_file():
        raise NO_RUN
    from steelyard.records_search import SearchRow
    from warehouse.facts import load_facts
    from warehouse.store import Store

    with Store.open_published(snapshot) as store:
        run_id = run or newest(store)
        if store.read(SearchRow, run_id=run_id):
            raise InputError(
                f"Run {run_id} is a search, which judges nobody.",
                remedy=f"See {reports_path() / f'{run_id}.html'}, or ask for the run that judged its winner.",
            )
        return judged(load_facts(store, run_id))


def _newest_run(store: Store) -> str:
    from steelyard.records import StudyRow
    from steelyard.records_search import SearchRow

    searches = {row.run_id for row in store.read(SearchRow)}
    runs = [row for row in store.read(StudyRow) if row.status != "imported" and row.run_id not in searches]
    if not runs:
        raise NO_RUN
    return max(runs, key=lambda row: row.started_at).run_id
