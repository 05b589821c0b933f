"""The bench of engine starts: from nothing to the first token, as `vllm serve` starts and as a study starts its arms.

    python -m benchmarks.engine_start [--pairs 5] [--study studies/laptop] [--arm baseline]

Three ways, one after the other in every round, so that a noisy minute costs all of them: stock vLLM as a program of its
own (its own worker processes, each importing vLLM); the first engine of a study (the import of vLLM that all arms share
is in it); and every further one, forked from that import. It takes about three minutes. A complete run (5 rounds)
renews the page of the documentation. The last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import finish
from benchmarks.pages import DOCS, renew
from steelyard.deployments import deployment
from steelyard.engines.base import Deployment
from steelyard.engines.process import close_launchers, engine_env, launcher
from steelyard.engines.vllm import LOOPBACK, free_port, production_command, serve_vllm, wait_for_token
from steelyard.environment import describe
from steelyard.errors import InputError
from steelyard.home import home, weights_path
from steelyard.study_file import load_study

PAGE = "engine-start.md"
ENOUGH = 5
LIMIT_S = 300.0
STUDY = Path("studies/laptop")

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 for unusable input, 4 if an engine fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_start", description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=ENOUGH, help="rounds of all three")
    parser.add_argument("--study", type=Path, default=STUDY, help="study whose arm is started")
    parser.add_argument("--arm", default="baseline", help="arm that is started; one that runs on vLLM")
    options = parser.parse_args(arguments)
    return finish(lambda: run(options))


def run(options: argparse.Namespace) -> dict[str, object]:
    """Start the arm again and again; returns what the last line says."""
    if options.pairs < 1:
        raise InputError("--pairs is positive.", remedy="Ask for one at least.")
    loaded = load_study(options.study)
    arms = {each.name: each for each in loaded.study.arms if each.engine == "vllm"}
    if options.arm not in arms:
        raise InputError(
            f"{options.arm} is no arm that runs on vLLM.", remedy=f"Such are {', '.join(arms) or 'none here'}."
        )
    ready = deployment(loaded, arms[options.arm], weights_into=weights_path())
    folder = home() / "engine-start"
    rounds: list[tuple[float, float, float]] = []
    digests: set[str] = set()
    for number in range(options.pairs):
        stock = start_stock(ready, folder / "stock")
        close_launchers(idle_only=False)
        first, further = (start_ours(ready, folder, digests) for _ in range(2))
        rounds.append((stock, first, further))
        log.info("round %d of %d: stock %.1f s, first %.1f s, further %.1f s", number + 1, options.pairs, *rounds[-1])
    said = summary(rounds, same_deployment=len(digests) == 1)
    where = f"{options.pairs} rounds; {describe()['cpu_model']}, {time.strftime('%Y-%m-%d')}"
    complete = options.pairs >= ENOUGH and options.study == STUDY and options.arm == "baseline"
    renew((DOCS if complete else folder) / PAGE, page(rounds, said, where))
    return said


def start_stock(served: Deployment, folder: Path) -> float:
    """Seconds from the launch of stock vLLM to its first token; it is stopped again."""
    port = free_port()
    command, _ = production_command(served, port)
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / f"{served.arm}.log"
    log_file.unlink(missing_ok=True)
    began = time.monotonic()
    process = launcher("none").start(
        arm=served.arm, argv=[sys.executable, "-W", "ignore", *command[1:]], spec={},
        # As a user starts it: with vLLM's own processes, which for one CPU engine are three.
        env=engine_env(served.env, {"HF_HUB_OFFLINE": "1"}), log=log_file,
    )  # fmt: skip
    try:
        wait_for_token(process, served, f"http://{LOOPBACK}:{port}", log_file, began + LIMIT_S)
        return time.monotonic() - began
    finally:
        process.stop()


def start_ours(served: Deployment, folder: Path, digests: set[str]) -> float:
    """Seconds to the first token of an engine forked from the launcher, whose import is waited for if it is new."""
    began = time.monotonic()
    with serve_vllm(served, run_log_dir=folder, start_timeout_s=LIMIT_S, port=None, preload=True) as engine:
        took = time.monotonic() - began
        digests.add(engine.digest)
    return took


def summary(rounds: Sequence[tuple[float, float, float]], *, same_deployment: bool) -> dict[str, object]:
    """What the last line says: medians in seconds, and the median of the rounds' own ratios."""
    stock, first, further = (statistics.median(each) for each in zip(*rounds, strict=True))
    return {
        "bench": "engine_start",
        "rounds": len(rounds),
        "plain_s": round(stock, 2),
        "ours_first_s": round(first, 2),
        "ours_s": round(further, 2),
        "ratio": round(statistics.median(each[0] / each[2] for each in rounds), 2),
        "ratio_first": round(statistics.median(each[0] / each[1] for each in rounds), 2),
        "same_deployment": same_deployment,
    }


def page(rounds: Sequence[tuple[float, float, float]], said: dict[str, object], where: str) -> str:
    """The table, as Markdown."""
    lines = [
        f"{where}.",
        "",
        f"**{said['ratio']} times as fast from the second engine on**, {said['ratio_first']} times for the first; "
        f"the same deployment digest in all of ours: {'yes' if said['same_deployment'] else '**no**'}.",
        "",
        "| round | stock vLLM | first engine of a study | each further one |",
        "|---|---|---|---|",
        *(
            f"| {number} | {' | '.join(f'{each:.1f} s' for each in row)} |"
            for number, row in enumerate(rounds, start=1)
        ),
        f"| median | {said['plain_s']} s | {said['ours_first_s']} s | {said['ours_s']} s |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
