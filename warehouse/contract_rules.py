"""The rules of each measured table, as data: an expectation, its arguments, and what it asks for in words.

A rule that needs more than one column, and that no expectation expresses, gets a column of its own in `ADDED`:
True where the row is sound. `when` limits a rule to the rows of a pandas query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, get_args

import pandas as pd

from steelyard.gates.policy import QUALITY
from steelyard.records import (
    ArmRow,
    DivergenceRow,
    EngineMetricRow,
    ProbeRow,
    RequestRow,
    Row,
    SampleRow,
    SuiteRow,
    TrialRow,
)
from steelyard.study import EngineKind, Lever, Role

TABLES: tuple[type[Row], ...] = (
    ArmRow, TrialRow, RequestRow, EngineMetricRow, ProbeRow, SuiteRow, SampleRow, DivergenceRow,
)  # fmt: skip

# Below this many requests a 95th percentile is refused (records.TrialRow).
P95_NEEDS = 72

LOAD_POINT = r"^[a-z0-9][a-z0-9_-]*@(c\d+|r\d+(\.\d+)?(e[+-]?\d+)?)$"


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation of Great Expectations, by class name, and the words for it."""

    expectation: str
    says: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    when: str | None = None


def _between(column: str, low: float | None, high: float | None, says: str, when: str | None = None) -> Rule:
    return Rule("ExpectColumnValuesToBeBetween", says, {"column": column, "min_value": low, "max_value": high}, when)


def _at_least(low: float, *names: str) -> tuple[Rule, ...]:
    return tuple(_between(name, low, None, f"at least {low:g}") for name in names)


def _above_zero(*names: str) -> tuple[Rule, ...]:
    return tuple(
        Rule("ExpectColumnValuesToBeBetween", "more than 0", {"column": name, "min_value": 0, "strict_min": True})
        for name in names
    )


def _share(*names: str) -> tuple[Rule, ...]:
    return tuple(_between(name, 0, 1, "a value from 0 to 1") for name in names)


def _one_of(column: str, *values: str) -> Rule:
    return Rule(
        "ExpectColumnValuesToBeInSet", f"one of {', '.join(values)}", {"column": column, "value_set": list(values)}
    )


def _digest(*names: str) -> tuple[Rule, ...]:
    return tuple(
        Rule("ExpectColumnValuesToMatchRegex", "64 hex digits", {"column": name, "regex": "^[0-9a-f]{64}$"})
        for name in names
    )


def _matches(column: str, regex: str, says: str) -> Rule:
    return Rule("ExpectColumnValuesToMatchRegex", says, {"column": column, "regex": regex})


def _required(column: str, when: str, says: str) -> Rule:
    return Rule("ExpectColumnValuesToNotBeNull", says, {"column": column}, when)


def _absent(column: str, when: str, says: str) -> Rule:
    return Rule("ExpectColumnValuesToBeNull", says, {"column": column}, when)


def _not_less(larger: str, smaller: str) -> Rule:
    return Rule(
        "ExpectColumnPairValuesAToBeGreaterThanB",
        f"it not to be less than {smaller}",
        {"column_A": larger, "column_B": smaller, "or_equal": True, "ignore_row_if": "either_value_is_missing"},
    )


def _sound(column: str, says: str) -> Rule:
    return Rule("ExpectColumnValuesToBeInSet", says, {"column": column, "value_set": [True]})


def _length(column: str, most: int) -> Rule:
    arguments = {"column": column, "max_value": most}
    return Rule("ExpectColumnValueLengthsToBeBetween", f"at most {most} characters", arguments)


