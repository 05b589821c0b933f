"""Rows of load: trials, their requests and engine counters, and the probes of a capacity search."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from steelyard.records_base import ARM, DIGEST, RUN, Row, col, later

TAIL = (
    "{1} bound of the 95th percentile of {0} (order statistics, 95 %, as if requests were independent: it describes "
    "this trial); NULL with fewer than 72 requests."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow(Row):
    TABLE = "trials"
    KEY = ("trial_id",)
    MEANING = "One arm under one load point in one block. Blocks are the replicates."

    trial_id: str = col("sha256 prefix over run, arm, load point and block.")
    run_id: str = col(RUN)
    arm: str = col(ARM)
    deployment_digest: str = col(DIGEST)
    workload: str = col("Name of the workload.")
    load_point: str = col("Workload and load, such as chat@c8 (closed loop) or chat@r4 (Poisson).")
    block: int = col("Block, from 0: all arms of a block get the same prompts and arrival times.")
    position: int = col(
        "Place of the arm in its block, from 0: random in even blocks, the reverse of the block before in odd ones."
    )
    started_at: datetime = col("Start of the measured window.", "UTC")
    duration_s: float = col("From the first scheduled request to the last end.", "s")
    requests: int = col("Requests sent.", "requests")
    completed: int = col("Requests that ended well.", "requests")
    failed: int = col("Requests that did not.", "requests")
    input_tokens: int | None = col("Prompt tokens of completed requests; NULL if another tool did not tell.", "tokens")
    output_tokens: int | None = col(
        "Generated tokens of completed requests; NULL if another tool did not tell.", "tokens"
    )
    cached_tokens: int | None = col(
        "Prompt tokens the engine took from its prefix cache, by its own counter.", "tokens"
    )
    output_tokens_per_s: float | None = col("Output tokens over the duration.", "tokens/s")
    requests_per_s: float | None = col("Completed requests over the duration.", "requests/s")
    goodput_per_s: float | None = col("Completed requests that met the SLO, over the duration.", "requests/s")
    slo_tokens_per_s: float | None = col("Output tokens of requests that met the SLO, over the duration.", "tokens/s")
    slo_share: float | None = col("Share of all sent requests that met the SLO.", "0..1")
    ttft_p50_s: float | None = col("Median time to first token, from scheduled time (open loop) or sending.", "s")
    ttft_p95_s: float | None = col("95th percentile of TTFT; NULL with fewer than 72 requests.", "s")
    itl_p50_s: float | None = col("Median over requests of the mean inter-token latency.", "s")
    itl_p95_s: float | None = col("95th percentile of the same; NULL with fewer than 72 requests.", "s")
    e2e_p50_s: float | None = col("Median end-to-end latency.", "s")
    e2e_p95_s: float | None = col("95th percentile of the same; NULL with fewer than 72 requests.", "s")
    lateness_p95_s: float | None = col("95th percentile of sent minus scheduled: the client's own lag.", "s")
    client_cpu_share: float | None = col("CPU time of the client over the duration; 1 is one core.", "cores")
    engine_output_tokens: int | None = col("Output tokens by the engine's own counter.", "tokens")
    valid: bool = col("Whether client and engine proved themselves; an invalid trial is kept, never compared.")
    invalid_reasons: list[str] = col("Why it is not valid; empty if it is.")
    itl_drift: float | None = later(
        "Change of the requests' mean ITL from the trial's beginning to its end (Theil-Sen), over their median: 0.1 is "
        "a tenth slower. In a closed loop over its full part only. NULL with fewer than 10 such requests.",
        "share",
    )
    itl_drift_p: float | None = later(
        "Two-sided p-value of that drift (Mann-Kendall, corrected for autocorrelation by Hamed and Rao)."
    )
    ttft_p95_low_s: float | None = later(TAIL.format("TTFT", "Lower"), "s")
    ttft_p95_high_s: float | None = later(TAIL.format("TTFT", "Upper"), "s")
    itl_p95_low_s: float | None = later(TAIL.format("ITL", "Lower"), "s")
    itl_p95_high_s: float | None = later(TAIL.format("ITL", "Upper"), "s")
    e2e_p95_low_s: float | None = later(TAIL.format("E2E latency", "Lower"), "s")
    e2e_p95_high_s: float | None = later(TAIL.format("E2E latency", "Upper"), "s")
    saturated: bool | None = later(
        "Open loop: whether the number of requests in flight only grew, so that latencies depend on how long the trial "
        "was. NULL for a closed loop, and with fewer than 10 requests."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow(Row):
    TABLE = "requests"
    KEY = ("trial_id", "request_index")
    MEANING = "One request. Moments are seconds since the start of its trial."

    trial_id: str = col("Trial the request belongs to.")
    request_index: int = col("Index in the trial, from 0; the same index is the same prompt in every arm of a block.")
    run_id: str = col(RUN)
    arm: str = col(ARM)
    deployment_digest: str = col(DIGEST)
    prompt_hash: str = col("sha256 of the prompt.")
    scheduled_s: float = col("When it was due.", "s since trial start")
    sent_s: float | None = col("When it was sent.", "s since trial start")
    first_token_s: float | None = col("When its first token came.", "s since trial start")
    end_s: float | None = col("When its stream ended.", "s since trial start")
    token_times_s: list[float] = col(
        "When each chunk with tokens came. An engine may merge tokens into one chunk, so ITL is the span from first to "
        "last entry over output_tokens - 1, not the mean gap.",
        "s since trial start",
    )
    prompt_tokens: int | None = col(
        "Prompt tokens planned, by the model's tokenizer; NULL if another tool did not tell.", "tokens"
    )
    input_tokens: int | None = col("Prompt tokens the engine counted.", "tokens")
    output_tokens: int | None = col("Output tokens the engine counted.", "tokens")
    status: str = col("ok, http_error, broken_stream, timeout, refused or no_tokens.")
    error: str | None = col("What went wrong, first 500 characters.")
    finish_reason: str | None = col("Why generation stopped, as the engine says.")
    met_slo: bool | None = col("Whether it met the SLO; a failed request did not.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMetricRow(Row):
    TABLE = "engine_metrics"
    KEY = ("trial_id", "metric")
    MEANING = "What the engine's own metrics say of one trial: differences of counters, last values of gauges."

    trial_id: str = col("Trial the metric belongs to.")
    metric: str = col("Prometheus name as the engine gives it, labels dropped and summed.")
    run_id: str = col(RUN)
    arm: str = col(ARM)
    deployment_digest: str = col(DIGEST)
    kind: str = col("counter (difference over the trial) or gauge (value at its end).")
    value: float = col("Value in the unit the metric's name ends in.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRow(Row):
    TABLE = "probes"
    KEY = ("run_id", "arm", "scope", "block", "number")
    MEANING = "One probe of a search for the largest arrival rate at which the SLO holds."

    run_id: str = col(RUN)
    arm: str = col(ARM)
    scope: str = col("What is searched: the workload, such as chat@slo.")
    block: int = col("Block, from 0: all arms of a block get the same prompts and arrival times.")
    number: int = col("Place in the search, from 0.")
    deployment_digest: str = col(DIGEST)
    position: int = col(
        "Place of the arm in its block, from 0: random in even blocks, the reverse of the block before in odd ones."
    )
    rate: float = col("Mean Poisson arrivals.", "requests/s")
    started_at: datetime = col("Start of the measured window.", "UTC")
    duration_s: float = col("From the first scheduled request to the last end.", "s")
    requests: int = col("Requests sent.", "requests")
    failed: int = col("Requests that did not end well.", "requests")
    met: int = col("Requests that met the SLO; a failed one did not.", "requests")
    saturated: bool | None = col("Whether the number of requests in flight only grew: then the SLO does not hold.")
    error: str | None = col("What went wrong with the first request that failed.")
    due_s: list[float] = col("When each request was due.", "s since the probe's start")
    ttft_s: list[float | None] = col("TTFT of each request from when it was due; NULL in it for one that failed.", "s")
    itl_s: list[float | None] = col("Mean ITL of each request; NULL in it for one that failed or gave one token.", "s")
    e2e_s: list[float | None] = col("Latency of each request from when it was due; NULL in it if it failed.", "s")
    output_tokens_per_s: float | None = col("Output tokens over the duration.", "tokens/s")
    lateness_p95_s: float | None = col("95th percentile of sent minus scheduled: the client's own lag.", "s")
    client_cpu_share: float | None = col("CPU time of the client over the duration; 1 is one core.", "cores")
    valid: bool = col("Whether client and engine proved themselves; an invalid trial is kept, never compared.")
    invalid_reasons: list[str] = col("Why it is not valid; empty if it is.")


TRIAL_ROWS: tuple[type[Row], ...] = (TrialRow, RequestRow, EngineMetricRow, ProbeRow)
