"""What a search came to, as rows: each stack beside what it was held against, beside the baseline, and on the front."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.comparisons import usd_per_million
from steelyard.digest import canonical
from steelyard.records_search import StackRow
from steelyard.stats.incomplete_blocks import Comparing, Observation
from steelyard.stats.paired import Estimate
from steelyard.tuning.levers import RISKS
from steelyard.tuning.stack import BASELINE
from steelyard.tuning.terms import CONFIDENCE, Tried

NONE = Estimate(None, None, None, 0, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything the bench measured, as observations of the goal, of output tokens/s and of end-to-end latency.

    `usd_per_hour` is the price of one engine's machine.
    """

    goal: Sequence[Observation]
    throughput: Sequence[Observation]
    latency: Sequence[Observation]
    usd_per_hour: float | None


def stack_rows(run_id: str, tried: Sequence[Tried], measured: Measured) -> list[StackRow]:
    """A row for every stack of every round, with all that is known at the end."""
    goal, throughput, latency = (Comparing(each) for each in (measured.goal, measured.throughput, measured.latency))
    rate = _baseline_rate(measured.throughput)
    seen = {each.config for each in measured.goal}

    def over(compare: Comparing, one: str, other: str) -> Estimate:
        return compare.ratio(one, other, CONFIDENCE) if one in seen else NONE

    rows = []
    for each in tried:
        total = over(goal, each.stack.name, BASELINE)
        gain = NONE if each.fate == "not tried" else over(goal, each.stack.name, each.against)
        tokens = over(throughput, each.stack.name, BASELINE).value
        rows.append(
            StackRow(
                run_id=run_id, round=each.round, arm=each.stack.name, stage=each.stage,
                pulled=list(each.stack.levers), numbers_json=canonical(dict(each.stack.knobs)),
                change_json=canonical(each.stack.change()),
                answer_risk=each.stack.risk, against=each.against, varied=each.varied, blocks_measured=each.blocks,
                gain=gain.value, gain_low=gain.low, gain_high=gain.high, total=total.value, total_low=total.low,
                total_high=total.high, tokens_ratio=tokens,
                latency_ratio=over(latency, each.stack.name, BASELINE).value,
                usd_per_million=usd_per_million(measured.usd_per_hour, rate * tokens if rate and tokens else None),
                on_front=False, fate=each.fate, reason=each.reason,
            )
        )  # fmt: skip
    front = {row.arm for row in front_of(rows)}
    return [dataclasses.replace(row, on_front=row.arm in front) for row in rows]


def front_of(rows: Sequence[StackRow]) -> list[StackRow]:
    """The stacks that no other beats in throughput, latency, cost and risk at once (Pareto), each once.

    What no engine serves, what harms, and what was not measured is no choice.
    """
    choices = choices_of(rows)
    return [row for row in choices if not any(_beats(other, row) for other in choices)]


def choices_of(rows: Sequence[StackRow]) -> list[StackRow]:
    """Each stack that can be chosen, once: its last row, in the order of first appearance."""
    out = {row.arm for row in rows if row.fate in ("failed", "harmful")}
    known = [row for row in rows if row.tokens_ratio is not None and row.latency_ratio is not None]
    return list({row.arm: row for row in known if row.arm not in out}.values())


def said(row: StackRow) -> str:
    """A stack in words."""
    numbers = json.loads(row.numbers_json)
    return " + ".join([*row.pulled, *(f"{name} {value}" for name, value in numbers.items())]) or BASELINE


def left_out(rows: Sequence[StackRow], winner: str) -> dict[str, StackRow | None]:
    """Of each lever of the winner: the last row of a stack without it beside the same stack with it; None if it was
    never left out.
    """
    stack = next((row for row in rows if row.arm == winner), None)
    found = {}
    for lever in stack.pulled if stack is not None else ():
        without = [row for row in rows if row.stage == "stack" and row.varied == f"-{lever}" and row.gain is not None]
        found[lever] = without[-1] if without else None
    return found


def interaction(alone: StackRow, without: StackRow) -> tuple[float, float | None, float | None] | None:
    """Gain of a lever inside the stack over its gain alone, with an interval from both: 1 where levers only multiply.

    The two intervals are taken as independent, which makes this one too wide rather than too narrow.
    """
    if alone.total is None or without.gain is None:
        return None
    value = 1 / without.gain / alone.total
    bounds = (alone.total_low, alone.total_high, without.gain_low, without.gain_high)
    if any(each is None for each in bounds):
        return value, None, None
    low, high, least, most = (math.log(each) for each in bounds if each is not None)
    half = math.hypot((high - low) / 2, (most - least) / 2)
    return value, value * math.exp(-half), value * math.exp(half)


def _beats(other: StackRow, row: StackRow) -> bool:
    ours, theirs = _merits(other), _merits(row)
    return all(one >= two for one, two in zip(ours, theirs, strict=True)) and ours != theirs


def _merits(row: StackRow) -> tuple[float, ...]:
    assert row.tokens_ratio is not None
    assert row.latency_ratio is not None
    cost = row.usd_per_million if row.usd_per_million is not None else 1 / row.tokens_ratio
    return row.tokens_ratio, -row.latency_ratio, -cost, -RISKS.index(row.answer_risk)


def _baseline_rate(throughput: Sequence[Observation]) -> float | None:
    """Geometric mean over the load points of the baseline's output tokens/s."""
    by_point: dict[str, list[float]] = {}
    for each in throughput:
        if each.config == BASELINE:
            by_point.setdefault(each.stratum, []).append(math.log(each.value))
    means = [math.fsum(values) / len(values) for values in by_point.values()]
    return math.exp(math.fsum(means) / len(means)) if means else None
