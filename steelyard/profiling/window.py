"""One load point of a served engine, profiled: plain, traced, plain again, with the same requests.

The engine is one of its own, started with vLLM's torch profiler beside the baseline's arguments, and is gone before
any candidate is timed. The plain passes before and after the traced one tell what tracing costs; the traced one tells
where the time goes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from steelyard.engines.base import Deployment, Engine
from steelyard.engines.http import NoAnswerInTime, Unreachable, ask
from steelyard.engines.probe import check_alive
from steelyard.errors import CrashedWhileServing, EngineError, InfrastructureError, SteelyardError
from steelyard.load.trial import Trial, run_trial
from steelyard.load.workloads import PlannedRequest, plan_requests, plan_warmup
from steelyard.profiling.phases import phase_seconds, plain_name
from steelyard.profiling.rows import Window, step_rows, summed
from steelyard.profiling.trace import Trace, read_trace
from steelyard.records_profile import OperatorRow, ProfileRow, ProfileStepRow
from steelyard.study import LoadPoint, Study
from steelyard.wall_time import WALL_TIME

STOP_S = 300.0
START_S = 30.0
SETTLE_S = 20.0
ANSWERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """The rows of one load point, the requests that were sent, and the engine's answers to the first of them."""

    profile: ProfileRow
    steps: Sequence[ProfileStepRow] = ()
    operators: Sequence[OperatorRow] = ()
    planned: Sequence[PlannedRequest] = ()
    answers: Sequence[tuple[int, ...]] = ()


def profiling(deployment: Deployment, traces: Path) -> Deployment:
    """The same deployment with the profiler ready, writing into `traces`. Uncompressed: compressing takes ten times as
    long as writing. Raises InfrastructureError for an engine that has none.
    """
    if deployment.engine != "vllm" or deployment.faults is not None:
        raise InfrastructureError(
            f"An engine of kind {deployment.engine} has no profiler that Steelyard can ask.",
            remedy="Profiles are made of vLLM, started by Steelyard.",
        )
    config = {
        "profiler": "torch", "torch_profiler_dir": str(traces.resolve()), "torch_profiler_with_stack": False,
        "torch_profiler_record_shapes": False, "torch_profiler_use_gzip": False, "detailed_trace_annotation": True,
        # A table of operators that nobody reads takes longer than the profile.
        "torch_profiler_dump_cuda_time_total": False, "ignore_frontend": True,
    }  # fmt: skip
    return replace(deployment, args={**deployment.args, "profiler_config": config})


def requests_of(point: LoadPoint, steps: int, seats: int) -> int:
    """Requests of a pass: about as many as `steps` steps need if all `seats` are taken, two rounds of those that run at
    once at least, and no more than a trial sends.
    """
    width = min(point.load.concurrency or 1, seats)
    each = point.workload.output_tokens / width + 1
    least = 2 * width if point.load.concurrency else 8
    return min(point.workload.requests, max(least, math.ceil(steps / each)))


