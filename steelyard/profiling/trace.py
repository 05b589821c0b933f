"""Traces of torch's profiler, as vLLM writes them, read into engine steps and operators.

One step is one pass of the engine: vLLM annotates it with what was in its batch, `execute_T_context_C(sqQ...)_
generation_G(sqQ...)`, or `execute_context_C(Q)_generation_G(Q)` before details were offered. Operators are those of the
device: kernels where the trace has any, else the outermost operators of torch on the thread of the steps. Everything
else of a step is the host's: Python, dispatch and, between two steps, the scheduler and the server.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steelyard.collector import no_collector
from steelyard.errors import InfrastructureError
from steelyard.profiling.operators import categories_of

_STEP = re.compile(r"execute_(?:\d+_)?context_(\d+)\(([^)]*)\)_generation_(\d+)\(([^)]*)\)")
_FIELD = re.compile(r"(sqsq|sqsk|sq|sk)(\d+)")
_DEVICE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
MICRO = 1e-6


@dataclass(frozen=True, slots=True)
class Group:
    """The requests of one phase in a step: their number, the tokens computed for them, the KV entries these looked at
    in all requests together, and query-key pairs (each token with those up to it). The last two are None in older
    traces.
    """

    requests: int
    tokens: int
    entries: int | None
    pairs: int | None


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator that ran: seconds since the trace's first step."""

    name: str
    category: str
    start_s: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the engine and what followed it until the next.

    `start_s` counts from the first step. `seconds` is the step itself, `until_next_s` the time from its start to that
    of the next (of the last one: its end). `operators` ran in that time; `device` says that they are kernels.
    """

    start_s: float
    seconds: float
    until_next_s: float
    context: Group
    generation: Group
    operators: tuple[Operator, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The steps of one trace, in order. `began_at_s` is the first step's start in seconds of the Unix epoch, None if
    the trace does not say; `device` whether operators are kernels of an accelerator.
    """

    steps: tuple[Step, ...]
    began_at_s: float | None
    device: bool


@dataclass(slots=True)
class _Events:
    spans: list[Mapping[str, Any]] = field(default_factory=list)
    device_spans: list[Mapping[str, Any]] = field(default_factory=list)
    kernels: list[Mapping[str, Any]] = field(default_factory=list)
    calls: list[Mapping[str, Any]] = field(default_factory=list)


def read_trace(path: Path) -> Trace:
    """The trace in a file, gzipped or not. Raises InfrastructureError if it is none, or holds no step of vLLM."""
    try:
        data = path.read_bytes()
        with no_collector():
            whole = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise InfrastructureError(
            f"The profile {path} cannot be read: {error}.", remedy="Look at the space on the disk, and profile again."
        ) from error
    return parse_trace(whole, str(path))


def parse_trace(whole: Any, named: str = "the trace") -> Trace:
    """As `read_trace`, of what JSON made of it."""
    events = whole.get("traceEvents") if isinstance(whole, Mapping) else None
    if not isinstance(events, list):
        raise InfrastructureError(f"{named} has no traceEvents.", remedy="Use vLLM's torch profiler.")
    sorted_out = _sort_out(events)
    device = bool(sorted_out.kernels)
    spans = sorted_out.device_spans if device and sorted_out.device_spans else sorted_out.spans
    spans = _merged(spans)
    if not spans:
        raise InfrastructureError(
            f"{named} holds no step of the engine.",
            remedy="Only traces of vLLM's torch profiler name them; the engine must work while it is profiled.",
        )
    thread = (spans[0].get("pid"), spans[0].get("tid"))
    ran = sorted_out.kernels if device else _outermost(sorted_out.calls, thread)
    base = whole.get("baseTimeNanoseconds")
    zero = spans[0]["ts"]
    began = base * 1e-9 + zero * MICRO if isinstance(base, int | float) else None
    return Trace(steps=_steps(spans, ran, zero), began_at_s=began, device=device)


def _sort_out(events: Sequence[Any]) -> _Events:
    found = _Events()
    for event in events:
        if not isinstance(event, Mapping) or event.get("ph") != "X" or "dur" not in event:
            continue
        kind = event.get("cat")
        if kind == "user_annotation" and _STEP.match(str(event.get("name"))):
            found.spans.append(event)
        elif kind == "gpu_user_annotation" and _STEP.match(str(event.get("name"))):
            found.device_spans.append(event)
        elif kind in _DEVICE:
            found.kernels.append(event)
        elif kind == "cpu_op":
            found.calls.append(event)
    return found


