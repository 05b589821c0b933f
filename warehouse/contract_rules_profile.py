"""The rules of the profile's tables; see `contract_rules`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from steelyard.profiling.operators import CATEGORIES
from warehouse.contract_words import (
    Rule,
    above_zero,
    absent,
    at_least,
    digest,
    each,
    not_less,
    one_of,
    required,
    sound,
)

TIMES = tuple(f"{name}_s" for name in CATEGORIES)
OPERATED = tuple(name for name in CATEGORIES if name not in ("host", "scheduling"))

PROFILE_RULES: dict[str, tuple[Rule, ...]] = {
    "profiles": (
        *digest("deployment_digest"),
        *at_least(0, "requests", "output_tokens", "steps", "idle_s", "sequences", "kv_tokens", "preemptions"),
        *at_least(0, "cache_queried_tokens", "cache_hit_tokens", "queue_s", "prefill_s", "decode_s"),
        *above_zero("plain_s", "traced_s"),
        *at_least(1, "max_sequences", "kv_capacity_tokens"),
        not_less("cache_queried_tokens", "cache_hit_tokens"),
        required("error", "steps == 0", "a reason where there is no trace"),
        absent("error", "steps > 0", "no reason where there is a trace"),
    ),
    "profile_steps": (
        *at_least(0, "step", "start_s", "seconds", "until_next_s", "idle_s", *TIMES),
        *at_least(0, "context_requests", "context_tokens", "context_entries", "context_pairs"),
        *at_least(0, "generation_requests", "generation_tokens", "generation_entries", "generation_pairs"),
        sound("_adds_up", "kinds of work that add up to the time of the step and what follows it"),
    ),
    "operators": (
        one_of("phase", "prefill", "decode", "idle"),
        one_of("category", *OPERATED),
        *at_least(1, "calls"),
        *at_least(0, "seconds"),
    ),
    "ceilings": (
        one_of("kind", "peak", "read", "layers", "head"),
        *at_least(1, "size"),
        *above_zero("value"),
    ),
    "rooflines": (
        one_of("phase", "prefill", "decode"),
        *at_least(1, "steps", "tokens"),
        *above_zero("seconds", "operations", "peak_operations_per_s", "peak_bytes_per_s", "mfu", "mbu"),
        *at_least(0, "weight_bytes", "kv_bytes"),
    ),
    "opportunities": (
        *at_least(1, "rank"),
        *above_zero("predicted", "low", "high", "cost_s"),
        not_less("predicted", "low"),
        not_less("high", "predicted"),
        one_of("risk", "none", "rounding", "approximation", "damage", "unknown"),
        required("reason", "predicted.isnull()", "a reason where nothing is predicted"),
        absent("reason", "predicted.notnull()", "no reason where something is predicted"),
    ),
}  # fmt: skip


def _adds_up(until_next: float, idle: float, *spent: float) -> bool:
    """A step's kinds of work are its time; clocks of a trace are known to a nanosecond."""
    return math.isclose(math.fsum(spent), until_next - idle, rel_tol=1e-6, abs_tol=1e-6)


PROFILE_ADDED: dict[str, dict[str, Callable[[pd.DataFrame], Any]]] = {
    "profile_steps": {"_adds_up": each(_adds_up, "until_next_s", "idle_s", *TIMES)},
}