def profile_point(
    engine: Engine, point: LoadPoint, study: Study, tokenizer: Any, *, steps: int, traces: Path, run_id: str,
    deployment_digest: str,
) -> Profiled:  # fmt: skip
    """Profile one load point of an engine that `profiling` made ready. Rows are named after `deployment_digest`, the
    arm as it is measured.

    Some requests are asked once more, for the tokens of their answers. What the profiler or its trace lacks is said in
    the row's `error`. Raises EngineError if the engine dies, or fails requests.
    """
    seats = seats_of(engine.resolved)
    count = requests_of(point, steps, seats or steps)
    short = LoadPoint(workload=point.workload.model_copy(update={"requests": count}), load=point.load)
    planned = plan_requests(short, tokenizer, seed=study.seed, block=-1)
    warmup = plan_warmup(short, tokenizer, seed=study.seed, block=-1, requests=study.warmup_requests)

    def a_pass(number: int, warmed: Sequence[PlannedRequest] = warmup) -> Trial:
        trial = run_trial(
            engine, short, planned, slo=study.slo_of(point.workload), warmup=warmed, run_id=run_id, block=number,
            position=0,
        )  # fmt: skip
        if trial.row.completed < trial.row.requests:
            check_alive(engine)
            raise CrashedWhileServing(
                f"{trial.row.failed} of {trial.row.requests} requests failed while the baseline was profiled.",
                remedy="The engine still answers; its log says why these requests failed.", arm=engine.arm,
            )  # fmt: skip
        return trial

    before = a_pass(-3)
    error, trace, traced = None, None, None
    try:
        # Without a warm-up of its own, which would be in the trace: the pass before has warmed the engine.
        traced, trace = _traced(engine, lambda: a_pass(-2, ()), traces)
    except EngineError:
        raise
    except SteelyardError as failure:
        error = failure.message
    after = a_pass(-1)
    plain = [before, after]
    counted = {name: _mean([each.get(name) for each in map(_counters, plain)]) for name in _NAMES}
    plain_s = _mean([each.row.duration_s for each in plain])
    traced_s = traced.row.duration_s if traced else None
    queue, prefill, decode = _phases(plain).values()
    window = Window(trace, _epoch(traced), _in_flight(traced)) if trace and traced else None
    found = step_rows(run_id, engine.arm, point.name, window) if window else ([], [])
    row = ProfileRow(
        run_id=run_id, arm=engine.arm, load_point=point.name, deployment_digest=deployment_digest,
        profiled_at=before.row.started_at, requests=count, output_tokens=before.row.output_tokens,
        plain_s=plain_s, traced_s=traced_s,
        # Under arrivals a pass takes as long as they do, whatever a step takes.
        overhead=traced_s / plain_s - 1 if traced_s is not None and plain_s and point.load.concurrency else None,
        max_sequences=seats, kv_capacity_tokens=kv_capacity(engine),
        preemptions=_whole(counted["num_preemptions"]), cache_queried_tokens=_whole(counted["prefix_cache_queries"]),
        cache_hit_tokens=_whole(counted["prefix_cache_hits"]), queue_s=queue, prefill_s=prefill, decode_s=decode,
        error=error, **summed(found[0]),
    )  # fmt: skip
    spoken = answers_of(engine, planned, ANSWERS)
    return Profiled(profile=row, steps=found[0], operators=found[1], planned=planned, answers=spoken)


_NAMES = ("num_preemptions", "prefix_cache_queries", "prefix_cache_hits")


def not_profiled(run_id: str, arm: str, point: str, digest: str, now: Any, why: str) -> Profiled:
    """The row of a load point that could not be profiled at all."""
    unknown: dict[str, Any] = dict.fromkeys(field.name for field in fields(ProfileRow))
    known = {
        "run_id": run_id, "arm": arm, "load_point": point, "deployment_digest": digest, "profiled_at": now,
        "requests": 0, "steps": 0, "error": why,
    }  # fmt: skip
    return Profiled(profile=ProfileRow(**{**unknown, **known}))


def _traced(engine: Engine, work: Any, traces: Path) -> tuple[Trial, Trace]:
    traces.mkdir(parents=True, exist_ok=True)
    for old in traces.glob("*"):
        old.unlink()
    _tell(engine, "start_profile", START_S)
    try:
        trial = work()
    finally:
        _tell(engine, "stop_profile", STOP_S)
    deadline = time.monotonic() + SETTLE_S
    while not (files := sorted(traces.glob("*.json*"), key=lambda path: path.stat().st_size)):
        if time.monotonic() > deadline:
            raise InfrastructureError(
                "The engine wrote no trace.", remedy=f"Its log {engine.log} says why.",
            )  # fmt: skip
        time.sleep(0.1)
    # Workers of the same model do the same; the longest trace is that of one of them.
    try:
        return trial, read_trace(files[-1])
    finally:
        for path in traces.glob("*"):
            path.unlink()


