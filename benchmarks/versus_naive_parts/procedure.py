"""The naive procedure, as it is commonly done: for each arm restart, benchmark three times, run all suites, compare
averages with thresholds.

Each repetition starts the engine as `vllm serve` does and measures every load point once with `vllm bench serve`. The
suites run on the last start, every document, with one `lm_eval run`. Thresholds are the policy's bounds, held against
point values.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench_serve import prompts_of
from benchmarks.client_truth_parts.clients import VLLM
from benchmarks.versus_naive_parts.suites import ask
from benchmarks.versus_naive_parts.tool import run_tool
from steelyard.engines.base import Deployment, Engine
from steelyard.errors import InfrastructureError
from steelyard.gates.policy import Gate, Policy
from steelyard.study import LoadPoint, Slo
from steelyard.study_file import LoadedStudy

REPEATS = 3
PROMPTS_PER_STREAM = 10
LIMIT_S = 600.0
Start = Callable[[Deployment], AbstractContextManager[Engine]]


@dataclass(slots=True)
class Measured:
    """One arm. Speeds by load point and metric, one value a repetition; mean scores by suite; seconds."""

    arm: str
    speeds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    documents: int = 0
    held_s: float = 0.0
    starting_s: float = 0.0
    benching_s: float = 0.0
    suites_s: float = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds in which measured requests were under way."""
        return self.benching_s + self.suites_s


def measure(loaded: LoadedStudy, deployment: Deployment, folder: Path, start: Start, *, repeats: int) -> Measured:
    """Everything the procedure does with one arm. Raises EngineError or InfrastructureError."""
    found = Measured(deployment.arm)
    for number in range(repeats):
        began = time.monotonic()
        with start(deployment) as engine:
            found.starting_s += time.monotonic() - began
            for point in loaded.study.load_points:
                told = bench(engine, point, loaded.study.slo_of(point.workload), folder / f"{number}", seed=number)
                found.benching_s += told.pop("duration_s")
                for metric, value in told.items():
                    found.speeds.setdefault(point.name, {}).setdefault(metric, []).append(value)
            if number == repeats - 1:
                asked = ask(engine, loaded.study.suites, loaded.root, folder / "suites")
                found.suites_s, found.documents, found.scores = asked.requests_s, asked.documents, asked.scores
        found.held_s += time.monotonic() - began
    return found


def bench(engine: Engine, point: LoadPoint, slo: Slo, folder: Path, *, seed: int) -> dict[str, float]:
    """One `vllm bench serve` at a load point: its figures in our units, and how long its requests took."""
    name = f"{engine.arm}-{point.name}.json"
    log = folder / f"{name}.log"
    asked = [
        "-c", VLLM, *bench_arguments(engine, point, slo), "--seed", str(seed),
        "--save-result", "--result-dir", str(folder), "--result-filename", name,
    ]  # fmt: skip
    run_tool("vllm bench serve", asked, log, LIMIT_S)
    told = json.loads((folder / name).read_text("utf-8"))
    if told["completed"] != told["num_prompts"]:
        raise InfrastructureError(
            f"{engine.arm} at {point.name}: {told['completed']} of {told['num_prompts']} requests completed.",
            remedy=f"See {log}.",
        )
    return {
        "duration_s": told["duration"],
        "output_tokens_per_s": told["output_throughput"],
        "requests_per_s": told["request_throughput"],
        "goodput_per_s": told["request_goodput"],
        "ttft_p50_s": told["median_ttft_ms"] / 1000,
        "itl_p50_s": told["median_tpot_ms"] / 1000,
    }


def bench_arguments(engine: Engine, point: LoadPoint, slo: Slo) -> list[str]:
    """The load point in the words of `vllm bench serve`. Repetitive prompts it cannot make; they are random there."""
    work, load = point.workload, point.load
    prompts = PROMPTS_PER_STREAM * load.concurrency if load.concurrency else work.requests * REPEATS
    data = [part for name, value in prompts_of(work).items() for part in (f"--{name.replace('_', '-')}", str(value))]
    limits = {"ttft": slo.ttft_s, "tpot": slo.itl_s, "e2el": slo.e2e_s}
    return [
        "--backend", "openai", "--base-url", engine.base_url, "--endpoint", "/v1/completions",
        "--model", engine.model_name, "--tokenizer", engine.deployment.tokenizer, *data,
        "--num-prompts", str(prompts), "--ignore-eos", "--disable-tqdm", "--percentile-metrics", "ttft,tpot,itl,e2el",
        *(["--max-concurrency", str(load.concurrency)] if load.concurrency else ["--request-rate", str(load.rate)]),
        "--goodput", *(f"{name}:{limit * 1000:g}" for name, limit in limits.items() if limit is not None),
    ]  # fmt: skip


def verdict(
    policy: Policy, arm: Measured, baseline: Measured, *, claim: str, categories: Mapping[str, str]
) -> tuple[str, str]:
    """Promote or reject with the reason: every required bound held against point values; nothing is ever unsure.

    `categories` are the suites' by name. Flips and divergences are not looked at: averages do not show them.
    """
    for gate in policy.gates:
        if not gate.required:
            continue
        for scope, value in _points(gate, arm, baseline, claim, categories):
            if not _holds(gate, value):
                return "reject", f"{gate.metric} at {scope} is {value:.3f}"
    return "promote", "every average is within its bound"


def _points(
    gate: Gate, arm: Measured, baseline: Measured, claim: str, categories: Mapping[str, str]
) -> Sequence[tuple[str, float]]:
    if gate.metric == "score":
        return [
            (suite, arm.scores[suite] - baseline.scores[suite])
            for suite, category in categories.items()
            if category == gate.category
        ]
    points = [claim] if gate.on == "claimed" else list(arm.speeds)
    if gate.category == "cost":
        rate = "goodput_per_s" if gate.metric == "usd_per_million_slo_tokens" else "output_tokens_per_s"
        return [(point, 1 / _ratio(arm, baseline, point, rate)) for point in points]
    if gate.category == "speed":
        return [(point, _ratio(arm, baseline, point, gate.metric)) for point in points]
    return []


def _ratio(arm: Measured, baseline: Measured, point: str, metric: str) -> float:
    ours, theirs = (statistics.fmean(each.speeds[point][metric]) for each in (arm, baseline))
    if theirs > 0:
        return max(ours / theirs, 1e-9)
    return 1.0 if ours == 0 else 1e9


def _holds(gate: Gate, value: float) -> bool:
    if gate.margin is not None:
        return value >= -gate.margin
    if gate.at_least is not None:
        return value >= gate.at_least
    return gate.at_most is not None and value <= gate.at_most
