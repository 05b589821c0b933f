"""The rules of each measured table, as data: an expectation, its arguments, and what it asks for in words.

A rule that needs more than one column, and that no expectation expresses, gets a column of its own in `ADDED`:
True where the row is sound. `when` limits a rule to the rows of a pandas query.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import pandas as pd

from steelyard.gates.policy import QUALITY
from steelyard.records import ArmRow, Row
from steelyard.records_profile import PROFILE_ROWS
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.records_search import StackRow
from steelyard.records_trials import EngineMetricRow, ProbeRow, RequestRow, TrialRow
from steelyard.study import EngineKind, Lever, Role
from warehouse.contract_rules_profile import PROFILE_ADDED, PROFILE_RULES
from warehouse.contract_rules_search import SEARCH_RULES
from warehouse.contract_words import (
    Rule,
    above_zero,
    absent,
    at_least,
    between,
    digest,
    each,
    length,
    matches,
    not_less,
    one_of,
    required,
    share,
    sound,
)

TABLES: tuple[type[Row], ...] = (
    ArmRow, *PROFILE_ROWS, TrialRow, RequestRow, EngineMetricRow, ProbeRow, SuiteRow, SampleRow, DivergenceRow,
    StackRow,
)  # fmt: skip

# Below this many requests a 95th percentile is refused (records_trials.TrialRow).
P95_NEEDS = 72

LOAD_POINT = r"^[a-z0-9][a-z0-9_-]*@(c\d+|r\d+(\.\d+)?(e[+-]?\d+)?)$"


RULES: dict[str, tuple[Rule, ...]] = {
    **PROFILE_RULES,
    **SEARCH_RULES,
    "arms": (
        one_of("role", *get_args(Role)),
        one_of("lever", *get_args(Lever)),
        one_of("engine", *get_args(EngineKind)),
        one_of("status", "served", "failed"),
        *digest("deployment_digest", "weights_digest", "tokenizer_digest", "template_digest"),
        *above_zero("start_s"),
        *at_least(1, "attempt"),
        required("deployment_digest", 'status == "served"', "a deployment digest for an arm that served"),
        required("resolved_json", 'status == "served"', "the resolved configuration of an arm that served"),
        required("error", 'status == "failed"', "the reason of an arm that failed"),
        required("lever", 'role == "candidate"', "a lever for every candidate"),
        required("claim", 'role == "candidate"', "a claimed load point for every candidate"),
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
        *digest("deployment_digest"),
        matches("load_point", LOAD_POINT, "a load point such as chat@c8"),
        *at_least(0, "block", "position", "completed", "failed", "input_tokens", "output_tokens", "cached_tokens"),
        *at_least(1, "requests"),
        *at_least(0, "output_tokens_per_s", "requests_per_s", "goodput_per_s", "slo_tokens_per_s"),
        *at_least(0, "client_cpu_share", "engine_output_tokens"),
        *above_zero("duration_s", "ttft_p50_s", "e2e_p50_s"),
        # Zero is possible: all tokens of a request in one chunk leave no time between them.
        *at_least(0, "itl_p50_s"),
        *share("slo_share", "itl_drift_p"),
        # Timers may fire a moment early; a client that sends a millisecond before time has no clock to trust.
        between("lateness_p95_s", -0.001, None, "no sending before its time"),
        not_less("ttft_p95_s", "ttft_p50_s"),
        not_less("itl_p95_s", "itl_p50_s"),
        not_less("e2e_p95_s", "e2e_p50_s"),
        *(
            rule
            for name in ("ttft", "itl", "e2e")
            for rule in (
                not_less(f"{name}_p95_s", f"{name}_p95_low_s"),
                not_less(f"{name}_p95_high_s", f"{name}_p95_s"),
            )
        ),
        not_less("e2e_p50_s", "ttft_p50_s"),
        not_less("requests_per_s", "goodput_per_s"),
        not_less("output_tokens_per_s", "slo_tokens_per_s"),
        *(
            absent(name, f"requests < {P95_NEEDS}", f"no 95th percentile of fewer than {P95_NEEDS} requests")
            for name in ("ttft_p95_s", "itl_p95_s", "e2e_p95_s")
        ),
        sound("_accounted", "completed and failed to add up to requests"),
        sound("_reasoned", "reasons where a trial is not valid, and only there"),
        Rule(
            "ExpectCompoundColumnsToBeUnique",
            "each arm once in a block of a load point",
            {"column_list": ["run_id", "arm", "load_point", "block"]},
        ),
    ),
    "requests": (
        *digest("deployment_digest", "prompt_hash"),
        *at_least(0, "request_index", "scheduled_s", "sent_s", "first_token_s", "end_s"),
        *at_least(1, "prompt_tokens"),
        *at_least(0, "input_tokens", "output_tokens"),
        not_less("first_token_s", "sent_s"),
        not_less("end_s", "first_token_s"),
        not_less("end_s", "sent_s"),
        one_of("status", "ok", "http_error", "broken_stream", "timeout", "refused", "no_tokens"),
        *(
            required(name, 'status == "ok"', "a value for a request that ended well")
            for name in ("sent_s", "first_token_s", "end_s", "output_tokens")
        ),
        absent("error", 'status == "ok"', "no error for a request that ended well"),
        required("error", 'status != "ok"', "what went wrong with a request that did not end well"),
        sound("_tokens_in_order", "token times in order, from the first token to the end"),
        sound("_slo_earned", "no met SLO for a request that did not end well"),
    ),
    "engine_metrics": (
        *digest("deployment_digest"),
        matches("metric", r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", "a Prometheus name without labels"),
        one_of("kind", "counter", "gauge"),
        between("value", 0, None, "a counter that never runs backwards", 'kind == "counter"'),
    ),
    "probes": (
        *digest("deployment_digest"),
        matches("scope", r"^[a-z0-9][a-z0-9_-]*@slo$", "a capacity such as chat@slo"),
        *at_least(0, "block", "number", "position", "failed", "met", "output_tokens_per_s", "client_cpu_share"),
        *at_least(1, "requests"),
        *above_zero("rate", "duration_s"),
        between("lateness_p95_s", -0.001, None, "no sending before its time"),
        not_less("requests", "met"),
        sound("_each_request", "a due time, a TTFT, an ITL and a latency for each request"),
        sound("_reasoned", "reasons where a probe is not valid, and only there"),
        sound("_numbered", "probes of a search numbered from 0 without a gap"),
    ),
    "suites": (
        *digest("deployment_digest", "documents_digest"),
        one_of("category", *reversed(QUALITY)),
        one_of("route", "chat", "loglikelihood", "mixed"),
        *at_least(1, "documents"),
        *at_least(0, "answered", "duration_s"),
        *share("mean_score"),
        not_less("documents", "answered"),
        *at_least(0, "empty", "truncated", "duplicates"),
        not_less("documents", "empty"),
        not_less("documents", "truncated"),
        required("mean_score", "answered > 0", "a mean score where documents were answered"),
        absent("mean_score", "answered == 0", "no mean score where nothing was answered"),
        *at_least(0, "reused", "rechecked", "changed"),
        not_less("documents", "reused"),
        not_less("rechecked", "changed"),
        *at_least(1, "declared"),
        not_less("declared", "documents"),
        sound("_same_documents", "the same documents in every arm that was asked so many"),
    ),
    "samples": (
        *digest("deployment_digest", "doc_hash", "prompt_hash"),
        *share("score"),
        required("error", "score.isnull()", "a reason where there is no score"),
        absent("error", "score.notnull()", "no error where there is a score"),
        length("prompt", 2000),
        length("target", 500),
        length("answer", 2000),
        *share("judge_safe"),
        length("judge_answer", 200),
        *at_least(0, "position"),
        sound("_same_places", "the same document at the same place in every arm of a run"),
    ),
    "divergences": (
        *digest("deployment_digest", "baseline_digest", "doc_hash", "prompt_hash", "answer_hash"),
        *at_least(0, "tokens", "bounded", "kl_nats", "first_divergent_token"),
        *at_least(1, "top_k"),
        *share("covered", "top1_agreement"),
        # Equal figures over one position may differ in the last bit.
        sound("_mean_below_max", "a mean divergence that is not above the largest"),
        sound("_known_together", "divergence, agreement and coverage known together or not at all"),
        sound("_differs_somewhere", "a first divergent token only where answers differ"),
        required("error", "kl_nats.isnull() or same_answer.isnull()", "a reason where something is unknown"),
        absent("error", "kl_nats.notnull() and same_answer.notnull()", "no error where everything is known"),
    ),
}  # fmt: skip


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
    **PROFILE_ADDED,
    "trials": {
        "_accounted": each(lambda done, lost, sent: done + lost == sent, "completed", "failed", "requests"),
        "_reasoned": each(lambda valid, why: valid == (len(why) == 0), "valid", "invalid_reasons"),
    },
    "requests": {
        "_tokens_in_order": each(_in_order, "token_times_s", "first_token_s", "end_s"),
        "_slo_earned": each(lambda status, met: status == "ok" or met is not True, "status", "met_slo"),
    },
    "probes": {
        "_each_request": each(
            lambda sent, *lists: all(len(each) == sent for each in lists),
            *("requests", "due_s", "ttft_s", "itl_s", "e2e_s"),
        ),
        "_reasoned": each(lambda valid, why: valid == (len(why) == 0), "valid", "invalid_reasons"),
        "_numbered": _numbered,
    },
    "suites": {"_same_documents": _same_documents},
    "samples": {"_same_places": _same_places},
    "divergences": {
        "_mean_below_max": each(
            lambda mean, most: pd.isna(mean) or mean <= most * (1 + 1e-9), "kl_nats", "kl_nats_max"
        ),
        "_known_together": each(
            lambda *values: len({bool(pd.isna(value)) for value in values}) == 1,
            *("kl_nats", "kl_nats_max", "top1_agreement", "covered", "bounded"),
        ),
        "_differs_somewhere": each(
            lambda same, first: same is False or bool(pd.isna(first)), "same_answer", "first_divergent_token"
        ),
    },
}
