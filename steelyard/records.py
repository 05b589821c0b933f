"""Every row Steelyard stores, as frozen dataclasses: the one place where a column gets its name, meaning and unit.

Study, arms and what is decided are here; what is measured, and what is kept beside it, in `records_*`; what all are
made of in `records_base`. `warehouse/migrations/*.sql` creates the same columns and a test holds the two against each
other; table and column COMMENTs are written from here. Times are seconds; a moment is UTC. Unknown is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from steelyard.records_base import ARM, DIGEST, RUN, Row, col, later
from steelyard.records_incidents import INCIDENT_ROWS
from steelyard.records_keeping import KEEPING_ROWS
from steelyard.records_profile import PROFILE_ROWS
from steelyard.records_quality import QUALITY_ROWS, SampleRow
from steelyard.records_review import REVIEW_ROWS
from steelyard.records_search import SEARCH_ROWS
from steelyard.records_time import WallTimeRow
from steelyard.records_trials import TRIAL_ROWS, EngineMetricRow, RequestRow


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
    StudyRow, ArmRow, *PROFILE_ROWS, *TRIAL_ROWS, *QUALITY_ROWS, ComparisonRow, GateRow, VerdictRow, PriceRow,
    UnitCostRow, PromotionRow, *SEARCH_ROWS, WallTimeRow, *KEEPING_ROWS, *INCIDENT_ROWS, *REVIEW_ROWS,
)  # fmt: skip

RAW: tuple[type[Row], ...] = (RequestRow, EngineMetricRow, SampleRow)
"""Rows that come with a trial or a suite, thousands a night: they have no index, and are published as Parquet only."""
