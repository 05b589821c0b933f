"""Rows of the baseline's profile: where its time goes, what the machine could do, and which levers should pay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from steelyard.records_base import ARM, DIGEST, RUN, Row, col


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow(Row):
    TABLE = "profiles"
    KEY = ("run_id", "arm", "load_point")
    MEANING = (
        "Where an arm's time goes at one load point: the same requests without and with the engine's profiler, outside "
        "of all trials, before any candidate is timed."
    )

    run_id: str = col(RUN)
    arm: str = col(ARM)
    load_point: str = col("Workload and load.")
    deployment_digest: str = col(DIGEST + " The arm as it is measured, without the profiler.")
    profiled_at: datetime = col("Start of the first pass.", "UTC")
    requests: int = col("Requests of each pass.", "requests")
    output_tokens: int | None = col("Tokens generated in a pass without the profiler.", "tokens")
    plain_s: float | None = col("Duration of a pass without the profiler, the mean of one before and one after.", "s")
    traced_s: float | None = col("Duration of the pass with it.", "s")
    overhead: float | None = col(
        "What the profiler costs: traced_s over plain_s, less one. NULL under arrivals, which take as long either way.",
        "share",
    )
    steps: int = col("Steps of the engine in the trace.", "steps")
    traced_steps_s: float | None = col("Time from the first traced step to the end of the last.", "s")
    idle_s: float | None = col("Part of that in which no request was in flight.", "s")
    sequences: float | None = col("Mean requests in a step, weighted by its time.", "requests")
    max_sequences: int | None = col("Most the engine would take into one step (max_num_seqs).", "requests")
    kv_tokens: float | None = col("Mean tokens in the KV cache that a step looks at, weighted by its time.", "tokens")
    kv_capacity_tokens: int | None = col("Tokens that fit into the KV cache.", "tokens")
    preemptions: int | None = col("Requests thrown out of the KV cache in a plain pass.", "requests")
    cache_queried_tokens: int | None = col("Prompt tokens looked up in the prefix cache in a plain pass.", "tokens")
    cache_hit_tokens: int | None = col("Of these, found.", "tokens")
    queue_s: float | None = col("Mean time of a request in the queue, by the engine's own counters.", "s")
    prefill_s: float | None = col("Mean time of a request in prefill, by the same.", "s")
    decode_s: float | None = col("Mean time of a request in decode, by the same.", "s")
    error: str | None = col("Why there is no trace; NULL if there is one.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileStepRow(Row):
    TABLE = "profile_steps"
    KEY = ("run_id", "arm", "load_point", "step")
    MEANING = (
        "One traced step of the engine: what was in its batch, and where its time went. Times include the tracing."
    )

    run_id: str = col(RUN)
    arm: str = col(ARM)
    load_point: str = col("Workload and load.")
    step: int = col("Place in the trace, from 0.")
    start_s: float = col("Start.", "s since the first step")
    seconds: float = col("Duration of the step itself.", "s")
    until_next_s: float = col("From its start to that of the next; of the last one its duration.", "s")
    idle_s: float = col("Part of that in which no request was in flight.", "s")
    context_requests: int = col("Requests whose prompt was read in it.", "requests")
    context_tokens: int = col("Prompt tokens computed.", "tokens")
    context_entries: int | None = col("Tokens in the KV cache of these requests; NULL in older traces.", "tokens")
    context_pairs: int | None = col("Query-key pairs of these requests; NULL in older traces.", "pairs")
    generation_requests: int = col("Requests that were given a next token.", "requests")
    generation_tokens: int = col("Tokens computed for them: more than requests where drafts are verified.", "tokens")
    generation_entries: int | None = col("Tokens in the KV cache of these requests; NULL in older traces.", "tokens")
    generation_pairs: int | None = col("Query-key pairs of these requests; NULL in older traces.", "pairs")
    gemm_s: float = col("Matrix products.", "s")
    attention_s: float = col("Attention and the writes to its cache.", "s")
    normalisation_s: float = col("Norms.", "s")
    elementwise_s: float = col("Activations, positions, copies, casts, look-ups.", "s")
    sampling_s: float = col("From logits to token ids.", "s")
    communication_s: float = col("Between devices.", "s")
    host_s: float = col("Python and dispatch within the step, while no operator ran.", "s")
    scheduling_s: float = col("Between this step and the next, while there was work: scheduler and server.", "s")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow(Row):
    TABLE = "operators"
    KEY = ("run_id", "arm", "load_point", "phase", "category", "operator")
    MEANING = "One operator over all traced steps of a phase: an outermost operator of torch, or a kernel on a GPU."

    run_id: str = col(RUN)
    arm: str = col(ARM)
    load_point: str = col("Workload and load.")
    phase: str = col("prefill (steps that read a prompt, also beside decodes), decode, or idle.")
    category: str = col("gemm, attention, normalisation, elementwise, sampling or communication.")
    operator: str = col("Name in the trace, first 200 characters.")
    calls: int = col("How often it ran.", "calls")
    seconds: float = col("Time in it, tracing included.", "s")


@dataclass(frozen=True, slots=True, kw_only=True)
class CeilingRow(Row):
    TABLE = "ceilings"
    KEY = ("run_id", "kind", "dtype", "size")
    MEANING = "What this machine can do at most, measured in this run with the threads of the baseline."

    run_id: str = col(RUN)
    kind: str = col(
        "peak (of a large matrix product), read (of memory), layers or head (all matrix products of the model's "
        "layers, or its output projection, for so many tokens)."
    )
    dtype: str = col("Data type of a product; empty for read.")
    size: int = col("Rows of the product, bytes of the buffer, or tokens.")
    value: float = col("Operations/s of a peak, bytes/s of a read, else seconds.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineRow(Row):
    TABLE = "rooflines"
    KEY = ("run_id", "arm", "load_point", "phase")
    MEANING = (
        "What an arm makes of the machine in one phase: operations and bytes counted from the model, and ceilings."
    )

    run_id: str = col(RUN)
    arm: str = col(ARM)
    load_point: str = col("Workload and load.")
    phase: str = col("prefill (steps that read a prompt, also beside decodes) or decode.")
    steps: int = col("Traced steps.", "steps")
    seconds: float = col("Their time from start to start, without idle time and the profiler's overhead.", "s")
    tokens: int = col("Tokens computed in them.", "tokens")
    operations: float = col("Floating-point operations of matrices and attention.", "operations")
    weight_bytes: float | None = col("Weights read.", "bytes")
    kv_bytes: float | None = col("Keys and values read and written; NULL where the trace does not tell.", "bytes")
    peak_operations_per_s: float | None = col("Ceiling: matrix product in the arm's data type.", "operations/s")
    peak_bytes_per_s: float | None = col(
        "Ceiling: reads of a buffer as large as the weights (2 GiB at most); above the memory's own where a cache "
        "holds them.",
        "bytes/s",
    )
    mfu: float | None = col("Model FLOPs utilisation: operations over seconds, over the ceiling.", "0..1")
    mbu: float | None = col("Model bandwidth utilisation: bytes over seconds, over the ceiling.", "0..1")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpportunityRow(Row):
    TABLE = "opportunities"
    KEY = ("run_id", "name", "load_point")
    MEANING = (
        "What a lever should bring, predicted from the baseline's profile before any candidate was timed. Beside what "
        "was measured: view predicted_vs_measured."
    )

    run_id: str = col(RUN)
    name: str = col("Arm of the study, or entry of the catalogue of levers that the study does not try.")
    load_point: str = col("Workload and load.")
    tried_by: str | None = col("The arm that tries it; NULL if none does.")
    lever: str | None = col("Kind of optimization; NULL for baseline and controls.")
    rank: int = col("Place by the largest gain predicted at any load point, from 1.")
    mechanism: str = col("Why it should pay, in a sentence.")
    evidence: str = col("The figures of the profile that say so.")
    predicted: float | None = col(
        "Output tokens/s over the baseline's; NULL where there is no model of this lever.", "ratio"
    )
    low: float | None = col("Lower end of the prediction.", "ratio")
    high: float | None = col("Upper end.", "ratio")
    reason: str | None = col("Why nothing is predicted; NULL if something is.")
    risk: str = col("What answers may suffer: none, rounding, approximation, damage; unknown if not catalogued.")
    cost_s: float | None = col("Trials it needs in this study if it is as fast as the baseline, all blocks.", "s")
    predicted_at: datetime = col("When.", "UTC")


PROFILE_ROWS: tuple[type[Row], ...] = (
    ProfileRow, ProfileStepRow, OperatorRow, CeilingRow, RooflineRow, OpportunityRow,
)  # fmt: skip
