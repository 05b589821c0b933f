"""One trial: warm up, send, read the engine's own counters before and after, and judge whether to believe it."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from steelyard.digest import digest
from steelyard.engines.base import Engine
from steelyard.engines.probe import is_local, reset_prefix_cache, scrape
from steelyard.load.client import OK, Dialect, RequestRecord, Run, drive
from steelyard.load.client_doubts import client_doubts, worst_of_95
from steelyard.load.figures import duration, known, lateness, meets, trial_figures
from steelyard.load.steady import steady_figures
from steelyard.load.workloads import PlannedRequest
from steelyard.records_trials import EngineMetricRow, RequestRow, TrialRow
from steelyard.stats.quantiles import quantile
from steelyard.study import Load, LoadPoint, Slo

PROMPT_TOKENS = "vllm:prompt_tokens_total"
OUTPUT_TOKENS = "vllm:generation_tokens_total"
CACHE_HITS = "vllm:prefix_cache_hits_total"

LATENESS_S = 0.010
LATENESS_SHARE = 0.01
MAX_CPU_SHARE = 0.9
MAX_FAILED_SHARE = 0.02
MAX_CACHED_SHARE = 0.05
MAX_SHORT_SHARE = 0.02
LENGTHS = "its answers hold "
"""How reasons begin that rest on the planned output lengths."""
# Engines update their counters in the loop that answers requests, so the last step may be missing for a moment.
SETTLE_S = 1.0
SETTLE_STEP_S = 0.05

Metrics = Mapping[str, tuple[str, float]]


class Trial(NamedTuple):
    """The rows of one trial, ready to be stored together."""

    row: TrialRow
    requests: list[RequestRow]
    metrics: list[EngineMetricRow]


def trial_id(run_id: str, arm: str, load_point: str, block: int) -> str:
    """16 hex digits that name a trial, so that a resumed run knows what it has."""
    return digest([run_id, arm, load_point, block])[:16]


def run_trial(
    engine: Engine,
    point: LoadPoint,
    planned: Sequence[PlannedRequest],
    *,
    slo: Slo,
    warmup: Sequence[PlannedRequest],
    run_id: str,
    block: int,
    position: int,
    identity: str | None = None,
    may_fail: bool = False,
) -> Trial:
    """Measure `engine` under `point` and return the rows, valid or not. `identity` is the trial's id, where it is not
    one of a block; with `may_fail` failed requests are no reason against it.

    The prefix cache is reset before the warm-up and again before the measured window; where it cannot be (a production
    vLLM has no such endpoint), requests carry a `cache_salt` that no other trial uses. The longest silence allowed is
    the deployment's `max_answer_wait_s`. Raises EngineError only if the engine cannot even be asked for its metrics.
    """
    dialect = Dialect()
    timeout_s = engine.deployment.max_answer_wait_s
    api_key = None if is_local(engine) else os.environ.get("STEELYARD_API_KEY")

    identity = identity or trial_id(run_id, engine.arm, point.name, block)
    # New for each attempt: a repeated trial has the same id and the same prompts.
    attempt = secrets.token_hex(4)

    def send(requests: Sequence[PlannedRequest], load: Load, *, cold: bool, salt: str) -> Run:
        salted = not cold and _looks_like_vllm(engine)
        return drive(
            engine.base_url, engine.model_name, requests, load=load, timeout_s=timeout_s, api_key=api_key,
            dialect=dialect, extra_body={"cache_salt": salt} if salted else None,
        )  # fmt: skip

    cold = reset_prefix_cache(engine)
    if warmup:
        # In a closed loop as wide as the measured one, so that batch shapes are compiled before they are timed.
        width = min(len(warmup), point.load.concurrency or len(warmup))
        send(warmup, Load(concurrency=width, rate=None), cold=cold, salt=f"{identity}-{attempt}-warmup")
        cold = reset_prefix_cache(engine)
    before = scrape(engine)
    run = send(planned, point.load, cold=cold, salt=f"{identity}-{attempt}")
    counted = _changes(before, _settled(engine, before, run.records))

    figures = trial_figures(run.records, slo, duration_s=duration(run.records, run.wall_s))
    cached = counted.get(CACHE_HITS)
    engine_output = counted.get(OUTPUT_TOKENS)
    cpu_share = run.cpu_s / run.wall_s if run.wall_s > 0 else None
    reasons = invalid_reasons(
        point, planned, run.records, lateness=lateness(run.records), cpu_share=cpu_share,
        engine_output_tokens=engine_output[1] if engine_output else None, cached_tokens=cached[1] if cached else None,
        maybe_warm=not cold and _may_be_warm(engine), lags_s=run.lags_s, kernel_stamps=run.kernel_stamps,
        may_fail=may_fail,
    )  # fmt: skip

    row = TrialRow(
        trial_id=identity,
        run_id=run_id,
        arm=engine.arm,
        deployment_digest=engine.digest,
        workload=point.workload.name,
        load_point=point.name,
        block=block,
        position=position,
        started_at=run.started_at,
        **figures,
        **steady_figures(run.records, point.load),
        cached_tokens=round(cached[1]) if cached else None,
        client_cpu_share=cpu_share,
        engine_output_tokens=round(engine_output[1]) if engine_output else None,
        valid=not reasons,
        invalid_reasons=reasons,
    )
    return Trial(
        row,
        [_request_row(row, plan, record, slo) for plan, record in zip(planned, run.records, strict=True)],
        [
            EngineMetricRow(
                trial_id=identity, metric=name, run_id=run_id, arm=engine.arm, deployment_digest=engine.digest,
                kind=kind, value=value,
            )
            for name, (kind, value) in sorted(counted.items())
        ],
    )  # fmt: skip


def invalid_reasons(
    point: LoadPoint,
    planned: Sequence[PlannedRequest],
    records: Sequence[RequestRecord],
    *,
    lateness: Sequence[float],
    cpu_share: float | None,
    engine_output_tokens: float | None,
    cached_tokens: float | None,
    maybe_warm: bool = False,
    lags_s: Sequence[float] = (),
    kernel_stamps: bool = True,
    may_fail: bool = False,
) -> list[str]:
    """Why a trial must not be compared, in plain English; empty if client and engine proved themselves.

    `maybe_warm` says that the engine may remember prompts of earlier trials. `lags_s` and `kernel_stamps` are the
    client's own (see `Run`). With `may_fail` requests may fail, because that is what is being found out.
    """
    reasons = []
    good = [record for record in records if record.status == OK]
    failed = [record for record in records if record.status != OK]
    if not may_fail and len(failed) > MAX_FAILED_SHARE * len(records):
        kinds = sorted({record.status for record in failed})
        example = next((record.error for record in failed if record.error), None)
        reasons.append(
            f"{len(failed)} of {len(records)} requests failed ({', '.join(kinds)}), more than "
            f"{MAX_FAILED_SHARE:.0%} is too many" + (f": {example[:160]}" if example else "")
        )
    late, median = worst_of_95(lateness), quantile(known(record.e2e_s for record in good), 0.5)
    if late is not None and late > (limit := max(LATENESS_S, LATENESS_SHARE * (median or 0.0))):
        reasons.append(
            f"the client sent late: 95 % of requests within {late * 1000:.1f} ms of their time, "
            f"{limit * 1000:.1f} ms is allowed"
        )
    if cpu_share is not None and cpu_share > MAX_CPU_SHARE:
        reasons.append(
            f"the client used {cpu_share:.2f} of a core, more than {MAX_CPU_SHARE:g}: it may have measured itself"
        )
    reasons += client_doubts(good, lags_s=lags_s, kernel_stamps=kernel_stamps)
    pairs = list(zip(planned, records, strict=True))
    wrong = [
        (plan, record)
        for plan, record in pairs
        if record.input_tokens is not None and record.input_tokens != plan.prompt_tokens
    ]
    if wrong:
        plan, record = wrong[0]
        reasons.append(
            f"the engine counts other prompt tokens than were planned in {len(wrong)} requests "
            f"(request {plan.index}: {record.input_tokens} instead of {plan.prompt_tokens})"
        )
    reported = sum(record.output_tokens or 0 for record in good)
    longer = [
        (plan, record)
        for plan, record in pairs
        if record.output_tokens is not None and record.output_tokens > plan.output_tokens
    ]
    due = sum(plan.output_tokens for plan, record in pairs if record.status == OK)
    if longer:
        plan, record = longer[0]
        reasons.append(
            f"{LENGTHS}more output tokens than were asked for in {len(longer)} requests "
            f"(request {plan.index}: {record.output_tokens} instead of {plan.output_tokens})"
        )
    elif reported < (1 - MAX_SHORT_SHARE) * due:
        reasons.append(
            f"{LENGTHS}{reported} of the {due} output tokens asked for: an arm that ends answers early does less work, "
            "so the engine must honour ignore_eos"
        )
    # A failed request leaves tokens in the engine's counter that no usage reports.
    if engine_output_tokens is not None and not failed and round(engine_output_tokens) != reported:
        reasons.append(
            f"the engine's own counter says {engine_output_tokens:.0f} output tokens, its answers say {reported}"
        )
    prompt_tokens = sum(plan.prompt_tokens for plan in planned)
    declared = point.workload.kind in ("shared_prefix", "repetitive")
    if cached_tokens is not None and not declared and cached_tokens >= MAX_CACHED_SHARE * prompt_tokens:
        reasons.append(
            f"{cached_tokens:.0f} of {prompt_tokens} prompt tokens came from the prefix cache, "
            f"in a workload that declares none"
        )
    if maybe_warm:
        reasons.append("its prefix cache could not be reset, so it may remember the prompts of another arm's trial")
    return reasons


def _owner(engine: Engine) -> str | None:
    """Who an attached engine says it is: `owned_by` of its entry in /v1/models."""
    entry = engine.resolved.get("models_entry")
    owner = entry.get("owned_by") if isinstance(entry, Mapping) else None
    return owner if isinstance(owner, str) else None


def _looks_like_vllm(engine: Engine) -> bool:
    return engine.deployment.engine == "vllm" or _owner(engine) == "vllm"


def _may_be_warm(engine: Engine) -> bool:
    """Whether an engine that cannot be reset may answer from an earlier trial's prompts.

    vLLM is told apart by salts, and our own server ("steelyard") caches nothing. Of any other attached engine nobody
    knows: several cache prefixes without counting it.
    """
    return not is_local(engine) and not _looks_like_vllm(engine) and _owner(engine) != "steelyard"


def _settled(engine: Engine, before: Metrics, records: Sequence[RequestRecord]) -> Metrics:
    """The engine's metrics, once its output counter has caught up with its answers (or will not)."""
    reported = sum(record.output_tokens or 0 for record in records)
    deadline = time.perf_counter() + SETTLE_S
    while True:
        after = scrape(engine)
        counted = _changes(before, after).get(OUTPUT_TOKENS)
        if counted is None or counted[1] >= reported or time.perf_counter() > deadline:
            return after
        time.sleep(SETTLE_STEP_S)


def _changes(before: Metrics, after: Metrics) -> dict[str, tuple[str, float]]:
    """Differences of counters and last values of gauges. A counter that fell was restarted, and says nothing; nor does
    any if the engine told nothing before.
    """
    changes: dict[str, tuple[str, float]] = {}
    for name, (kind, value) in after.items():
        start = before.get(name, (kind, 0.0))[1]
        if kind == "gauge":
            changes[name] = (kind, value)
        elif before and value >= start:
            changes[name] = (kind, value - start)
    return changes


def _request_row(trial: TrialRow, plan: PlannedRequest, record: RequestRecord, slo: Slo) -> RequestRow:
    return RequestRow(
        trial_id=trial.trial_id,
        request_index=plan.index,
        run_id=trial.run_id,
        arm=trial.arm,
        deployment_digest=trial.deployment_digest,
        prompt_hash=plan.prompt_hash,
        scheduled_s=record.scheduled_s,
        sent_s=record.sent_s,
        first_token_s=record.first_token_s,
        end_s=record.end_s,
        token_times_s=record.token_times_s,
        prompt_tokens=plan.prompt_tokens,
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        status=record.status,
        error=record.error,
        finish_reason=record.finish_reason,
        met_slo=meets(record, slo),
    )
