"""The command `steelyard`.

Nothing heavy is imported before a command is chosen, so that `--help` answers at once on a machine that has none of
the engines. Exit status: 0 ok, 2 unusable input, 3 the study is void, 4 an engine or the infrastructure failed, 130
interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import steelyard
from steelyard.cli_nightly import add_nightly_commands
from steelyard.cli_review import add_review_commands
from steelyard.cli_warehouse import add_commands
from steelyard.errors import InputError, SteelyardError
from steelyard.signals import heed_interrupts

if TYPE_CHECKING:
    from steelyard.promoted import Promoted
    from steelyard.reports.facts import Facts
    from steelyard.study_file import LoadedStudy
    from warehouse.store import Store

NO_RUN = InputError("There is no run yet.", remedy="Run a study first: steelyard run studies/laptop")
EPILOG = """\
exit status:
  0  done
  2  a file or flag cannot be used as written
  3  the study ran, but is void: its own controls or contracts failed; recompute: the rows do not give the verdicts
  4  an engine or the infrastructure failed
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. Errors go to standard error as sentences, without a traceback."""
    heed_interrupts()
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        status = command(arguments)
        # Here and not at exit, where a reader that is gone would be an error.
        sys.stdout.flush()
        return status
    except SteelyardError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output is gone (`steelyard check ... | head`); Python would complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="steelyard",
        description="Proves, night after night, which LLM inference optimizations deserve production.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"steelyard {steelyard.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    check = commands.add_parser("check", help="validate a study, its policy, prices and engine arguments; run nothing")
    check.add_argument("study", type=Path, metavar="STUDY", help="folder with study.yaml, or a study file")
    check.add_argument("--no-engine", action="store_true", help="ask neither the engine's own parser nor lm-eval")
    check.set_defaults(command=_check)

    plan = commands.add_parser(
        "plan", help="blocks, documents and minutes a study needs, from the noise of its last run"
    )
    plan.add_argument("study", type=Path, metavar="STUDY", help="folder with study.yaml, or a study file")
    plan.add_argument("--run", metavar="RUN", help="run whose noise is taken; default: the study's newest complete one")
    plan.set_defaults(command=_plan)

    run = commands.add_parser("run", help="measure, evaluate and judge a study")
    run.add_argument("study", type=Path, metavar="STUDY", help="folder with study.yaml, or a study file")
    run.add_argument("--fresh", action="store_true", help="start a new run instead of resuming a killed one")
    run.add_argument("--quiet", action="store_true", help="print the verdicts only")
    run.add_argument("--wait", metavar="TIME", help="wait so long for another run on the state folder; default: not")
    run.set_defaults(command=_run)

    confirm = commands.add_parser(
        "confirm", help="measure the winner of a study's newest run again, on sealed documents and fresh blocks"
    )
    confirm.add_argument("study", type=Path, metavar="STUDY", help="folder with study.yaml, or a study file")
    confirm.add_argument("--arm", metavar="NAME", help="candidate to confirm; default: the one with the largest gain")
    confirm.add_argument("--fresh", action="store_true", help="start a new run instead of resuming a killed one")
    confirm.add_argument("--quiet", action="store_true", help="print the verdicts only")
    confirm.set_defaults(command=_confirm)

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

    bring = commands.add_parser("import", help="read what another tool measured into the same tables; never judged")
    bring.add_argument("file", type=Path, metavar="FILE", help="result file of the tool, or a folder with one run")
    bring.add_argument("--as", dest="name", metavar="NAME", help="name of the study; default: import-TOOL")
    bring.add_argument("--arm", metavar="NAME", help="name of the arm; default: the file's label or model")
    bring.set_defaults(command=_import)

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

    add_nightly_commands(commands)
    add_review_commands(commands)
    add_commands(commands)

    backlog = commands.add_parser(
        "opportunities", help="what to try next: what each lever should bring, and what it did"
    )
    backlog.add_argument("study", type=Path, metavar="STUDY", help="folder with study.yaml, or a study file")
    backlog.add_argument("--json", action="store_true", help="print one JSON array")
    backlog.set_defaults(command=_opportunities)

    levers = commands.add_parser("levers", help="what can be pulled on this machine, by asking the installed engine")
    levers.add_argument(
        "--study", type=Path, metavar="STUDY", help="whose model; default: the embedded reference model"
    )
    levers.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one, else cpu")
    levers.add_argument(
        "--try", dest="start", action="store_true", help="start an engine with each that is accepted: minutes, and true"
    )
    levers.add_argument("--json", action="store_true", help="print one JSON array, with every field that changes")
    levers.set_defaults(command=_levers)

    tune = commands.add_parser(
        "tune", help="search for the best stack of a study's levers, and have the winner judged afresh"
    )
    tune.add_argument("study", type=Path, metavar="STUDY", help="folder with study.yaml, or a study file")
    tune.add_argument("--budget", required=True, metavar="TIME", help="wall time: 30m, 1h30m, 90s")
    tune.add_argument(
        "--goal", default="slo_tokens_per_s", metavar="NAME",
        help="slo_tokens_per_s (output tokens/s that met the SLO, the default) or output_tokens_per_s",
    )  # fmt: skip
    tune.add_argument("--at", action="append", metavar="POINT", help="load point such as chat@c8; default: every one")
    tune.add_argument("--levers", metavar="NAMES", help="search these only; default: the study's and the catalogue's")
    tune.add_argument("--without", default="", metavar="NAMES", help="levers to leave alone")
    tune.add_argument("--start", default="", metavar="NAMES", help="levers that are pulled from the beginning")
    tune.add_argument(
        "--number", action="append", default=[], metavar="NAME=VALUES",
        help="numeric argument to search, such as max_num_seqs=8,16,32; none for no numbers; default: the usual ones",
    )  # fmt: skip
    tune.add_argument("--no-confirm", action="store_true", help="search only; write the study that would judge")
    tune.add_argument("--fresh", action="store_true", help="start a new search instead of resuming an interrupted one")
    tune.add_argument("--quiet", action="store_true", help="print the result only")
    tune.set_defaults(command=_tune)

    ui = commands.add_parser("ui", help="open Dagster's web server on this machine's loopback address")
    ui.add_argument("--port", type=int, default=3000, help="port to listen on (default: %(default)s)")
    mode = ui.add_mutually_exclusive_group()
    mode.add_argument("--read-only", action="store_true", help="nothing can be started or changed: the default")
    mode.add_argument("--write", action="store_true", help="with Dagster's daemon: runs can be started from the page")
    ui.add_argument(
        "--desk-port", type=int, default=3001, help="port of the reviewer's desk; 0 for none (default: %(default)s)"
    )
    ui.set_defaults(command=_ui)

    schema = commands.add_parser("schema", help="JSON Schemas of study, policy and prices")
    schema.add_argument("--write", type=Path, metavar="DIR", help="write one file each into a folder")
    schema.add_argument("--reference", type=Path, metavar="FILE", help="write the reference page as Markdown")
    schema.set_defaults(command=_schema)

    version = commands.add_parser("version", help="versions of Steelyard and of what it measures with")
    version.set_defaults(command=_version)
    return parser


def _check(arguments: argparse.Namespace) -> int:
    from steelyard.cli_check import check

    loaded = check(arguments.study, ask_engine=not arguments.no_engine)
    if not arguments.no_engine:
        from evals.tasks import suite_problems

        for problem in (problems := suite_problems(loaded.study, loaded.root)):
            print(problem, file=sys.stderr)
        return InputError.exit_code if problems else 0
    return 0


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


def _run(arguments: argparse.Namespace) -> int:
    from steelyard.durations import asked

    wait_s = asked(arguments.wait, "--wait") if arguments.wait else 0.0
    _begin(arguments.study)
    from pipelines.headless import run_study

    return int(run_study(arguments.study, fresh=arguments.fresh, silent=arguments.quiet, wait_s=wait_s))


def _confirm(arguments: argparse.Namespace) -> int:
    _begin(arguments.study)
    from pipelines.headless import confirm_winner

    return int(confirm_winner(arguments.study, arm=arguments.arm, fresh=arguments.fresh, silent=arguments.quiet))


def _tune(arguments: argparse.Namespace) -> int:
    from steelyard.tuning.request import Request, check, names, numbers, seconds

    request = Request(
        budget_s=seconds(arguments.budget), goal=arguments.goal, at=tuple(arguments.at) if arguments.at else None,
        levers=names(arguments.levers) if arguments.levers is not None else None, without=names(arguments.without),
        start=names(arguments.start), numbers=numbers(arguments.number),
    )  # fmt: skip
    _begin(arguments.study, lambda loaded: check(request, loaded.study))
    from pipelines.tune import tune

    confirm = not arguments.no_confirm
    return int(tune(arguments.study, request, fresh=arguments.fresh, confirm=confirm, silent=arguments.quiet))


def _begin(path: Path, check: Callable[[LoadedStudy], object] = lambda _: None) -> None:
    """What comes before Dagster is imported: a typing error is told in half a second, and vLLM begins to import."""
    from steelyard.study_file import load_study

    loaded = load_study(path)
    check(loaded)
    from steelyard.engines.ahead import import_ahead

    import_ahead(loaded.study)


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


def _import(arguments: argparse.Namespace) -> int:
    from steelyard.cli_import import keep, tell
    from steelyard.importers import Asked, read_foreign

    # Before the warehouse is opened: a malformed file is told at once, and waits for nobody.
    imported = read_foreign(arguments.file, Asked(name=arguments.name, arm=arguments.arm))
    from assets.session import Session
    from warehouse.publish import publish

    with Session() as session:
        new = keep(session.store, imported)
        publish(session.store)
    tell(imported, new=new)
    return 0


def _serve_promoted(arguments: argparse.Namespace) -> int:
    loaded, promoted = _promoted(arguments)
    from steelyard.cli_promoted import serve_promoted

    return serve_promoted(loaded, promoted, arguments.port)


def _bundle(arguments: argparse.Namespace) -> int:
    loaded, promoted = _promoted(arguments)
    from steelyard.cli_promoted import bundle_promoted
    from steelyard.home import home

    return bundle_promoted(loaded, promoted, arguments.out or home() / "promoted" / promoted.study)


def _levers(arguments: argparse.Namespace) -> int:
    from steelyard.cli_levers import show
    from steelyard.levers.available import available

    model, device = Path(__file__).parent.parent / "reference_model" / "weights", arguments.device
    if arguments.study is not None:
        from steelyard.deployments import deployment
        from steelyard.home import weights_path
        from steelyard.study_file import load_study

        loaded = load_study(arguments.study)
        model = Path(deployment(loaded, loaded.study.arms[0], weights_into=weights_path()).weights)
        device = device or loaded.study.hardware.device
    if device is None:
        from steelyard.environment import describe

        device = "cuda" if describe()["accelerator"] else "cpu"
    found = available(device, model)
    if arguments.start:
        from steelyard.home import logs_path
        from steelyard.levers.available import tried

        found = tried(found, device, model, logs_path() / "levers", lambda text: print(text, file=sys.stderr))
    return show(found, as_json=arguments.json)


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


def _ui(arguments: argparse.Namespace) -> int:
    from pipelines import ui

    ui.main(arguments.port, read_only=not arguments.write, desk_port=arguments.desk_port)
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    import json

    from steelyard import schema

    if arguments.write:
        for path in schema.write(arguments.write):
            print(path)
    if arguments.reference:
        arguments.reference.parent.mkdir(parents=True, exist_ok=True)
        arguments.reference.write_text(schema.reference(), "utf-8")
        print(arguments.reference)
    if not arguments.write and not arguments.reference:
        print(json.dumps({name: json.loads(text) for name, text in schema.schemas().items()}, indent=2))
    return 0


def _version(_: argparse.Namespace) -> int:
    from steelyard.environment import describe, packages

    about = describe()
    print(f"steelyard {about['steelyard_version']} ({about['git_commit'] or 'no checkout'})")
    print(f"python {about['python_version']}, {about['platform']}")
    for name, version in packages().items():
        print(f"{name} {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