def _merged(spans: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Spans in order; those of one name that overlap are one step on several streams of a device."""
    found: list[Any] = []
    for each in sorted(spans, key=lambda each: each["ts"]):
        last = found[-1] if found else None
        if last is not None and last["name"] == each["name"] and each["ts"] < last["ts"] + last["dur"]:
            last["dur"] = max(last["dur"], each["ts"] + each["dur"] - last["ts"])
        else:
            found.append(dict(each))
    return found


def _outermost(calls: Sequence[Mapping[str, Any]], thread: tuple[Any, Any]) -> list[Mapping[str, Any]]:
    ours = [each for each in calls if (each.get("pid"), each.get("tid")) == thread]
    ours.sort(key=lambda each: (each["ts"], -each["dur"]))
    found, end = [], float("-inf")
    for each in ours:
        if each["ts"] >= end:
            found.append(each)
            end = each["ts"] + each["dur"]
    return found


def _steps(spans: Sequence[Mapping[str, Any]], ran: Sequence[Mapping[str, Any]], zero: float) -> tuple[Step, ...]:
    ran = sorted(ran, key=lambda each: each["ts"])
    categories = categories_of([str(each["name"]) for each in ran])
    starts = [each["ts"] for each in ran]
    steps = []
    for index, span in enumerate(spans):
        begin, end = span["ts"], span["ts"] + span["dur"]
        until = spans[index + 1]["ts"] if index + 1 < len(spans) else end
        first = bisect_left(starts, begin)
        last = bisect_left(starts, until) if index + 1 < len(spans) else bisect_right(starts, end)
        found = _STEP.match(str(span["name"]))
        assert found is not None, "spans were chosen by this pattern"
        operators = tuple(
            Operator(str(each["name"]), category, (each["ts"] - zero) * MICRO, each["dur"] * MICRO)
            for each, category in zip(ran[first:last], categories[first:last], strict=True)
        )
        steps.append(
            Step(
                start_s=(begin - zero) * MICRO, seconds=min(span["dur"], until - begin) * MICRO,
                until_next_s=(until - begin) * MICRO,
                context=_group(int(found[1]), found[2]), generation=_group(int(found[3]), found[4]),
                operators=operators,
            )
        )  # fmt: skip
    return tuple(steps)


def _group(requests: int, inside: str) -> Group:
    if inside.isdigit():
        return Group(requests, int(inside), None, None)
    told = {name: int(value) for name, value in _FIELD.findall(inside)}
    tokens, all_pairs, squares = told.get("sq", 0), told.get("sqsk"), told.get("sqsq")
    if all_pairs is None or squares is None:
        return Group(requests, tokens, told.get("sk"), None)
    # Of the tokens computed together each looks at itself and those before it: half of their square is not needed.
    return Group(requests, tokens, told.get("sk"), all_pairs - (squares - tokens) // 2)


def split(step: Step, idle_s: float = 0.0) -> tuple[dict[str, float], float]:
    """Seconds of a step and of what followed it by category, and how much of `idle_s` (in which there was no work) no
    operator contradicts; they add up to `until_next_s`.

    Kernels that overlapped on several streams share the time they took together.
    """
    spent: dict[str, float] = defaultdict(float)
    for each in step.operators:
        spent[each.category] += each.seconds
    end, following = step.start_s + step.seconds, step.start_s + step.until_next_s
    inside = _covered(step.operators, step.start_s, end)
    after = _covered(step.operators, end, following)
    total, together = sum(spent.values()), inside + after
    if total > together > 0:
        spent = defaultdict(float, {name: value * together / total for name, value in spent.items()})
    gap = max(0.0, step.until_next_s - step.seconds - after)
    idle = min(idle_s, gap)
    spent["host"] = max(0.0, step.seconds - inside)
    spent["scheduling"] = gap - idle
    return dict(spent), idle


def _covered(operators: Sequence[Operator], low: float, high: float) -> float:
    """Seconds of low..high during which an operator ran."""
    covered, reached = 0.0, low
    for each in operators:
        begin, end = max(each.start_s, reached), min(each.start_s + each.seconds, high)
        if end > begin:
            covered += end - begin
            reached = end
    return covered
