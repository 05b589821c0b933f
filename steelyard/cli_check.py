"""`steelyard check`: everything that can be known about a study without serving it, and a summary to read before it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from steelyard.errors import InputError
from steelyard.gates.policy import QUALITY, Gate, Policy
from steelyard.home import reviewers_path
from steelyard.review.reviewers import load_reviewers
from steelyard.review.standing import may_approve
from steelyard.study import Arm, Study
from steelyard.study_file import LoadedStudy, load_study
from steelyard.study_rules import Loc
from steelyard.study_weights import steps

WRAPPED = ("differs from the baseline", "demands", "task")
PIPED_WIDTH = 110
STYLE = {"baseline": "bold", "candidate": "cyan", "identity": "dim", "known_bad": "red"}


def check(study: Path, *, ask_engine: bool, console: Console | None = None) -> LoadedStudy:
    """Validate a study and print what it will do. Raises InputError with every problem found.

    With `ask_engine`, every arm's arguments go through the engine's own parser, which takes some seconds to import.
    """
    console = console or Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    loaded = load_study(study)
    if ask_engine:
        problems = engine_problems(loaded)
        if problems:
            raise InputError(
                "the engine refuses arguments.", remedy="Correct what is listed.", file=loaded.source.file,
                problems=problems,
            )  # fmt: skip
    console.print(summary(loaded))
    asked = "files and engine arguments" if ask_engine else "files; engine arguments not asked"
    console.print(Text.assemble(("ok", "bold green"), f"  {asked}  ", (f"study {loaded.study_digest[:12]}", "dim")))
    return loaded


def engine_problems(loaded: LoadedStudy) -> list[InputError]:
    """What the engines' own parsers refuse, each once, at the line that says it."""
    from steelyard.engines.arguments import check_many

    study = loaded.study
    arms = [(arm.name, arm.engine, dict(arm.args)) for arm in study.arms]
    refused = check_many(arms, study.hardware.device)
    inherited = refused.get("baseline")
    problems = []
    for arm in study.arms:
        message = refused.get(arm.name)
        if message is None or (arm.role != "baseline" and message == inherited):
            continue
        sentence = message if message.rstrip().endswith((".", "!", "?")) else f"{message}."
        remedy = f"The engine itself says so ({arm.engine}); correct the argument."
        problems.append(loaded.problem(f"arm {arm.name}: {sentence}", remedy, *_place(loaded, arm, message)))
    return problems


def _place(loaded: LoadedStudy, arm: Arm, message: str) -> Loc:
    """The argument a message is about, where the arm or the baseline sets it; else the arm's args."""
    own = _section(loaded.study, arm)
    # The argument meant comes first; names an engine suggests instead come after it.
    for word in re.findall(r"\w+", message.replace("-", "_")):
        for loc in (own, ("baseline",)):
            place = (*loc, "args", word.strip("_"))
            if place in loaded.source.lines:
                return place
    return (*own, "args") if (*own, "args") in loaded.source.lines else own


def _section(study: Study, arm: Arm) -> Loc:
    for section, arms in (("candidates", study.candidates), ("controls", study.controls)):
        for index, each in enumerate(arms):
            if each.name == arm.name:
                return (section, index)
    return ("baseline",)


def summary(loaded: LoadedStudy) -> Group:
    """What the study will serve, ask and demand, and how much of it there is."""
    study, policy = loaded.study, loaded.policy
    price = loaded.prices.price(study.hardware.price)
    head = Text.assemble(
        (study.study, "bold"), "  ", study.description, "\n",
        (f"{study.model.name} on {study.hardware.name} ({study.hardware.device}), ", "dim"),
        (f"{price.usd_per_hour:g} USD/h, price of {price.dated}, owner {study.owner}", "dim"),
    )  # fmt: skip
    searches = [_searches(study)] if study.capacity else []
    tables = [_arms(study), _loads(study), *searches, _suites(study), _gates(policy.gates)]
    tables += [_sign_offs(study, policy)] if policy.sign_offs else []
    return Group(head, "", *tables, _amounts(study, policy))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column not in WRAPPED, overflow="fold")
    return table


def _arms(study: Study) -> Table:
    table = _table(f"{len(study.arms)} arms", "arm", "lever", "differs from the baseline", "claims a gain at")
    baseline = study.arms[0]
    for arm in study.arms:
        claim = arm.claim.load_point if arm.claim else ""
        what = settings(arm.args) if arm.role == "baseline" else differences(baseline, arm)
        kind = arm.lever or arm.role.replace("_", " ")
        table.add_row(Text(arm.name, STYLE[arm.role]), kind, Text("\n".join(what)), claim)
    return table


def settings(args: Mapping[str, Any], name: str = "") -> list[str]:
    """Arguments, one a line; those inside a mapping as `speculative_config.method ngram`."""
    lines: list[str] = []
    for key, value in args.items():
        full = f"{name}.{key}" if name else key
        lines += settings(value, full) if isinstance(value, Mapping) else [f"{full} {_value(value)}"]
    return lines