RULES: dict[str, tuple[Rule, ...]] = {
    "arms": (
        _one_of("role", *get_args(Role)),
        _one_of("lever", *get_args(Lever)),
        _one_of("engine", *get_args(EngineKind)),
        _one_of("status", "served", "failed"),
        *_digest("deployment_digest", "weights_digest", "tokenizer_digest", "template_digest"),
        *_above_zero("start_s"),
        *_at_least(1, "attempt"),
        _required("deployment_digest", 'status == "served"', "a deployment digest for an arm that served"),
        _required("resolved_json", 'status == "served"', "the resolved configuration of an arm that served"),
        _required("error", 'status == "failed"', "the reason of an arm that failed"),
        _required("lever", 'role == "candidate"', "a lever for every candidate"),
        _required("claim", 'role == "candidate"', "a claimed load point for every candidate"),
        Rule(
            "ExpectColumnDistinctValuesToContainSet",
            "a baseline and an identity control",
            {"column": "role", "value_set": ["baseline", "identity"]},
        ),
        Rule(
            "ExpectCompoundColumnsToBeUnique",
            "one baseline in a run",
            {"column_list": ["run_id", "role"]},
            'role == "baseline"',
        ),
    ),
    "trials": (
        *_digest("deployment_digest"),
        _matches("load_point", LOAD_POINT, "a load point such as chat@c8"),
        *_at_least(0, "block", "position", "completed", "failed", "input_tokens", "output_tokens", "cached_tokens"),
        *_at_least(1, "requests"),
        *_at_least(0, "output_tokens_per_s", "requests_per_s", "goodput_per_s", "slo_tokens_per_s"),
        *_at_least(0, "client_cpu_share", "engine_output_tokens"),
        *_above_zero("duration_s", "ttft_p50_s", "e2e_p50_s"),
        # Zero is possible: all tokens of a request in one chunk leave no time between them.
        *_at_least(0, "itl_p50_s"),
        *_share("slo_share", "itl_drift_p"),
        # Timers may fire a moment early; a client that sends a millisecond before time has no clock to trust.
        _between("lateness_p95_s", -0.001, None, "no sending before its time"),
        _not_less("ttft_p95_s", "ttft_p50_s"),
        _not_less("itl_p95_s", "itl_p50_s"),
        _not_less("e2e_p95_s", "e2e_p50_s"),
        *(
            rule
            for name in ("ttft", "itl", "e2e")
            for rule in (
                _not_less(f"{name}_p95_s", f"{name}_p95_low_s"),
                _not_less(f"{name}_p95_high_s", f"{name}_p95_s"),
            )
        ),
        _not_less("e2e_p50_s", "ttft_p50_s"),
        _not_less("requests_per_s", "goodput_per_s"),
        _not_less("output_tokens_per_s", "slo_tokens_per_s"),
        *(
            _absent(name, f"requests < {P95_NEEDS}", f"no 95th percentile of fewer than {P95_NEEDS} requests")
            for name in ("ttft_p95_s", "itl_p95_s", "e2e_p95_s")
        ),
        _sound("_accounted", "completed and failed to add up to requests"),
        _sound("_reasoned", "reasons where a trial is not valid, and only there"),
        Rule(
            "ExpectCompoundColumnsToBeUnique",
            "each arm once in a block of a load point",
            {"column_list": ["run_id", "arm", "load_point", "block"]},
        ),
    ),
    "requests": (
        *_digest("deployment_digest", "prompt_hash"),
        *_at_least(0, "request_index", "scheduled_s", "sent_s", "first_token_s", "end_s"),
        *_at_least(1, "prompt_tokens"),
        *_at_least(0, "input_tokens", "output_tokens"),
        _not_less("first_token_s", "sent_s"),
        _not_less("end_s", "first_token_s"),
        _not_less("end_s", "sent_s"),
        _one_of("status", "ok", "http_error", "broken_stream", "timeout", "refused", "no_tokens"),
        *(
            _required(name, 'status == "ok"', "a value for a request that ended well")
            for name in ("sent_s", "first_token_s", "end_s", "output_tokens")
        ),
        _absent("error", 'status == "ok"', "no error for a request that ended well"),
        _required("error", 'status != "ok"', "what went wrong with a request that did not end well"),
        _sound("_tokens_in_order", "token times in order, from the first token to the end"),
        _sound("_slo_earned", "no met SLO for a request that did not end well"),
    ),
    "engine_metrics": (
        *_digest("deployment_digest"),
        _matches("metric", r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", "a Prometheus name without labels"),
        _one_of("kind", "counter", "gauge"),
        _between("value", 0, None, "a counter that never runs backwards", 'kind == "counter"'),
    ),
    "probes": (
        *_digest("deployment_digest"),
        _matches("scope", r"^[a-z0-9][a-z0-9_-]*@slo$", "a capacity such as chat@slo"),
        *_at_least(0, "block", "number", "position", "failed", "met", "output_tokens_per_s", "client_cpu_share"),
        *_at_least(1, "requests"),
        *_above_zero("rate", "duration_s"),
        _between("lateness_p95_s", -0.001, None, "no sending before its time"),
        _not_less("requests", "met"),
        _sound("_each_request", "a due time, a TTFT, an ITL and a latency for each request"),
        _sound("_reasoned", "reasons where a probe is not valid, and only there"),
        _sound("_numbered", "probes of a search numbered from 0 without a gap"),
    ),
    "suites": (
        *_digest("deployment_digest", "documents_digest"),
        _one_of("category", *reversed(QUALITY)),
        _one_of("route", "chat", "loglikelihood", "mixed"),
        *_at_least(1, "documents"),
        *_at_least(0, "answered", "duration_s"),
        *_share("mean_score"),
        _not_less("documents", "answered"),
        *_at_least(0, "empty", "truncated", "duplicates"),
        _not_less("documents", "empty"),
        _not_less("documents", "truncated"),
        _required("mean_score", "answered > 0", "a mean score where documents were answered"),
        _absent("mean_score", "answered == 0", "no mean score where nothing was answered"),
        *_at_least(0, "reused", "rechecked", "changed"),
        _not_less("documents", "reused"),
        _not_less("rechecked", "changed"),
        *_at_least(1, "declared"),
        _not_less("declared", "documents"),
        _sound("_same_documents", "the same documents in every arm that was asked so many"),
    ),
    "samples": (
        *_digest("deployment_digest", "doc_hash", "prompt_hash"),
        *_share("score"),
        _required("error", "score.isnull()", "a reason where there is no score"),
        _absent("error", "score.notnull()", "no error where there is a score"),
        _length("prompt", 2000),
        _length("target", 500),
        _length("answer", 2000),
        *_share("judge_safe"),
        _length("judge_answer", 200),
        *_at_least(0, "position"),
        _sound("_same_places", "the same document at the same place in every arm of a run"),
    ),
    "divergences": (
        *_digest("deployment_digest", "baseline_digest", "doc_hash", "prompt_hash", "answer_hash"),
        *_at_least(0, "tokens", "bounded", "kl_nats", "first_divergent_token"),
        *_at_least(1, "top_k"),
        *_share("covered", "top1_agreement"),
        # Equal figures over one position may differ in the last bit.
        _sound("_mean_below_max", "a mean divergence that is not above the largest"),
        _sound("_known_together", "divergence, agreement and coverage known together or not at all"),
        _sound("_differs_somewhere", "a first divergent token only where answers differ"),
        _required("error", "kl_nats.isnull() or same_answer.isnull()", "a reason where something is unknown"),
        _absent("error", "kl_nats.notnull() and same_answer.notnull()", "no error where everything is known"),
    ),
}  # fmt: skip


def _each(predicate: Callable[..., bool], *names: str) -> Callable[[pd.DataFrame], pd.Series]:
    """A column that says whether `predicate` holds of the named columns, row by row; what it cannot read is unsound."""

    def sound(*values: Any) -> bool:
        try:
            return bool(predicate(*values))
        except TypeError:
            return False

    return lambda frame: pd.Series(
        [sound(*values) for values in zip(*(frame[name] for name in names), strict=True)], dtype=object
    )


def _in_order(times: list[float], first: float | None, end: float | None) -> bool:
    if any(one > two for one, two in pairwise(times)):
        return False
    return not times or ((pd.isna(first) or times[0] >= first) and (pd.isna(end) or times[-1] <= end))


def _numbered(frame: pd.DataFrame) -> pd.Series:
    groups = frame.groupby(["run_id", "arm", "scope", "block"], dropna=False, sort=False)["number"]
    return groups.transform(lambda numbers: set(numbers) == set(range(len(numbers)))).astype(object)


def _same_documents(frame: pd.DataFrame) -> pd.Series:
    # Unsorted, here and below: a value of a wrong type is another rule's to name, and cannot be sorted with the others.
    groups = frame.groupby(["run_id", "suite", "documents"], dropna=False, sort=False)
    kinds = groups["documents_digest"].transform("nunique")
    return (kinds == 1).astype(object)


def _same_places(frame: pd.DataFrame) -> pd.Series:
    kinds = frame.groupby(["run_id", "suite", "position"], sort=False)["doc_hash"].transform("nunique")
    return (frame["position"].isna() | (kinds == 1)).astype(object)


ADDED: dict[str, dict[str, Callable[[pd.DataFrame], pd.Series]]] = {
    "trials": {
        "_accounted": _each(lambda done, lost, sent: done + lost == sent, "completed", "failed", "requests"),
        "_reasoned": _each(lambda valid, why: valid == (len(why) == 0), "valid", "invalid_reasons"),
    },
    "requests": {
        "_tokens_in_order": _each(_in_order, "token_times_s", "first_token_s", "end_s"),
        "_slo_earned": _each(lambda status, met: status == "ok" or met is not True, "status", "met_slo"),
    },
    "probes": {
        "_each_request": _each(
            lambda sent, *lists: all(len(each) == sent for each in lists),
            *("requests", "due_s", "ttft_s", "itl_s", "e2e_s"),
        ),
        "_reasoned": _each(lambda valid, why: valid == (len(why) == 0), "valid", "invalid_reasons"),
        "_numbered": _numbered,
    },
    "suites": {"_same_documents": _same_documents},
    "samples": {"_same_places": _same_places},
    "divergences": {
        "_mean_below_max": _each(
            lambda mean, most: pd.isna(mean) or mean <= most * (1 + 1e-9), "kl_nats", "kl_nats_max"
        ),
        "_known_together": _each(
            lambda *values: len({bool(pd.isna(value)) for value in values}) == 1,
            *("kl_nats", "kl_nats_max", "top1_agreement", "covered", "bounded"),
        ),
        "_differs_somewhere": _each(
            lambda same, first: same is False or bool(pd.isna(first)), "same_answer", "first_divergent_token"
        ),
    },
}
