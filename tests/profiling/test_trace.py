"""Traces become steps whose kinds of work add up; what is no trace is named."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
from synthetic_trace import BASE_NS, cpu_trace, event, step_name

from steelyard.errors import InfrastructureError
from steelyard.profiling.operators import categories_of, category_of
from steelyard.profiling.rows import Window, phase_of, step_rows
from steelyard.profiling.trace import Group, parse_trace, read_trace, split

PREFILL = step_name((1, 64, 64), (0, 0, 0))
DECODE = step_name((0, 0, 0), (2, 2, 130))
MIXED = step_name((1, 64, 64), (1, 1, 70))
US = 1e-6


def test_steps_and_their_batches() -> None:
    trace = parse_trace(cpu_trace([PREFILL, DECODE, MIXED]))
    assert [phase_of(step) for step in trace.steps] == ["prefill", "decode", "prefill"]
    # A prompt's tokens look at themselves and those before: 64 * 65 / 2 pairs.
    assert trace.steps[0].context == Group(1, 64, 64, 2080)
    assert trace.steps[1].generation == Group(2, 2, 130, 130)
    assert trace.began_at_s == pytest.approx(BASE_NS * 1e-9 + 1000 * US)
    assert not trace.device


def test_time_is_split_without_rest() -> None:
    trace = parse_trace(cpu_trace([PREFILL, DECODE, DECODE]))
    for place, step in enumerate(trace.steps):
        spent, _ = split(step)
        assert math.fsum(spent.values()) == pytest.approx(step.until_next_s)
        # Outermost operators only: those inside them, and those of other threads, are not counted again.
        assert spent["normalisation"] == pytest.approx(35 * US)
        assert spent["gemm"] == pytest.approx(5 * US)
        assert spent["attention"] == pytest.approx(5 * US)
        assert spent["elementwise"] == pytest.approx(5 * US)
        assert spent["host"] == pytest.approx(50 * US)
        assert spent["scheduling"] == pytest.approx(20 * US if place < 2 else 0.0)


def test_kernels_are_the_operators_of_a_gpu() -> None:
    spans = [event("gpu_user_annotation", PREFILL, 0, 100), event("gpu_user_annotation", DECODE, 150, 50)]
    kernels = [
        event("kernel", "void cutlass::Kernel<sm90_gemm>", 0, 60, tid=7),
        event("kernel", "flash_fwd_kernel", 30, 60, tid=8),
        event("gpu_memcpy", "Memcpy DtoH", 110, 10, tid=7),
        event("kernel", "ncclDevKernel_AllReduce", 150, 50, tid=7),
    ]
    told = [event("user_annotation", PREFILL, -500, 10), event("cpu_op", "aten::mm", -490, 5)]
    trace = parse_trace({"traceEvents": [*told, *spans, *kernels]})
    assert trace.device
    assert trace.began_at_s is None
    first, second = (split(step)[0] for step in trace.steps)
    # Two streams at once: 60 + 60 in 90 together, and the copy after the step.
    assert first["gemm"] + first["attention"] + first["elementwise"] == pytest.approx(100 * US)
    assert first["host"] == pytest.approx(10 * US)
    assert first["scheduling"] == pytest.approx(40 * US)
    assert second["communication"] == pytest.approx(50 * US)
    assert math.fsum(first.values()) == pytest.approx(150 * US)


def test_a_step_on_two_streams_is_one_step() -> None:
    spans = [
        event("gpu_user_annotation", PREFILL, 0, 80, tid=7), event("gpu_user_annotation", PREFILL, 20, 90, tid=8),
        event("gpu_user_annotation", DECODE, 150, 50, tid=7),
    ]  # fmt: skip
    trace = parse_trace({"traceEvents": [*spans, event("kernel", "gemm", 10, 30, tid=7)]})
    assert [step.seconds for step in trace.steps] == pytest.approx([110 * US, 50 * US])


def test_time_in_which_an_operator_ran_is_not_idle() -> None:
    (step, _) = parse_trace(cpu_trace([DECODE, DECODE], gap_us=30.0)).steps
    spent, idle = split(step, 100 * US)
    assert idle == pytest.approx(30 * US)
    assert math.fsum(spent.values()) + idle == pytest.approx(step.until_next_s)


def test_older_traces_know_only_counts() -> None:
    trace = parse_trace(cpu_trace(["execute_context_1(64)_generation_2(2)"]))
    assert trace.steps[0].context == Group(1, 64, None, None)
    assert trace.steps[0].generation == Group(2, 2, None, None)


def test_idle_time_is_no_scheduling() -> None:
    trace = parse_trace(cpu_trace([PREFILL, DECODE], gap_us=1000.0))
    assert trace.began_at_s is not None
    # In flight until 60 us after the first step's end, and again from 40 us before the second.
    flights = [(0.0, 160 * US), (1060 * US, 1200 * US)]
    rows, operators = step_rows("r", "baseline", "chat@c1", Window(trace, trace.began_at_s, flights))
    assert rows[0].idle_s == pytest.approx(900 * US, abs=1 * US)
    assert rows[0].scheduling_s == pytest.approx(100 * US, abs=1 * US)
    assert {row.phase for row in operators} == {"prefill", "decode"}
    assert sum(row.calls for row in operators) == 20
    unknown, _ = step_rows("r", "baseline", "chat@c1", Window(trace, trace.began_at_s, []))
    assert unknown[0].idle_s == 0


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("_C::onednn_mm", "gemm"), ("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_TNT", "gemm"), ("aten::addmm", "gemm"),
        ("void marlin::Marlin<half>", "gemm"), ("ampere_bf16_s16816gemm_bf16_128x64", "gemm"),
        ("fused_moe_kernel", "gemm"), ("cutlass_scaled_mm", "gemm"),
        ("flash::flash_fwd_splitkv_kernel", "attention"), ("reshape_and_cache_flash_kernel", "attention"),
        ("vllm::fused_add_rms_norm_kernel", "normalisation"), ("aten::layer_norm", "normalisation"),
        ("ncclDevKernel_AllReduce_Sum_bf16", "communication"), ("cross_device_reduce custom_ar", "communication"),
        ("aten::argmax", "sampling"), ("_C::greedy_argmax", "sampling"), ("topk_topp_sampler", "sampling"),
        ("aten::silu", "elementwise"), ("rotary_embedding_kernel", "elementwise"), ("Memcpy HtoD", "elementwise"),
        ("aten::slice", "elementwise"), ("aten::embedding", "elementwise"),
    ],
)  # fmt: skip
def test_names_tell_what_an_operator_is(name: str, category: str) -> None:
    assert category_of(name) == category


def test_a_square_alone_is_no_norm() -> None:
    assert categories_of(["aten::pow", "aten::add", "aten::mul"]) == ["elementwise"] * 3
    norm = ["aten::pow", "aten::mean", "aten::add", "aten::rsqrt", "aten::mul", "aten::mul", "aten::mul"]
    assert categories_of(norm) == ["normalisation"] * 6 + ["elementwise"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"not json", "cannot be read"),
        (gzip.compress(b'{"traceEvents": []}', mtime=0)[:-9], "cannot be read"),
        (b"[]", "has no traceEvents"),
        (b'{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 1, "dur": 1}]}', "no step"),
        (b'{"traceEvents": [null, 3, {"ph": "X"}]}', "no step"),
    ],
)
def test_what_is_no_trace_is_named(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "t.json").write_bytes(text)
    with pytest.raises(InfrastructureError, match=says):
        read_trace(tmp_path / "t.json")


def test_a_compressed_trace_reads_the_same(tmp_path: Path) -> None:
    whole = json.dumps(cpu_trace([PREFILL, DECODE])).encode()
    (tmp_path / "a.json").write_bytes(whole)
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(whole))
    assert read_trace(tmp_path / "a.json") == read_trace(tmp_path / "b.json.gz")
