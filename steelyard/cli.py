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
from steelyard.cli_published import add_published_commands
from steelyard.cli_review import add_review_commands
from steelyard.cli_warehouse import add_warehouse_commands
from steelyard.errors import InputError, SteelyardError
from steelyard.signals import heed_interrupts

if TYPE_CHECKING:
    from steelyard.study_file import LoadedStudy

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

    add_published_commands(commands)
    bring = commands.add_parser("import", help="read what another tool measured into the same tables; never judged")
    bring.add_argument("file", type=Path, metavar="FILE", help="result file of the tool, or a folder with one run")
    bring.add_argument("--as", dest="name", metavar="NAME", help="name of the study; default: import-TOOL")
    bring.add_argument("--arm", metavar="NAME", help="name of the arm; default: the file's label or model")
    bring.set_defaults(command=_import)

    add_nightly_commands(commands)
    add_review_commands(commands)
    add_warehouse_commands(commands)

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
