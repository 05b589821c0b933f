"""The client-truth bench: does a load client say when tokens really came?

    python -m benchmarks.client_truth [--quick] [--rounds 3] [--clients steelyard,vllm]

Our client, a plain aiohttp client, `vllm bench serve`, GuideLLM and AIPerf measure the same server, whose timings are
known and logged, at 20, 100 and 300 streams, in random order within each round; each one's own per-request figures are
compared with what the server did. Then the largest Poisson rate is searched at which a client is still honest. A
complete run renews the page of the documentation; any other writes beside its results. It takes about 15 minutes, and
some more when the rivals' environments are made for the first time. Nothing else may run meanwhile. The last line of
standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.client_truth_parts import report
from benchmarks.client_truth_parts.cell import (
    ITL_S,
    SERVER_LATE_S,
    TTFT_S,
    Cell,
    Result,
    errors_of,
    percentile,
    truth_of,
)
from benchmarks.client_truth_parts.clients import CLIENTS, Client
from benchmarks.client_truth_parts.clients import run as run_client
from benchmarks.client_truth_parts.rivals import ROOT, Unavailable
from benchmarks.client_truth_parts.search import Step, highest_rate
from benchmarks.command import finish
from benchmarks.pages import DOCS
from steelyard.environment import describe
from steelyard.errors import InfrastructureError, InputError
from steelyard.home import home

STREAMS = (20, 100, 300)
REQUESTS_PER_STREAM = {20: 10, 100: 4, 300: 3}
TOKENS, RATE_TOKENS = 32, 8
RATE_S = 3.0
ROUNDS = 3
SEED = 20261122

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 for unusable input, 4 if the server does not come up."""
    options = _options(arguments)
    return finish(lambda: run(options))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client_truth", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round, few streams, two rates: a check of the bench")
    parser.add_argument("--rounds", type=int, default=None, help=f"rounds, each with every client (default {ROUNDS})")
    parser.add_argument("--clients", default=None, help="by commas; all otherwise")
    parser.add_argument("--out", type=Path, default=None, help="write results, page and picture there")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> dict[str, object]:
    """Measure, search, write; returns what the last line says."""
    started = time.monotonic()
    clients = _chosen(options.clients)
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    streams = STREAMS[:2] if options.quick else STREAMS
    folder = home() / "client-truth"
    problems: dict[str, str] = {}
    for client in clients:
        try:
            client.prepare()
        except Unavailable as error:
            problems[client.name] = str(error)
            log.warning("%s", error)
    usable = [client for client in clients if client.name not in problems]
    order = random.Random(SEED)
    results: list[Result] = []
    with serving() as url:
        for number in range(rounds):
            cells = [
                (
                    client,
                    Cell(
                        requests=count * (2 if options.quick else REQUESTS_PER_STREAM[count]),
                        tokens=TOKENS,
                        streams=count,
                    ),
                )
                for client in usable
                for count in streams
            ]
            order.shuffle(cells)
            for client, cell in cells:
                results.append(measure(client, url, cell, number, folder))
        steps = {
            client.name: highest_rate(
                _asker(client, url, folder), most=2 if options.quick else None, tries=1 if options.quick else 3
            )
            for client in order.sample(usable, len(usable))
        }
    for result in results:
        if result.problem:
            problems.setdefault(result.client, result.problem)
    summary = report.summary(results, steps, problems, wall_s=time.monotonic() - started)
    complete = not options.quick and rounds >= ROUNDS and len(clients) == len(CLIENTS) and not problems
    out = options.out or (DOCS if complete else folder / "report")
    data = options.out or folder
    report.write(results, steps, problems, summary, describe(), out, data)
    log.info("written: %s", out / report.PAGE)
    return summary


def _chosen(names: str | None) -> list[Client]:
    if names is None:
        return list(CLIENTS)
    known = {client.name: client for client in CLIENTS}
    wanted = [name for name in names.split(",") if name]
    strangers = [name for name in wanted if name not in known]
    if strangers or not wanted:
        raise InputError(f"there is no client {', '.join(strangers)}.", remedy=f"There are {', '.join(known)}.")
    return [known[name] for name in wanted]


def measure(client: Client, url: str, cell: Cell, number: int, folder: Path) -> Result:
    """One run of one client against the server's truth. What goes wrong is part of the result."""
    _ask(url, "/forget", post=True)
    before, began = _children_cpu_s(), time.monotonic()
    place = folder / "runs" / f"{client.name}-{cell.name}-{number}"
    try:
        said = run_client(client, url, cell, place, SEED + number)
    except Unavailable as error:
        log.warning("%s %s: %s", client.name, cell.name, error)
        return Result(client=client.name, cell=cell, round=number, problem=str(error))
    cpu_s, wall_s = _children_cpu_s() - before, time.monotonic() - began
    true = truth_of(_ask(url, "/truth"), cell)
    if len(true.ttfts) < 2:
        return Result(client=client.name, cell=cell, round=number, problem="the server saw none of its requests")
    errors = errors_of(said, true)
    result = Result(
        client=client.name, cell=cell, round=number, errors=errors, requests=len(said.ttfts),
        true_ttft_p50_s=percentile(true.ttfts, 0.5), said_ttft_p50_s=percentile(said.ttfts, 0.5), cpu_s=cpu_s,
        wall_s=wall_s, server_late=true.late_p99_s > SERVER_LATE_S, server_late_p99_s=true.late_p99_s,
        flagged=tuple(said.flagged),
        problem=None
        if len(said.ttfts) == len(true.ttfts)
        else f"it reports {len(said.ttfts)} requests, the server answered {len(true.ttfts)}",
    )  # fmt: skip
    shown = ", ".join(f"{key[:-4]} {value:+.1%}" for key, value in errors.items())
    log.info("round %d %s %s: %s; %.1f CPU s", number, client.name, cell.name, shown, cpu_s)
    return result


def _asker(client: Client, url: str, folder: Path) -> Callable[[float, int], Step]:
    """Asks a client to send at a rate, for the search."""

    def ask(rate: float, attempt: int) -> Step:
        cell = Cell(requests=max(100, round(rate * RATE_S)), tokens=RATE_TOKENS, rate=rate)
        result = measure(client, url, cell, attempt, folder)
        return Step(
            rate=rate, error=result.errors.get("ttft_p99_err"), server_late=result.server_late,
            flagged=bool(result.flagged), problem=result.problem,
        )  # fmt: skip

    return ask


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The server of known timings in a process of its own; yields its URL. Raises InfrastructureError."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.client_truth_parts.server", "--ttft", str(TTFT_S), "--itl", str(ITL_S)],
        cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise InfrastructureError(
                f"the bench's server ended with status {process.wait()}.", remedy="Its error stands above."
            )
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _ask(url: str, path: str, *, post: bool = False) -> Any:
    request = urllib.request.Request(f"{url}{path}", data=b"" if post else None)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _children_cpu_s() -> float:
    # Of processes that have ended: the server, still running, is not in it; what a client started itself is.
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(main())
