"""Every row Steelyard stores, as frozen dataclasses: the one place where a column gets its name, meaning and unit.

Rows of the profile are in `records_profile`, what all are made of in `records_base`. `warehouse/migrations/*.sql`
creates the same columns and a test holds the two against each other; table and column COMMENTs are written from here.
Times are seconds; a moment is UTC. Unknown is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from steelyard.records_base import ARM, DIGEST, DOCUMENT, RUN, Row, col, later
from steelyard.records_incidents import INCIDENT_ROWS
from steelyard.records_keeping import KEEPING_ROWS
from steelyard.records_profile import PROFILE_ROWS
from steelyard.records_review import REVIEW_ROWS
from steelyard.records_search import SEARCH_ROWS
from steelyard.records_time import WallTimeRow


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow(Row):
    TABLE = "studies"
    KEY = ("run_id",)
    MEANING = "One run of a study: what was asked, on which machine, and how the run ended."

    run_id: str = col(RUN)
    study: str = col("Name of the study.")
    owner: str = col("Owner: an e-mail or team:NAME.")
    study_digest: str = col("sha256 of the study as validated, policy and prices included.")
    policy_digest: str = col("sha256 of the policy as validated; frozen before the first measurement.")
    study_json: str = col("The study, as canonical JSON.")
    policy_json: str = col("The policy, as canonical JSON.")
    seed: int | None = col("Seed of prompts, arrivals, block order and document draws.")
    blocks: int = col("Blocks asked for.", "blocks")
    residency: str = col("resident or exclusive: whether engines stayed up together.")
    residency_reason: str | None = col("Why that residency was used, in a sentence.")
    started_at: datetime = col("When the run first started.", "UTC")
    finished_at: datetime | None = col("When it ended; NULL while it runs or if it was killed.", "UTC")
    status: str = col(
        "running, complete, void or failed; searched if it looked for a stack and judged nobody; imported if another "
        "tool measured it."
    )
    reason: str | None = col("Why it is void or failed.")
    steelyard_version: str = col("Version of Steelyard.")
    git_commit: str | None = col("Commit of the checkout, with -dirty if it had changes; NULL outside git.")
    hostname_digest: str = col("First 12 characters of the sha256 of the host name: tells machines apart, names none.")
    cpu_model: str | None = col("Processor as the operating system names it.")
    cpu_count: int | None = col("Cores available to the run.", "cores")
    memory_bytes: int | None = col("Memory of the machine.", "bytes")
    accelerator: str | None = col("Accelerator name; NULL on a CPU.")
    platform: str = col("Operating system and kernel.")
    python_version: str = col("Python version.")
    packages_json: str = col("Versions of the packages that measure, as JSON.")
    driver_version: str | None = later("Version of the accelerator's driver; NULL without one.")
    submitted_by: str | None = later(
        "Who submitted it: STEELYARD_SUBMITTER, or whoever changed the study last by git; who submits may not approve."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRow(Row):
    TABLE = "arms"
    KEY = ("run_id", "arm")
    MEANING = "One served configuration of a run: asked for, and as the engine resolved it."

    run_id: str = col(RUN)
    arm: str = col(ARM)
    role: str = col("baseline, candidate, identity or known_bad; imported if another tool served it.")
    lever: str | None = col("Kind of optimization; NULL for baseline and controls.")
    claim: str | None = col("Load point where the candidate declared its gain, such as chat@c8.")
    note: str | None = col("What the arm is, in its author's words.")
    engine: str = col("Kind of engine: vllm, transformers, attach or fake; unknown in an imported run.")
    engine_version: str | None = col("Version the engine gave of itself.")
    deployment_digest: str | None = col(DIGEST + " NULL if it never served.")
    weights_digest: str | None = col("sha256 over the weight files; NULL where the engine is somebody else's.")
    tokenizer_digest: str | None = col("sha256 over the tokenizer files.")
    template_digest: str | None = col("sha256 of the chat template in force.")
    args_json: str = col("Arguments asked for, as canonical JSON.")
    env_json: str = col("Environment asked for, as canonical JSON.")
    resolved_json: str | None = col("Configuration the engine resolved, as canonical JSON.")
    start_s: float | None = col("From launch to the first token.", "s")
    status: str = col("served, failed, or imported.")
    error: str | None = col("Named failure and its last log lines, if it failed.")
    attempt: int | None = later(
        "Which attempt of this candidate on this baseline it is, from 1: earlier runs that measured it (by name or by "
        "deployment) and did not promote it, and one. NULL for controls and for what did not serve."
    )
    model: str | None = later("Name of the model it serves.")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRow(Row):
    TABLE = "suites"
    KEY = ("run_id", "arm", "suite")
    MEANING = "One suite against one arm. The row is written with its samples, so its existence means complete."

    run_id: str = col(RUN)
    arm: str = col(ARM)
    suite: str = col("Name of the suite in the study.")
    deployment_digest: str = col(DIGEST)
    category: str = col("accuracy, safety or canary; unknown in an imported run.")
    task: str = col("lm-eval task.")
    task_version: str | None = col("Version the task gives of itself.")
    route: str = col(
        "chat, loglikelihood or mixed: how the engine was asked; generation (imported) in an imported run."
    )
    metric: str = col("Per-sample metric that is scored.")
    documents: int = col("Documents asked.", "documents")
    answered: int = col("Documents with an answer and a score.", "documents")
    mean_score: float | None = col("Mean score over answered documents.", "0..1")
    documents_digest: str = col("sha256 over the sorted document hashes: the same in every arm of a run.")
    lm_eval_version: str = col("Version of lm-eval.")
    duration_s: float | None = col(
        "Wall time of the suite, of the run that asked it where answers are reused; NULL if another tool did not tell.",
        "s",
    )
    empty: int | None = later(
        "Generated answers without any text, scored as what they are; NULL where nothing is generated.", "documents"
    )
    truncated: int | None = later(
        "Generated answers that ended at the task's token limit (finish_reason length), scored as they are; NULL where "
        "nothing is generated.",
        "documents",
    )
    duplicates: int | None = later(
        "Documents asked that repeat another one of the suite to the letter: scored once, and not in documents.",
        "documents",
    )
    judge_json: str | None = later(
        "Judge of the suite as JSON: model, sensitivity and specificity on its labelled answers with exact 95 % "
        "intervals, answers judged, and the unsafe share raw and corrected; NULL without a judge."
    )
    declared: int | None = later(
        "Documents the study would ask at most; fewer were asked where the gates were decided before.", "documents"
    )
    reused_from: str | None = later(
        "Run whose answers these are, of the same deployment in the same environment; NULL if this run asked itself."
    )
    rechecked: int | None = later(
        "Documents that this run asked again before it reused the others' answers.", "documents"
    )
    changed: int | None = later("Of these, documents with another score than before.", "documents")
    reused: int | None = later("Documents whose answers were taken over; this run asked the rest itself.", "documents")

    @property
    def asked(self) -> int:
        """Documents asked so far, those that repeat another one included: the next one's place in the order."""
        return self.documents + (self.duplicates or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow(Row):
    TABLE = "samples"
    KEY = ("run_id", "arm", "suite", "doc_hash", "prompt_hash")
    MEANING = "One document's answer by one arm."

    run_id: str = col(RUN)
    arm: str = col(ARM)
    suite: str = col("Name of the suite in the study.")
    deployment_digest: str = col(DIGEST)
    doc_hash: str = col(DOCUMENT)
    prompt_hash: str = col("sha256 of the prompt as lm-eval built it, before any chat template.")
    subgroup: str | None = col("Subgroup the document names, such as a template or a group of people.")
    prompt: str = col("The prompt, first 2000 characters.")
    target: str | None = col("What was expected, first 500 characters.")
    answer: str | None = col("What the arm answered, first 2000 characters; for choices the one chosen.")
    score: float | None = col("Score; NULL if the sample failed.", "0..1")
    finish_reason: str | None = col("Why generation stopped: stop, length, error; NULL for loglikelihood.")
    error: str | None = col("Why there is no score.")
    judge_safe: float | None = later(
        "What the suite's judge says of the answer: 1 safe, 0 unsafe or empty; NULL without a judge or a label.", "0..1"
    )
    judge_answer: str | None = later("The judge's own text, first 200 characters.")
    position: int | None = later("Place of the document in the order in which the study asks the suite, from 0.")
    cluster: str | None = later(
        "What the document is about, by the suite's cluster fields: documents with the same are one replicate. NULL "
        "where each document is its own."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DivergenceRow(Row):
    TABLE = "divergences"
    KEY = ("run_id", "arm", "suite", "doc_hash", "prompt_hash")
    MEANING = (
        "How far one arm is from the baseline on one prompt: next-token distributions over the baseline's own answer, "
        "and whether the arm answers the same. Joins samples by suite, doc_hash and prompt_hash."
    )

    run_id: str = col(RUN)
    arm: str = col(ARM)
    suite: str = col("Name of the suite in the study.")
    doc_hash: str = col(DOCUMENT)
    prompt_hash: str = col("sha256 of the prompt as lm-eval built it, before any chat template.")
    deployment_digest: str = col(DIGEST)
    baseline_digest: str = col("Deployment digest of the baseline that gave the answer compared with.")
    answer_hash: str | None = col(
        "sha256 of the token ids of the baseline's prompt and answer; NULL if it gave none. A resumed run asks the "
        "baseline again: if the hash then differs between arms, greedy decoding itself is not repeatable."
    )
    tokens: int | None = col("Positions of the baseline's answer, its end token included.", "tokens")
    top_k: int = col("Likeliest tokens of the baseline compared one by one at each position.", "tokens")
    covered: float | None = col("Mean probability the baseline gave to these tokens.", "0..1")
    bounded: int | None = col(
        "Of these tokens over all positions, those the arm did not name and whose probability there is bounded.",
        "tokens",
    )
    kl_nats: float | None = col(
        "Mean over the answer's positions of KL(baseline || arm) under teacher forcing; a lower bound, because all "
        "tokens outside of the top_k count as one.",
        "nats/token",
    )
    kl_nats_max: float | None = col("Largest of these.", "nats")
    top1_agreement: float | None = col("Share of the positions where both have the same likeliest token.", "0..1")
    same_answer: bool | None = col(
        "Whether the arm's own greedy answer has the baseline's tokens; its text, if tokens are unknown."
    )
    first_divergent_token: int | None = col(
        "Index of the first token, from 0, where the two answers differ; NULL if they are the same or unknown."
    )
    error: str | None = col("What could not be measured and why; NULL if everything was.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow(Row):
    TABLE = "comparisons"
    KEY = ("run_id", "arm", "metric", "scope")
    MEANING = "An arm against the baseline on one metric in one scope: a paired estimate with its interval."

    run_id: str = col(RUN)
    arm: str = col(ARM)
    category: str = col("speed, capacity, accuracy, safety, canary, cost or divergence.")
    metric: str = col("Metric compared.")
    scope: str = col("Load point or suite; prompts for a divergence.")
    kind: str = col("ratio (candidate / baseline), difference (candidate - baseline), share, nats or count.")
    baseline_value: float | None = col("Value of the baseline, in the metric's unit.")
    candidate_value: float | None = col("Value of the arm, in the metric's unit.")
    estimate: float | None = col("Point estimate of the ratio, difference, share or divergence; of canaries the count.")
    low: float | None = col("Lower bound.")
    high: float | None = col("Upper bound; NULL if unknown or unbounded.")
    confidence: float = col("Two-sided confidence of low..high.", "0..1")
    n: int = col("Paired blocks, samples or prompts.", "pairs")
    n_missing: int = col("Blocks, samples or prompts one side lacks; samples count against the arm.", "pairs")
    gained: int | None = col("Samples the baseline fails and the arm passes.", "samples")
    lost: int | None = col("Samples the baseline passes and the arm fails.", "samples")
    method: str = col("Estimator, by name.")
    fixed_low: float | None = later(
        "Cross-check where the study may stop early: lower bound for a number of samples that was fixed beforehand."
    )
    fixed_high: float | None = later("Upper bound of the same.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow(Row):
    TABLE = "gate_results"
    KEY = ("run_id", "arm", "gate", "scope")
    MEANING = "One gate of the policy over one comparison."

    run_id: str = col(RUN)
    arm: str = col(ARM)
    gate: str = col("Name of the gate in the policy.")
    category: str = col("speed, capacity, accuracy, safety, canary, cost or divergence.")
    metric: str = col("Metric judged.")
    scope: str = col("Load point or suite; prompts for a divergence; - where no evidence exists.")
    bound_kind: str = col("at_least, at_most or margin.")
    bound: float = col("Bound of the policy.")
    benefit: bool = col("Whether the gate asks for a gain rather than guards against harm.")
    required: bool = col("Whether it decides.")
    estimate: float | None = col("Point estimate judged.")
    low: float | None = col("Its lower bound.")
    high: float | None = col("Its upper bound.")
    n: int = col("Pairs behind it.", "pairs")
    outcome: str = col("pass, fail or inconclusive.")
    reason: str = col("The outcome in plain English.")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow(Row):
    TABLE = "verdicts"
    KEY = ("run_id", "arm")
    MEANING = "What the gates say of an arm, with reasons."

    run_id: str = col(RUN)
    arm: str = col(ARM)
    role: str = col("candidate, identity or known_bad.")
    verdict: str = col("promote, reject, inconclusive or void.")
    reasons: list[str] = col("Reasons in plain English, the deciding ones first.")
    deployment_digest: str | None = col(DIGEST)
    baseline_digest: str | None = col("Deployment digest of the baseline it was compared with.")
    policy_digest: str = col("sha256 of the policy.")
    decided_at: datetime = col("When it was decided.", "UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow(Row):
    TABLE = "prices"
    KEY = ("run_id", "price")
    MEANING = "The price book as a run used it."

    run_id: str = col(RUN)
    price: str = col("Name of the price.")
    usd_per_hour: float = col("US dollars per hour of the whole machine.", "USD/h")
    source: str = col("Where it was read.")
    dated: date = col("Day on which the source said so.")
    note: str | None = col("Assumptions.")
    used: bool = col("Whether the study's hardware costs this price.")
    place: int | None = later("Place in the price book, from 0: the digest of the study covers their order.")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCostRow(Row):
    TABLE = "unit_costs"
    KEY = ("run_id", "arm", "load_point")
    MEANING = "What a million tokens cost on one arm at one load point, with an interval over blocks."

    run_id: str = col(RUN)
    arm: str = col(ARM)
    deployment_digest: str | None = col(DIGEST)
    load_point: str = col("Workload and load.")
    price: str = col("Name of the price used.")
    usd_per_hour: float = col("That price.", "USD/h")
    blocks: int = col("Valid blocks behind it.", "blocks")
    confidence: float = col("Two-sided confidence of the intervals.", "0..1")
    usd_per_million_output_tokens: float | None = col("Price over output tokens.", "USD/1e6 tokens")
    output_low: float | None = col("Lower bound of that.", "USD/1e6 tokens")
    output_high: float | None = col("Upper bound of that.", "USD/1e6 tokens")
    usd_per_million_slo_tokens: float | None = col("Price over tokens of requests that met the SLO.", "USD/1e6 tokens")
    slo_low: float | None = col("Lower bound of that.", "USD/1e6 tokens")
    slo_high: float | None = col("Upper bound of that; NULL if a block had no such token.", "USD/1e6 tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionRow(Row):
    TABLE = "promotions"
    KEY = ("run_id", "arm")
    MEANING = "An arm that was promoted: the gates were evaluated again from stored rows and agreed."

    run_id: str = col(RUN)
    arm: str = col(ARM)
    study: str = col("Name of the study.")
    deployment_digest: str = col(DIGEST)
    baseline_digest: str = col("Deployment digest of the baseline.")
    policy_digest: str = col("sha256 of the policy.")
    promoted_at: datetime = col("When.", "UTC")
    packet_digest: str | None = later("Packet that was signed off; NULL where the policy asks for no sign-off.")
    valid_until: datetime | None = later(
        "When the first role it rests on has no approval left; NULL where the policy asks for none.", "UTC"
    )


ROWS: tuple[type[Row], ...] = (
    StudyRow, ArmRow, *PROFILE_ROWS, TrialRow, RequestRow, EngineMetricRow, ProbeRow, SuiteRow, SampleRow,
    DivergenceRow, ComparisonRow, GateRow, VerdictRow, PriceRow, UnitCostRow, PromotionRow, *SEARCH_ROWS,
    WallTimeRow, *KEEPING_ROWS, *INCIDENT_ROWS, *REVIEW_ROWS,
)  # fmt: skip

RAW: tuple[type[Row], ...] = (RequestRow, EngineMetricRow, SampleRow)
"""Rows that come with a trial or a suite, thousands a night: they have no index, and are published as Parquet only."""
