"""Rows of a search that found two levers: a sound example for warehouse and page."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

from steelyard.digest import canonical
from steelyard.records_search import SearchRow, StackRow


def search_row(run_id: str, now: datetime, **changes: Any) -> SearchRow:
    """A search that ended with a winner nobody has judged."""
    made = SearchRow(
        run_id=run_id, source="nightly-chat", source_digest="a" * 64, goal="slo_tokens_per_s",
        load_points=["chat@c8"], settings_json="{}", surveyed_by=None, levers=["batching", "bf16", "kv-int8"],
        left_out_json=canonical({"flashinfer": "the engine refuses it: no such device"}), budget_s=1800.0,
        spent_s=421.5, journal_json="[]", winner="stack-1", fallback=None, stopped=None,
        confirmed_by=None, searched_at=now,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def stack_row(run_id: str, round_: int, arm: str, pulled: list[str], total: float | None, **changes: Any) -> StackRow:
    """One stack; its figures follow from `total`, the goal over the baseline's."""

    def times(factor: float) -> float | None:
        return None if total is None else total * factor

    made = StackRow(
        run_id=run_id, round=round_, arm=arm, stage="screen", pulled=pulled, numbers_json="{}",
        change_json=canonical({"args": dict.fromkeys(pulled, True)}), answer_risk="rounding", against="baseline",
        varied=f"+{pulled[-1]}" if pulled else "", blocks_measured=2, gain=times(1.0), gain_low=times(0.9),
        gain_high=times(1.1), total=times(1.0), total_low=times(0.9), total_high=times(1.1), tokens_ratio=times(1.0),
        latency_ratio=None if total is None else 1 / total, usd_per_million=None if total is None else 2.0 / total,
        on_front=False, fate="kept", reason=None,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def stack_rows(run_id: str) -> list[StackRow]:
    """Two levers that pay, one that harms, one that does not serve; together, and each left out."""
    inside = {"stage": "stack", "against": "stack-1"}
    return [
        stack_row(run_id, 0, "baseline", [], 1.0, stage="start", answer_risk="none", on_front=True),
        stack_row(run_id, 1, "again", ["again"], 1.01, fate="no gain"),
        stack_row(run_id, 1, "bf16", ["bf16"], 1.2),
        stack_row(run_id, 1, "batching", ["batching"], 3.0),
        stack_row(run_id, 1, "kv-int8", ["kv-int8"], 1.3, answer_risk="damage", fate="harmful", reason="accuracy fell"),
        stack_row(
            run_id, 1, "flash", ["flash"], None, fate="failed", reason="no kernel for this device", blocks_measured=0
        ),
        stack_row(run_id, 2, "batching", ["batching"], 3.0, gain=0.8, gain_low=0.7, gain_high=0.9, varied="-bf16",
                  fate="slower", **inside),
        stack_row(run_id, 2, "bf16", ["bf16"], 1.2, gain=0.35, gain_low=0.3, gain_high=0.4, varied="-batching",
                  fate="slower", **inside),
        stack_row(run_id, 3, "stack-1", ["batching", "bf16"], 3.75, stage="numbers", numbers_json='{"block_size":32}',
                  varied="block_size 32", on_front=True),
    ]  # fmt: skip


SEARCH_DAMAGES: list[tuple[str, dict[str, Any], str]] = [
    *(("stacks", {name: -1}, f"stacks.{name}: expected at least 0") for name in ("round", "blocks_measured")),
    ("stacks", {"stage": "lunch"}, "stacks.stage: expected one of start"),
    ("stacks", {"fate": "unlucky"}, "stacks.fate: expected one of kept"),
    ("stacks", {"answer_risk": "some"}, "stacks.answer_risk: expected one of none"),
    *(("stacks", {name: 0.0}, f"stacks.{name}: expected more than 0") for name in (
        "gain", "gain_low", "gain_high", "total", "total_low", "total_high", "tokens_ratio", "latency_ratio",
        "usd_per_million")),
    ("stacks", {"gain_low": 9.0}, "stacks.gain: expected it not to be less than gain_low"),
    ("stacks", {"gain_high": 0.1}, "stacks.gain_high: expected it not to be less than gain"),
    ("stacks", {"total_low": 9.0}, "stacks.total: expected it not to be less than total_low"),
    ("stacks", {"total_high": 0.1}, "stacks.total_high: expected it not to be less than total"),
    ("stacks", {"fate": "failed"}, "stacks.reason: expected a reason of what has no figures"),
    ("stacks", {"fate": "not tried", "reason": "late"}, "stacks.gain: expected no figure of what was not tried"),
]  # fmt: skip
