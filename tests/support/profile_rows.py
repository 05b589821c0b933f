"""Rows of a baseline's profile, as a survey would store them: two phases, two operators, one lever tried, one not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from steelyard.records_base import Row
from steelyard.records_profile import (
    CeilingRow,
    OperatorRow,
    OpportunityRow,
    ProfileRow,
    ProfileStepRow,
    RooflineRow,
)


def profile_rows(
    run_id: str, points: Sequence[str], digest: str, now: datetime, tried: Mapping[str, float]
) -> list[Row]:
    """Every table of a profile. `tried` holds the predicted ratio by arm, the same at every load point."""
    made: list[Row] = [
        CeilingRow(run_id=run_id, kind="peak", dtype="float32", size=1024, value=2e11),
        CeilingRow(run_id=run_id, kind="read", dtype="", size=14_000_000, value=1e11),
        CeilingRow(run_id=run_id, kind="layers", dtype="float32", size=8, value=6e-4),
        CeilingRow(run_id=run_id, kind="head", dtype="float32", size=8, value=1e-4),
    ]
    for point in points:
        made.append(_profile(run_id, point, digest, now))
        made += [_step(run_id, point, number) for number in range(3)]
        made += [
            OperatorRow(
                run_id=run_id, arm="baseline", load_point=point, phase=phase, category=category, operator=name,
                calls=4, seconds=0.001,
            )
            for phase in ("prefill", "decode")
            for category, name in (("gemm", "_C::onednn_mm"), ("elementwise", "aten::silu"))
        ]  # fmt: skip
        made += [
            RooflineRow(
                run_id=run_id, arm="baseline", load_point=point, phase=phase, steps=1 if phase == "prefill" else 2,
                seconds=0.004, tokens=64, operations=4e8, weight_bytes=1.4e7, kv_bytes=1e5, peak_operations_per_s=2e11,
                peak_bytes_per_s=1e11, mfu=0.5 if phase == "prefill" else 0.02, mbu=0.035,
            )
            for phase in ("prefill", "decode")
        ]  # fmt: skip
        made += [_opportunity(run_id, name, point, ratio, now, name) for name, ratio in tried.items()]
        made.append(_opportunity(run_id, "omp-threads", point, 1.1, now, None))
        made.append(_opportunity(run_id, "suffix-speculation", point, None, now, None))
    return made


def _profile(run_id: str, point: str, digest: str, now: datetime) -> ProfileRow:
    return ProfileRow(
        run_id=run_id, arm="baseline", load_point=point, deployment_digest=digest, profiled_at=now, requests=4,
        output_tokens=20, plain_s=0.011, traced_s=0.012, overhead=1 / 11, steps=3, traced_steps_s=0.012, idle_s=0.0005,
        sequences=1.7, max_sequences=2, kv_tokens=150.0, kv_capacity_tokens=65536, preemptions=0,
        cache_queried_tokens=0, cache_hit_tokens=0, queue_s=0.1, prefill_s=0.004, decode_s=0.02, error=None,
    )  # fmt: skip


def _step(run_id: str, point: str, number: int) -> ProfileStepRow:
    prompt = number == 0
    return ProfileStepRow(
        run_id=run_id, arm="baseline", load_point=point, step=number, start_s=0.004 * number, seconds=0.003,
        until_next_s=0.004, idle_s=0.0005 if number == 2 else 0.0, context_requests=int(prompt),
        context_tokens=64 if prompt else 0, context_entries=64 if prompt else 0, context_pairs=2080 if prompt else 0,
        generation_requests=0 if prompt else 2, generation_tokens=0 if prompt else 2,
        generation_entries=0 if prompt else 130, generation_pairs=0 if prompt else 130, gemm_s=0.0012,
        attention_s=0.0002, normalisation_s=0.0001, elementwise_s=0.0003, sampling_s=0.0, communication_s=0.0,
        host_s=0.0012, scheduling_s=0.0005 if number == 2 else 0.001,
    )  # fmt: skip


def _opportunity(
    run_id: str, name: str, point: str, ratio: float | None, now: datetime, arm: str | None
) -> OpportunityRow:
    return OpportunityRow(
        run_id=run_id, name=name, load_point=point, tried_by=arm, lever="batching", rank=1 if arm else 2,
        mechanism="more sequences share each step's fixed costs and weights",
        evidence="of the time: host 45%, scheduling 13%", predicted=ratio, low=ratio and ratio * 0.9,
        high=ratio and ratio * 1.1, reason=None if ratio else "there is no model of it",
        risk="rounding", cost_s=36.8, predicted_at=now,
    )  # fmt: skip
