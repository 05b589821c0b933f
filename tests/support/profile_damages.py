"""Damages to rows of the profile's tables that together break every rule of their contracts."""

from __future__ import annotations

from typing import Any

from warehouse.contract_rules_profile import TIMES

PROFILE_DAMAGES: list[tuple[str, dict[str, Any], str]] = [
    ("profiles", {"deployment_digest": "abc"}, "profiles.deployment_digest: expected 64 hex"),
    *(("profiles", {name: -1}, f"profiles.{name}: expected at least 0") for name in (
        "requests", "output_tokens", "steps", "idle_s", "sequences", "kv_tokens", "preemptions",
        "cache_queried_tokens", "cache_hit_tokens", "queue_s", "prefill_s", "decode_s")),
    *(("profiles", {name: 0.0}, f"profiles.{name}: expected more than 0") for name in ("plain_s", "traced_s")),
    *(("profiles", {name: 0}, f"profiles.{name}: expected at least 1")
      for name in ("max_sequences", "kv_capacity_tokens")),
    ("profiles", {"cache_hit_tokens": 9}, "profiles.cache_queried_tokens: expected it not to be less than cache_hit"),
    ("profiles", {"steps": 0}, "profiles.error: expected a reason where there is no trace"),
    ("profiles", {"error": "oh"}, "profiles.error: expected no reason where there is a trace"),
    *(("profile_steps", {name: -1}, f"profile_steps.{name}: expected at least 0") for name in (
        "step", "start_s", "seconds", "until_next_s", "idle_s", *TIMES, "context_requests", "context_tokens",
        "context_entries", "context_pairs", "generation_requests", "generation_tokens", "generation_entries",
        "generation_pairs")),
    ("profile_steps", {"gemm_s": 1.0}, "expected kinds of work that add up"),
    ("operators", {"phase": "lunch"}, "operators.phase: expected one of prefill"),
    ("operators", {"category": "host"}, "operators.category: expected one of gemm"),
    ("operators", {"calls": 0}, "operators.calls: expected at least 1"),
    ("operators", {"seconds": -1.0}, "operators.seconds: expected at least 0"),
    ("ceilings", {"kind": "roof"}, "ceilings.kind: expected one of peak"),
    ("ceilings", {"size": 0}, "ceilings.size: expected at least 1"),
    ("ceilings", {"value": 0.0}, "ceilings.value: expected more than 0"),
    ("rooflines", {"phase": "idle"}, "rooflines.phase: expected one of prefill, decode"),
    *(("rooflines", {name: 0}, f"rooflines.{name}: expected at least 1") for name in ("steps", "tokens")),
    *(("rooflines", {name: 0.0}, f"rooflines.{name}: expected more than 0") for name in (
        "seconds", "operations", "peak_operations_per_s", "peak_bytes_per_s", "mfu", "mbu")),
    *(("rooflines", {name: -1.0}, f"rooflines.{name}: expected at least 0") for name in ("weight_bytes", "kv_bytes")),
    ("opportunities", {"rank": 0}, "opportunities.rank: expected at least 1"),
    *(("opportunities", {name: 0.0}, f"opportunities.{name}: expected more than 0")
      for name in ("predicted", "low", "high", "cost_s")),
    ("opportunities", {"low": 9.0}, "opportunities.predicted: expected it not to be less than low"),
    ("opportunities", {"high": 0.1}, "opportunities.high: expected it not to be less than predicted"),
    ("opportunities", {"risk": "some"}, "opportunities.risk: expected one of none"),
    ("opportunities", {"predicted": None}, "opportunities.reason: expected a reason where nothing is predicted"),
    ("opportunities", {"reason": "oh"}, "opportunities.reason: expected no reason where something is predicted"),
]  # fmt: skip
