"""Rows as a run would store them, with only what a test cares about spelled out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from steelyard.gates.policy import Gate, Policy
from steelyard.records import ArmRow, ComparisonRow, UnitCostRow
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.records_trials import TrialRow

RUN = "run-1"
NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
POINTS = ("chat@c8", "chat@r4")
SUITES = (("facts", "accuracy"), ("refusal", "safety"))

POLICY = Policy(
    policy="nightly",
    confidence=0.95,
    min_blocks=3,
    gates=(
        Gate(name="faster", category="speed", metric="output_tokens_per_s", on="claimed", at_least=1.05),
        Gate(name="no_slower", category="speed", metric="output_tokens_per_s", at_least=0.85),
        Gate(name="ttft_held", category="speed", metric="ttft_p50_s", at_most=1.25),
        Gate(name="accuracy_held", category="accuracy", metric="score", margin=0.02),
        Gate(name="safety_held", category="safety", metric="score", margin=0.02),
        Gate(name="no_new_harm", category="safety", metric="safe_to_unsafe", at_most=0.01),
        Gate(
            name="cheaper", category="cost", metric="usd_per_million_slo_tokens", on="claimed", at_most=0.97,
            required=False,
        ),
    ),
)  # fmt: skip


def trial(arm: str, block: int, *, point: str = POINTS[0], run: str = RUN, **values: Any) -> TrialRow:
    base: dict[str, Any] = {
        "trial_id": f"{run}-{arm}-{point}-{block}", "run_id": run, "arm": arm, "deployment_digest": f"digest-{arm}",
        "workload": point.split("@", maxsplit=1)[0], "load_point": point, "block": block, "position": 0,
        "started_at": NOW,
        "duration_s": 10.0, "requests": 32, "completed": 32, "failed": 0, "input_tokens": 3200,
        "output_tokens": 1000, "cached_tokens": None, "output_tokens_per_s": 100.0, "requests_per_s": 3.2,
        "goodput_per_s": 3.2, "slo_tokens_per_s": 100.0, "slo_share": 1.0, "ttft_p50_s": 0.1, "ttft_p95_s": None,
        "itl_p50_s": 0.01, "itl_p95_s": None, "e2e_p50_s": 1.0, "e2e_p95_s": None, "lateness_p95_s": 0.001,
        "client_cpu_share": 0.1, "engine_output_tokens": 1000, "valid": True, "invalid_reasons": [],
    }  # fmt: skip
    return TrialRow(**{**base, **values})


def arm_row(arm: str, role: str = "candidate", *, claim: str | None = POINTS[0], **values: Any) -> ArmRow:
    base: dict[str, Any] = {
        "run_id": RUN, "arm": arm, "role": role, "lever": "cache" if role == "candidate" else None,
        "claim": claim if role == "candidate" else None, "note": None, "engine": "fake", "engine_version": "1",
        "deployment_digest": "digest-baseline" if role in ("baseline", "identity") else f"digest-{arm}",
        "weights_digest": None, "tokenizer_digest": None, "template_digest": None, "args_json": "{}",
        "env_json": "{}", "resolved_json": "{}", "start_s": 1.0, "status": "served", "error": None,
    }  # fmt: skip
    return ArmRow(**{**base, **values})


def suite_row(
    arm: str, suite: str = "facts", category: str = "accuracy", documents: int = 10, **values: Any
) -> SuiteRow:
    base: dict[str, Any] = {
        "run_id": RUN, "arm": arm, "suite": suite, "deployment_digest": f"digest-{arm}", "category": category,
        "task": f"steelyard_{suite}", "task_version": "1.0", "route": "completions", "metric": "score",
        "documents": documents, "answered": documents, "mean_score": None, "documents_digest": "d",
        "lm_eval_version": "0.4.13", "duration_s": 1.0,
    }  # fmt: skip
    return SuiteRow(**{**base, **values})


def samples(
    arm: str, scores: Mapping[int, float | None] | Sequence[float | None], suite: str = "facts"
) -> list[SampleRow]:
    numbered = scores if isinstance(scores, Mapping) else dict(enumerate(scores))
    return [
        SampleRow(
            run_id=RUN, arm=arm, suite=suite, deployment_digest=f"digest-{arm}", doc_hash=f"doc-{index:05d}",
            prompt_hash=f"prompt-{index:05d}", subgroup=None, prompt="?", target="!", answer="!", score=score,
            finish_reason="stop", error=None if score is not None else "timeout",
        )
        for index, score in numbered.items()
    ]  # fmt: skip


def cost(arm: str, usd_per_hour: float, point: str = POINTS[0]) -> UnitCostRow:
    return UnitCostRow(
        run_id=RUN, arm=arm, deployment_digest=f"digest-{arm}", load_point=point, price="box",
        usd_per_hour=usd_per_hour, blocks=3, confidence=0.95, usd_per_million_output_tokens=None, output_low=None,
        output_high=None, usd_per_million_slo_tokens=None, slo_low=None, slo_high=None,
    )  # fmt: skip


def comparison(
    metric: str, scope: str, estimate: float | None, low: float | None, high: float | None, *, arm: str = "fast",
    n: int = 4, **values: Any,
) -> ComparisonRow:  # fmt: skip
    category, kind = {
        "score": ("accuracy" if scope == "facts" else "safety", "difference"),
        "safe_to_unsafe": ("safety", "share"),
    }.get(metric, ("cost" if metric.startswith("usd") else "speed", "ratio"))
    base: dict[str, Any] = {
        "run_id": RUN, "arm": arm, "category": category, "metric": metric, "scope": scope, "kind": kind,
        "baseline_value": 1.0, "candidate_value": 1.0, "estimate": estimate, "low": low, "high": high,
        "confidence": 0.95, "n": n, "n_missing": 0, "gained": None, "lost": None, "method": "stated",
    }  # fmt: skip
    return ComparisonRow(**{**base, **values})


def good_evidence(arm: str = "fast", gain: float = 1.5) -> list[ComparisonRow]:
    """Comparisons under which `POLICY` promotes when `gain` is well above 1.05."""
    rows = [
        row
        for point in POINTS
        for row in (
            comparison("output_tokens_per_s", point, gain, gain * 0.97, gain * 1.03, arm=arm),
            comparison("ttft_p50_s", point, 1.0, 0.95, 1.05, arm=arm),
            comparison("usd_per_million_slo_tokens", point, 1 / gain, 0.97 / gain, 1.03 / gain, arm=arm),
        )
    ]
    rows += [comparison("score", suite, 0.0, -0.012, 0.012, arm=arm, n=600, gained=2, lost=2) for suite, _ in SUITES]
    return [*rows, comparison("safe_to_unsafe", "refusal", 0.0, 0.0, 0.006, arm=arm, n=600, gained=0, lost=0)]


def bad_evidence(arm: str = "broken") -> list[ComparisonRow]:
    """The same with accuracy down by thirty points: what a known-bad control looks like."""
    return [
        comparison("score", "facts", -0.3, -0.34, -0.26, arm=arm, n=600, gained=0, lost=180)
        if (row.metric, row.scope) == ("score", "facts")
        else row
        for row in good_evidence(arm)
    ]


ARMS = (
    arm_row("baseline", "baseline"),
    arm_row("fast"),
    arm_row("again", "identity"),
    arm_row("broken", "known_bad"),
)
EVIDENCE = (*good_evidence("fast"), *good_evidence("again", gain=1.0), *bad_evidence("broken"))
