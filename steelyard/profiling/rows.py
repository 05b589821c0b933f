"""From a trace to rows: each step with its seconds by kind of work, and the operators behind them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from steelyard.profiling.operators import CATEGORIES
from steelyard.profiling.trace import Step, Trace, split
from steelyard.records_profile import OperatorRow, ProfileStepRow

NAME_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Window:
    """A trace, when the client's pass began (seconds of the Unix epoch), and when its requests were in flight, each as
    (sent, ended) in seconds since then.
    """

    trace: Trace
    began_at_s: float
    in_flight: Sequence[tuple[float, float]]


def phase_of(step: Step | ProfileStepRow) -> str:
    """Prefill for every step that reads a prompt, also beside decodes; decode; idle without any request."""
    context, generation = (
        (step.context.requests, step.generation.requests)
        if isinstance(step, Step)
        else (step.context_requests, step.generation_requests)
    )
    return "prefill" if context else "decode" if generation else "idle"


def entries_of(row: ProfileStepRow) -> int | None:
    """Tokens in the KV cache that a step looks at; None where the trace does not tell."""
    if row.context_entries is None or row.generation_entries is None:
        return None
    return row.context_entries + row.generation_entries


def step_rows(run_id: str, arm: str, load_point: str, window: Window) -> tuple[list[ProfileStepRow], list[OperatorRow]]:
    """Rows of the steps and of the operators of one load point.

    Where the trace tells when it began, time between steps without a request in flight is idle, not scheduling.
    """
    idles = _idle_spans(window)
    rows = []
    totals: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for number, step in enumerate(window.trace.steps):
        end = step.start_s + step.seconds
        spent, idle = split(step, _overlap(idles, end, step.start_s + step.until_next_s))
        rows.append(
            ProfileStepRow(
                run_id=run_id, arm=arm, load_point=load_point, step=number, start_s=step.start_s,
                seconds=step.seconds, until_next_s=step.until_next_s, idle_s=idle,
                context_requests=step.context.requests, context_tokens=step.context.tokens,
                context_entries=step.context.entries, context_pairs=step.context.pairs,
                generation_requests=step.generation.requests, generation_tokens=step.generation.tokens,
                generation_entries=step.generation.entries, generation_pairs=step.generation.pairs,
                **{f"{name}_s": spent.get(name, 0.0) for name in CATEGORIES},
            )
        )  # fmt: skip
        for each in step.operators:
            totals[phase_of(step), each.category, each.name[:NAME_LENGTH]].append(each.seconds)
    operators = [
        OperatorRow(
            run_id=run_id, arm=arm, load_point=load_point, phase=phase, category=category, operator=name,
            calls=len(seconds), seconds=sum(seconds),
        )
        for (phase, category, name), seconds in sorted(totals.items())
    ]  # fmt: skip
    return rows, operators


def summed(steps: Sequence[ProfileStepRow]) -> dict[str, Any]:
    """What `ProfileRow` says of the steps of its load point; means are weighted by a step's time, steps without a
    request left out.
    """
    worked = [row for row in steps if phase_of(row) != "idle"]
    return {
        "steps": len(steps),
        "traced_steps_s": math.fsum(row.until_next_s for row in steps) if steps else None,
        "idle_s": math.fsum(row.idle_s for row in steps) if steps else None,
        "sequences": _weighted(worked, lambda row: row.context_requests + row.generation_requests),
        "kv_tokens": _weighted(worked, entries_of),
    }


def _weighted(rows: Sequence[ProfileStepRow], of: Callable[[ProfileStepRow], int | None]) -> float | None:
    values = [(of(row), row.seconds) for row in rows]
    known = [(value, seconds) for value, seconds in values if value is not None]
    total = math.fsum(seconds for _, seconds in known)
    if len(known) < len(values) or not total:
        return None
    return math.fsum(value * seconds for value, seconds in known) / total


def _idle_spans(window: Window) -> list[tuple[float, float]]:
    """Spans without a request in flight, in seconds since the first step; none if the clocks cannot be compared."""
    if window.trace.began_at_s is None or not window.in_flight:
        return []
    shift = window.began_at_s - window.trace.began_at_s
    spans, reached = [], float("-inf")
    for sent, ended in sorted(window.in_flight):
        if sent + shift > reached:
            spans.append((reached, sent + shift))
        reached = max(reached, ended + shift)
    return [*spans, (reached, float("inf"))]


def _overlap(spans: Sequence[tuple[float, float]], low: float, high: float) -> float:
    return sum(max(0.0, min(end, high) - max(begin, low)) for begin, end in spans)
