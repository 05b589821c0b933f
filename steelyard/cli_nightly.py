"""The commands of the nightly: `nightly`, `reinstate`.

Like `cli` this is the composition root (docs/decisions/0001): it reaches up, inside the functions.
"""

from __future__ import annotations

import argparse
from typing import Any

from steelyard.errors import InputError


def add_nightly_commands(commands: Any) -> None:
    """Register the commands with the parser of `cli`."""
    nightly = commands.add_parser(
        "nightly", help="every study in its turn under one budget; what a killed night had not done is gone on with"
    )
    nightly.add_argument("--budget", metavar="TIME", help="wall time of the night; default: that of nightly.yaml")
    nightly.add_argument(
        "--resume", action="store_true", help="only go on with a night that was killed and has time left (after a boot)"
    )
    nightly.add_argument("--plan", action="store_true", help="say what would be run, skipped and put off; run nothing")
    nightly.add_argument("--quiet", action="store_true", help="print the result only")
    nightly.set_defaults(command=_nightly)

    reinstate = commands.add_parser(
        "reinstate", help="lift the revocation of an arm; the next complete run may promote"
    )
    reinstate.add_argument("study", metavar="STUDY", help="name of the study")
    reinstate.add_argument("--arm", required=True, metavar="NAME", help="the arm whose promotion was revoked")
    reinstate.add_argument("--by", required=True, metavar="WHO", help="who lifts it: an e-mail or team:NAME")
    reinstate.add_argument("--because", required=True, metavar="TEXT", help="why it may be promoted again")
    reinstate.set_defaults(command=_reinstate)


def _nightly(arguments: argparse.Namespace) -> int:
    from steelyard.durations import asked

    budget_s = asked(arguments.budget, "--budget") if arguments.budget else None
    if arguments.plan and arguments.resume:
        raise InputError("--plan and --resume exclude each other.", remedy="Give one of them.", field="--plan")
    from pipelines.nightly import plan_night, run_night

    if not arguments.plan:
        return int(run_night(budget_s=budget_s, resume=arguments.resume, silent=arguments.quiet))
    for name, decision in plan_night(budget_s=budget_s):
        print(f"{name}  {decision.what}: {decision.reason}")
    return 0


def _reinstate(arguments: argparse.Namespace) -> int:
    from assets.incidents import reinstate
    from assets.session import Session
    from warehouse.publish import publish

    with Session() as session:
        row = reinstate(session.store, arguments.study, arguments.arm, by=arguments.by, because=arguments.because)
        publish(session.store)
    print(f"The revocation of {row.arm} by run {row.run_id} is lifted; the next complete run may promote it again.")
    return 0
