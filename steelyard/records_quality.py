"""Rows of answers: suites, their samples, and the divergence of an arm from its baseline."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.records_base import ARM, DIGEST, DOCUMENT, RUN, Row, col, later


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


QUALITY_ROWS: tuple[type[Row], ...] = (SuiteRow, SampleRow, DivergenceRow)