def _tell(engine: Engine, what: str, timeout_s: float) -> None:
    try:
        with WALL_TIME.engines("answering"):
            answer = ask(f"{engine.base_url}/{what}", payload={}, timeout_s=timeout_s)
    except (Unreachable, NoAnswerInTime) as error:
        raise InfrastructureError(
            f"The engine gave no answer to {what}: {error}.", remedy=f"Its log is {engine.log}."
        ) from error
    if not answer.ok:
        raise InfrastructureError(
            f"The engine answered {answer.status} to {what}: {answer.text or 'nothing'}.",
            remedy="This version of vLLM may have no torch profiler.",
        )


def seats_of(resolved: Mapping[str, Any]) -> int | None:
    """`max_num_seqs` as the engine resolved it."""
    value = (resolved.get("scheduler_config") or {}).get("max_num_seqs")
    return int(value) if isinstance(value, int) else None


def kv_capacity(engine: Engine) -> int | None:
    """Tokens that fit into the engine's KV cache: blocks and their size, from its own `cache_config_info` metric."""
    with suppress(Unreachable, NoAnswerInTime):
        text = ask(f"{engine.base_url}/metrics", timeout_s=10.0)
        for line in text.body.decode(errors="replace").splitlines() if text.ok else ():
            if line.startswith("vllm:cache_config_info{"):
                labels = dict(
                    part.split("=", 1)
                    for part in line[line.index("{") + 1 : line.rindex("}")].split(",")
                    if "=" in part
                )
                blocks, size = labels.get("num_gpu_blocks", "").strip('"'), labels.get("block_size", "").strip('"')
                if blocks.isdigit() and size.isdigit():
                    return int(blocks) * int(size)
    return None


def _counters(trial: Trial) -> dict[str, float]:
    return {plain_name(row.metric): row.value for row in trial.metrics if row.kind == "counter"}


def _phases(trials: Sequence[Trial]) -> dict[str, float | None]:
    completed = sum(each.row.completed for each in trials)
    names = {name for each in trials for name in _counters(each)}
    total = {name: math.fsum(_counters(each).get(name, 0.0) for each in trials) for name in names}
    return phase_seconds(total, completed) if completed else dict.fromkeys(("queue", "prefill", "decode"))


def _in_flight(trial: Trial | None) -> list[tuple[float, float]]:
    """When requests were in flight, seconds since the pass began, each as (sent, ended)."""
    rows = trial.requests if trial else []
    return [(row.sent_s, row.end_s) for row in rows if row.sent_s is not None and row.end_s is not None]


def _epoch(trial: Trial | None) -> float:
    return trial.row.started_at.timestamp() if trial else 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def answers_of(engine: Engine, planned: Sequence[PlannedRequest], most: int) -> list[tuple[int, ...]]:
    """The engine's greedy answers to the first `most` requests, as token ids; empty if it does not give them.

    Drafts are replayed over them. Asked one after another, outside of every pass.
    """
    found: list[tuple[int, ...]] = []
    for each in planned[:most]:
        body = {
            "model": engine.model_name, "prompt": each.prompt, "max_tokens": each.output_tokens, "temperature": 0,
            "ignore_eos": True, "return_token_ids": True,
        }  # fmt: skip
        try:
            with WALL_TIME.engines("answering"):
                told = ask(
                    f"{engine.base_url}/v1/completions", payload=body, timeout_s=engine.deployment.max_answer_wait_s
                )
        except (Unreachable, NoAnswerInTime):
            return []
        choices = (told.json() or {}).get("choices") if told.ok else None
        ids = choices[0].get("token_ids") if isinstance(choices, list) and choices else None
        if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
            return []
        found.append(tuple(ids))
    return found


def planned_ids(tokenizer: Any, planned: Sequence[PlannedRequest]) -> list[tuple[int, ...]]:
    """Token ids of the planned prompts, as the engine encodes them."""
    found = tokenizer([each.prompt for each in planned], add_special_tokens=True, verbose=False)["input_ids"]
    return [tuple(ids) for ids in found]
