"""Traces as torch's profiler writes them, of an engine whose steps are known."""

from __future__ import annotations

from typing import Any

BASE_NS = 1_790_857_026_000_000_000
LAYER = ("aten::pow", "aten::mean", "aten::add", "aten::rsqrt", "aten::mul", "aten::to", "aten::mul", "_C::onednn_mm",
         "vllm::unified_attention_with_output", "aten::mul")  # fmt: skip


def step_name(context: tuple[int, int, int], generation: tuple[int, int, int]) -> str:
    """vLLM's detailed annotation: (requests, tokens, entries) of each phase, prompts unread before."""
    (c, cq, ck), (g, gq, gk) = context, generation
    cc, gg = f"sq{cq}sk{ck}sqsq{cq * cq}sqsk{cq * ck}", f"sq{gq}sk{gk}sqsq{gq}sqsk{gk}"
    return f"execute_{cq + gq}_context_{c}({cc})_generation_{g}({gg})"


def event(cat: str, name: str, ts: float, dur: float, tid: int = 1) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur}


def cpu_trace(names: list[str], *, step_us: float = 100.0, gap_us: float = 20.0, op_us: float = 5.0) -> dict[str, Any]:
    """One step after another, each with the operators of `LAYER`; every operator calls another inside."""
    events: list[dict[str, Any]] = [{"ph": "M", "name": "process_name"}]
    at = 1000.0
    for name in names:
        events.append(event("user_annotation", name, at, step_us))
        for place, op in enumerate(LAYER):
            start = at + 1 + place * (op_us + 1)
            events.append(event("cpu_op", op, start, op_us))
            events.append(event("cpu_op", "aten::empty", start + 1, 1.0))
        events.append(event("cpu_op", "aten::mm", at + 2, 50.0, tid=7))
        at += step_us + gap_us
    return {"baseTimeNanoseconds": BASE_NS, "traceEvents": events}
