"""The commands for what is stored: `query`, `drift`, `export`, `restore`, `thin`.

Like `cli` this is the composition root (docs/decisions/0001): it reaches up, inside the functions.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from steelyard.errors import InputError

FORMATS = ("table", "csv", "json", "parquet")


def add_warehouse_commands(commands: Any) -> None:
    """Register the commands with the parser of `cli`."""
    query = commands.add_parser("query", help="ask the published warehouse in SQL, also while a run writes")
    query.add_argument("sql", metavar="SQL", help="one SELECT; - reads it from standard input")
    query.add_argument("--format", choices=FORMATS, default="table", help="default: %(default)s")
    query.add_argument("--out", type=Path, metavar="FILE", help="write there; parquet needs it")
    query.add_argument(
        "--snapshot", type=Path, metavar="FILE", help="published DuckDB file; default: the one in the state folder"
    )
    query.set_defaults(command=_query)

    drift = commands.add_parser("drift", help="what changed its level over the nights: gains, baseline, noise")
    drift.add_argument("--study", metavar="NAME", help="this study only")
    drift.add_argument("--json", action="store_true", help="print one JSON array")
    drift.set_defaults(command=_drift)

    export = commands.add_parser("export", help="copy the published warehouse to a folder or an object store")
    export.add_argument("to", metavar="TO", help="folder, or a URL such as s3://bucket/steelyard")
    export.add_argument("--study", metavar="NAME", help="runs of this study only")
    export.add_argument("--since", metavar="DATE", help="runs of this night (YYYY-MM-DD) and later only")
    export.set_defaults(command=_export)

    restore = commands.add_parser("restore", help="add the runs of an export that are not here, or not as far")
    restore.add_argument("source", metavar="FROM", help="folder or URL of an export, or another `published` folder")
    restore.set_defaults(command=_restore)

    thin = commands.add_parser("thin", help="thin old request rows by the retention policy; nothing else goes")
    thin.add_argument(
        "--policy", type=Path, metavar="FILE", help="file with `retention`; default: nightly.yaml beside the studies"
    )
    thin.add_argument("--dry-run", action="store_true", help="say what would be thinned")
    thin.set_defaults(command=_thin)


def _query(arguments: argparse.Namespace) -> int:
    from steelyard.cli_query import show
    from steelyard.home import snapshot_path

    path = arguments.snapshot or snapshot_path()
    if arguments.format == "parquet" and arguments.out is None:
        raise InputError("Parquet is no text.", remedy="Name a file with --out.", field="--format")
    sql = sys.stdin.read() if arguments.sql == "-" else arguments.sql
    from warehouse.store import Store

    with Store.open_published(path) as store:
        answer = store.table(sql)
    show(answer, arguments.format, arguments.out)
    return 0


def _drift(arguments: argparse.Namespace) -> int:
    from steelyard.cli_drift import show
    from steelyard.drift import FIGURES, drifts
    from warehouse.store import Store

    with Store.open_published() as store:
        figures = store.query(FIGURES, [arguments.study, None]).to_dict("records")
    return show(drifts(figures), followed=len(figures), as_json=arguments.json)


def _export(arguments: argparse.Namespace) -> int:
    if (Path(arguments.to) / "study.yaml").is_file():
        raise InputError(
            f"{arguments.to} is a study, and `export` copies the warehouse.",
            remedy=f"To write what it promoted: steelyard bundle {arguments.to}",
            field="TO",
        )
    since = _night(arguments.since) if arguments.since else None
    from warehouse.export import export

    done = export(arguments.to, study=arguments.study, since=since, tell=_tell)
    already = f", {done.there:,} were there" if done.there else ""
    print(f"{done.to}: {done.runs:,} runs, {done.sent:,} files ({done.sent_bytes / 1e6:,.1f} MB) sent{already}")
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    from assets.session import Session
    from warehouse.publish import publish
    from warehouse.restore import restore

    with Session() as session:
        done = restore(session.store, arguments.source, tell=_tell)
        publish(session.store)
    renewed = f", {done.renewed:,} brought forward" if done.renewed else ""
    print(f"{done.runs:,} runs added{renewed} ({done.rows:,} rows), {done.there:,} were there")
    if done.apart:
        print(f"{done.apart:,} of these were signed, promoted or thinned here and there, and are as they were here")
    if done.running:
        print(f"{done.running:,} runs have not ended on the machine that measures them, and were left out")
    return 0


def _thin(arguments: argparse.Namespace) -> int:
    from steelyard.home import nightly_path
    from steelyard.nightly.settings import load_nightly

    path = arguments.policy or nightly_path()
    policy = load_nightly(path).retention
    if policy is None:
        print(f"{path} has no `retention`: all rows are kept.")
        return 0
    from assets.session import Session
    from warehouse.publish import publish
    from warehouse.retention import thin

    with Session() as session:
        found = thin(session.store, after_days=policy.after_days, keep=policy.keep, dry=arguments.dry_run)
        if found and not arguments.dry_run:
            publish(session.store)
    for run in found:
        print(f"{run.run_id}: {run.requests:,} requests, {run.kept:,} {'would stay' if arguments.dry_run else 'left'}")
    if not found:
        print("No run is old enough, thinned already, or free of decisions that rest on it.")
    return 0


def _night(text: str) -> str:
    from datetime import date

    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise InputError(f"{text} is no date.", remedy="Write it as 2026-11-21.", field="--since") from error


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