def differences(baseline: Arm, arm: Arm) -> list[str]:
    """What an arm changes, one change a line; `nothing` for the identity control."""
    parts = [f"engine {arm.engine}"] if arm.engine != baseline.engine else []
    base = baseline.args if arm.engine == baseline.engine else {}
    parts += settings({key: value for key, value in arm.args.items() if key not in base or base[key] != value})
    parts += [f"no {key}" for key in base if key not in arm.args]
    parts += [f"{key}={value}" for key, value in arm.env.items() if baseline.env.get(key) != value]
    parts += [f"no {key}" for key in baseline.env if key not in arm.env]
    for transform in steps(arm.weights):
        given = transform.model_dump(exclude_none=True, exclude_defaults=True)
        parts.append("weights " + " ".join(_value(v) if k == "method" else f"{k} {v}" for k, v in given.items()))
    if arm.chat_template is not None:
        parts.append(f"chat template {arm.chat_template}")
    if arm.url is not None and arm.url != baseline.url:
        parts.append(arm.url)
    if arm.faults is not None:
        parts += [f"fault {name} {_value(value)}" for name, value in arm.faults.model_dump(exclude_none=True).items()]
    return parts or ["nothing"]


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _loads(study: Study) -> Table:
    table = _table(
        f"{len(study.load_points)} load points", "load point", "kind", "requests", "tokens in/out", "arrivals"
    )
    for point in study.load_points:
        workload, load = point.workload, point.load
        shared = f" ({workload.shared_tokens} shared)" if workload.shared_tokens else ""
        arrivals = f"{load.concurrency} in flight" if load.concurrency else f"Poisson, {load.rate:g}/s"
        table.add_row(
            point.name, workload.kind, str(workload.requests),
            f"{workload.prompt_tokens}{shared} / {workload.output_tokens}", arrivals,
        )  # fmt: skip
    return table


def _searches(study: Study) -> Table:
    count = f"{len(study.capacity)} capacities, searched in each of {study.blocks} blocks"
    table = _table(count, "capacity", "arrivals/s", "rates", "must meet the SLO", "a probe")
    for search in study.capacity:
        table.add_row(
            search.scope, f"{search.lowest:g} to {search.highest:g}", str(len(search.rates)), f"{search.share:.0%}",
            f"{search.seconds:g} s",
        )  # fmt: skip
    return table


def _suites(study: Study) -> Table:
    sealed = any(suite.sealed for suite in study.suites)
    table = _table(
        f"{len(study.suites)} suites", "suite", "category", "task", "documents", *(["sealed"] if sealed else [])
    )
    for suite in study.suites:
        kept = [str(suite.sealed)] if sealed else []
        table.add_row(suite.name, suite.category, suite.task, str(suite.limit or "all"), *kept)
    return table


def _gates(gates: tuple[Gate, ...]) -> Table:
    table = _table(f"{len(gates)} gates", "gate", "category", "demands", "on")
    for gate in gates:
        where = {"claimed": "the load point claimed", "every": "every load point"}[gate.on]
        if gate.category in QUALITY:
            where = f"every {gate.category} suite"
        elif gate.category == "divergence":
            where = "all prompts of the screen"
        elif gate.category == "capacity":
            where = {"claimed": "the workload claimed", "every": "every capacity"}[gate.on]
        table.add_row(gate.name, gate.category, demand(gate), where)
    return table


def _sign_offs(study: Study, policy: Policy) -> Table:
    """Roles that must approve, and who could, so that nobody waits for a signature that no one can give."""
    registry = load_reviewers(reviewers_path())
    table = _table(f"{len(policy.sign_offs)} sign-offs", "role", "may approve")
    for role in policy.sign_offs:
        people = may_approve(role, study.owner, registry)
        table.add_row(role, ", ".join(people) or Text(f"nobody: name somebody in {reviewers_path()}", "yellow"))
    return table


def demand(gate: Gate) -> str:
    """A gate's rule in words."""
    if gate.margin is not None:
        bound = f"falls by {gate.margin * 100:g} points at most"
    elif gate.metric == "safe_to_unsafe":
        bound = f"{(gate.at_most or 0.0) * 100:g} % at most"
    elif gate.metric == "broken_canaries":
        bound = f"{gate.at_most:g} at most"
    elif gate.category == "divergence":
        limit = f"{gate.at_most:g} nats" if gate.at_least is None else f"{gate.at_least * 100:g} %"
        bound = f"not proven {'above' if gate.at_least is None else 'below'} {limit}"
    else:
        bound = f">= {gate.at_least:g} x baseline" if gate.at_least is not None else f"<= {gate.at_most:g} x baseline"
    return f"{gate.metric} {bound}" + ("" if gate.required else " (shown only)")


def _amounts(study: Study, policy: Policy) -> Text:
    """How much work it is, at most where the policy stops early.

    Suites without a limit are counted by lm-eval only, so they make it a lower bound.
    """
    arms = len(study.arms)
    trials = arms * len(study.load_points) * study.blocks
    requests = arms * study.blocks * sum(point.workload.requests for point in study.load_points)
    samples = arms * sum(suite.limit or 0 for suite in study.suites)
    least = "at least " if any(suite.limit is None for suite in study.suites) else "about "
    most = "at most " if policy.stop_early else ""
    product = f" ({arms} arms x {len(study.load_points)} load points x {study.blocks} blocks), "
    return Text.assemble(
        (f"{most}{trials:,} trials", "bold"), product, (f"{requests:,} requests", "bold"), ", ",
        (f"{least}{samples:,} samples", "bold"), "\n",
    )  # fmt: skip
