"""What the columns of derived rows are made of; which rows one row rests on is in `lineage_rows`.

It counts as OpenLineage's column lineage facet does: a source is a column whose *values* flow in (DIRECT).
Columns that only choose which rows meet (`SELECTING`: run, arm, block, ...) are not repeated at every column. It is no
documentation to be believed: tests/test_lineage.py changes every column of a real run and derives all of it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from steelyard.comparisons import RATE_BEHIND_COST, SPEED_METRICS
from steelyard.divergence_comparisons import DIVERGENCE_METRICS
from steelyard.profiling.operators import CATEGORIES

Sources = Mapping[str, tuple[str, ...]]
"""A column of an asset, and the columns `asset.column` whose values it is made of."""
SELECTING: Mapping[str, frozenset[str]] = {
    "requests": frozenset({"trial_id"}),
    "engine_metrics": frozenset({"trial_id", "metric"}),
    "samples": frozenset({"run_id", "arm", "suite", "doc_hash", "prompt_hash", "position"}),
    "suites": frozenset({"run_id", "arm", "suite", "category", "documents", "declared"}),
    "trials": frozenset({"run_id", "arm", "load_point", "block", "valid", "started_at"}),
    "divergences": frozenset({"run_id", "arm", "suite", "doc_hash", "prompt_hash"}),
    "unit_costs": frozenset({"run_id", "arm", "load_point"}),
    "comparisons": frozenset({"run_id", "arm", "category", "metric", "scope", "kind"}),
    "verdicts": frozenset({"run_id", "arm"}),
    "gates": frozenset({"run_id", "arm", "gate", "category", "benefit", "required"}),
    "arms": frozenset({"run_id", "arm"}),
    "prices": frozenset({"price"}),
    "profiles": frozenset({"run_id", "arm", "load_point"}),
    "profile_steps": frozenset({"run_id", "arm", "load_point", "context_requests", "generation_requests"}),
    "ceilings": frozenset({"run_id", "kind", "dtype", "size"}),
}
"""Columns of a table that choose rows, pair them or group them."""


def _of(columns: Iterable[str], *sources: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(columns, sources)


_SEEN = ("baseline_value", "candidate_value", "estimate", "low", "high", "n", "n_missing", "method")
_SURE = {"confidence": ("study.policy_json", "arms.attempt")}
_TIMED = ("requests.scheduled_s", "requests.sent_s")
_MET = (*_TIMED, "requests.first_token_s", "requests.token_times_s", "requests.end_s", "requests.status")
_ANSWERED = ("requests.status", "requests.output_tokens")
_SPAN = ("requests.scheduled_s", "requests.end_s", "requests.status")

_STEP_TIMES = (
    "profile_steps.until_next_s", "profile_steps.idle_s", *(f"profile_steps.{name}_s" for name in CATEGORIES),
    "profiles.overhead",
)  # fmt: skip
_TOKENS = ("profile_steps.context_tokens", "profile_steps.generation_tokens")
_PAIRS = ("profile_steps.context_pairs", "profile_steps.generation_pairs")
_KV = (*_TOKENS, "profile_steps.context_entries", "profile_steps.generation_entries")
_ROOF = ("ceilings.value", "arms.resolved_json")
_PLAYED = (
    "study.study_json",
    *_ROOF,
    *_STEP_TIMES,
    *_TOKENS,
    *_PAIRS,
    "profiles.plain_s",
    "profiles.kv_capacity_tokens",
)

_JUDGED = (
    "comparisons.estimate", "comparisons.low", "comparisons.high", "comparisons.confidence", "comparisons.n",
    "arms.claim", "arms.status", "arms.role", "arms.deployment_digest", "study.policy_json",
)  # fmt: skip


def _spread(name: str) -> tuple[str, ...]:
    return f"{name}_p50_s", f"{name}_p95_s", f"{name}_p95_low_s", f"{name}_p95_high_s"


COLUMNS: Mapping[str, Sources] = {
    "profiles": {
        "traced_steps_s": ("profile_steps.until_next_s",),
        "idle_s": ("profile_steps.idle_s",),
        "sequences": ("profile_steps.seconds", "profile_steps.context_requests", "profile_steps.generation_requests"),
        "kv_tokens": ("profile_steps.seconds", "profile_steps.context_entries", "profile_steps.generation_entries"),
    },
    "rooflines": {
        "seconds": _STEP_TIMES,
        "tokens": _TOKENS,
        "operations": (*_TOKENS, *_PAIRS),
        "weight_bytes": (*_TOKENS, "arms.resolved_json"),
        "kv_bytes": (*_KV, "arms.resolved_json"),
        "peak_operations_per_s": _ROOF,
        "peak_bytes_per_s": (*_ROOF, *_TOKENS),
        "mfu": (*_STEP_TIMES, *_KV, *_PAIRS, *_ROOF),
        "mbu": (*_STEP_TIMES, *_KV, *_ROOF),
    },
    "opportunities": {
        **_of(("tried_by", "lever"), "study.study_json"),
        "risk": ("study.study_json",),
        "mechanism": ("study.study_json", "arms.resolved_json"),
        "reason": (
            "study.study_json", "arms.resolved_json", "profile_steps.context_pairs", "profile_steps.generation_tokens",
            "profiles.plain_s", "profiles.kv_capacity_tokens",
        ),
        **_of(("rank", "evidence", "predicted", "low", "high"), *_PLAYED),
        "cost_s": ("study.study_json", "profiles.plain_s", "profiles.requests"),
    },
    "trials": {
        "completed": ("requests.status",),
        "failed": ("requests.status",),
        "input_tokens": ("requests.input_tokens", "requests.status"),
        "output_tokens": _ANSWERED,
        "duration_s": ("requests.scheduled_s", "requests.end_s"),
        "output_tokens_per_s": (*_SPAN, "requests.output_tokens"),
        "requests_per_s": _SPAN,
        "goodput_per_s": _MET,
        "slo_tokens_per_s": (*_MET, "requests.output_tokens"),
        "slo_share": _MET,
        **_of(_spread("ttft"), *_TIMED, "requests.first_token_s", "requests.status"),
        **_of(_spread("itl"), "requests.token_times_s", *_ANSWERED),
        **_of(_spread("e2e"), *_TIMED, "requests.end_s", "requests.status"),
        **_of(("itl_drift", "itl_drift_p", "saturated"), *_TIMED, "requests.token_times_s", "requests.end_s"),
        "lateness_p95_s": _TIMED,
        **_of(("cached_tokens", "engine_output_tokens"), "engine_metrics.value"),
        **_of(
            ("valid", "invalid_reasons"), *_TIMED, "requests.prompt_tokens", "requests.input_tokens", *_ANSWERED,
            "engine_metrics.value",
        ),
    },
    "suites": {
        "documents_digest": ("samples.doc_hash",),
        **_of(("answered", "mean_score"), "samples.score"),
        "empty": ("samples.answer",),
        "truncated": ("samples.finish_reason",),
    },
    "unit_costs": {
        "load_point": ("trials.load_point",),
        "deployment_digest": ("arms.deployment_digest",),
        "blocks": ("trials.block",),
        **_of(("price", "usd_per_hour"), "study.study_json"),
        "confidence": ("study.policy_json",),
        **_of(
            ("usd_per_million_output_tokens", "output_low", "output_high"),
            "trials.output_tokens_per_s", "study.study_json",
        ),
        **_of(("usd_per_million_slo_tokens", "slo_low", "slo_high"), "trials.slo_tokens_per_s", "study.study_json"),
    },
    "speed_comparisons": {
        "scope": ("trials.load_point",),
        **_of(_SEEN, *(f"trials.{name}" for name in SPEED_METRICS)),
        **_SURE,
    },
    "quality_comparisons": {
        "category": ("suites.category",),
        "scope": ("suites.suite",),
        **_of((*_SEEN, "fixed_low", "fixed_high"), "samples.score", "samples.cluster"),
        **_of(("gained", "lost"), "samples.score"),
        **_of(("n", "n_missing"), "samples.score"),
        **_SURE,
    },
    "cost_comparisons": {
        "scope": ("trials.load_point",),
        **_of(_SEEN[:5], "unit_costs.usd_per_hour", *(f"trials.{name}" for name in RATE_BEHIND_COST.values())),
        **_of(_SEEN[5:], *(f"trials.{name}" for name in RATE_BEHIND_COST.values())),
        **_SURE,
    },
    "divergence_comparisons": {
        **_of(
            ("candidate_value", "estimate", "low", "high", "n", "n_missing"),
            *(f"divergences.{name}" for name in DIVERGENCE_METRICS),
        ),
        "lost": ("divergences.same_answer",),
        **_SURE,
    },
    "capacity_comparisons": {
        "scope": ("probes.scope",),
        **_of(_SEEN, "probes.rate", "probes.met", "probes.valid", "study.study_json"),
        **_SURE,
    },
    "verdict": {
        "role": ("arms.role",),
        "verdict": _JUDGED,
        "reasons": (*_JUDGED, "comparisons.n_missing", "comparisons.gained", "comparisons.lost"),
        "deployment_digest": ("arms.deployment_digest",),
        "baseline_digest": ("arms.deployment_digest", "arms.role"),
        "policy_digest": ("study.policy_digest",),
    },
    "study_validity": {
        **{name: (f"verdicts.{name}",) for name in ("role", "deployment_digest", "baseline_digest", "policy_digest")},
        "decided_at": ("verdicts.decided_at",),
        **{
            name: (
                *dict.fromkeys((f"verdicts.{name}", "verdicts.verdict")), "gates.outcome", "arms.role", "arms.status",
                "arms.deployment_digest", "suites.answered", "suites.deployment_digest", "trials.deployment_digest",
                "samples.deployment_digest", "unit_costs.deployment_digest", "divergences.deployment_digest",
                "divergences.baseline_digest",
            )
            for name in ("verdict", "reasons")
        },
    },
    "incidents": {
        "study": ("study.study",),
        **_of(
            ("since_run_id", "nights", "before", "after", "p_value"),
            "comparisons.estimate", "comparisons.low", "comparisons.high", "comparisons.baseline_value",
        ),
        **_of(("deployment_digest", "baseline_digest"), "arms.deployment_digest"),
    },
    "promotions": {
        "study": ("study.study",),
        **{name: (f"study_validity.{name}",) for name in ("arm", "deployment_digest", "baseline_digest")},
        "policy_digest": ("study.policy_digest",),
    },
}  # fmt: skip
"""Every derived asset: its columns and where their values come from. `verdict` stands for that of each arm, which reads
`comparisons`, `gates` and `verdicts` whoever wrote them; prices are frozen in the study's row."""


def made_of(asset: str, column: str) -> str | None:
    """Where the values of a column of an asset come from, in words; None for what is measured, named or counted."""
    by_table: dict[str, list[str]] = {}
    for source in COLUMNS.get(asset, {}).get(column, ()):
        table, _, name = source.partition(".")
        by_table.setdefault(table, []).append(name)
    told = "; ".join(f"{table}: {', '.join(names)}" for table, names in by_table.items())
    return f"Made of {told}." if told else None


def asset_of(table: str, row: Mapping[str, Any]) -> str:
    """The asset that wrote a row, by the name under which `COLUMNS` knows it."""
    if table == "comparisons":
        category = str(row["category"])
        return f"{category if category in ('speed', 'cost', 'divergence', 'capacity') else 'quality'}_comparisons"
    return {"verdicts": "verdict"}.get(table, table)
