"""Traced steps whose costs follow a known formula, and ceilings to match."""

from __future__ import annotations

import random

from steelyard.profiling.shape import Shape
from steelyard.profiling.step_model import Batch, Products
from steelyard.records_profile import CeilingRow, ProfileStepRow

SHAPE = Shape.of({
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 500,
    "tie_word_embeddings": True,
})  # fmt: skip
HOST, SCHEDULING, PER_PAIR = 1e-3, 2e-4, 3e-7


def ceilings(dtype: str = "float32", speed: float = 1.0) -> list[CeilingRow]:
    made = [CeilingRow(run_id="r", kind="peak", dtype=dtype, size=1024, value=1e11 * speed)]
    for size in (1, 8, 64, 512):
        made.append(CeilingRow(run_id="r", kind="layers", dtype=dtype, size=size, value=(1e-4 + 1e-5 * size) / speed))
        made.append(CeilingRow(run_id="r", kind="head", dtype=dtype, size=size, value=1e-5 / speed))
    return [*made, CeilingRow(run_id="r", kind="read", dtype="", size=1 << 20, value=1e10)]


def step(number: int, context: int, generation: int, length: int, slow: float = 1.0) -> ProfileStepRow:
    """A step whose costs follow the formula, Python's part `slow` times slower because it was traced."""
    batch = Batch(
        context_requests=int(context > 0), context_tokens=context, context_pairs=context * (context + 1) / 2,
        generation_requests=generation, generation_tokens=generation, generation_pairs=float(generation * length),
    )  # fmt: skip
    gemm = Products(ceilings()).seconds(batch, "float32")
    spent = {
        "gemm_s": gemm, "attention_s": PER_PAIR * (batch.context_pairs + batch.generation_pairs),
        "normalisation_s": 1e-5, "elementwise_s": 1e-5 + 1e-6 * batch.tokens, "sampling_s": 1e-6,
        "communication_s": 0.0, "host_s": HOST, "scheduling_s": SCHEDULING,
    }  # fmt: skip
    spent["host_s"] *= slow
    spent["scheduling_s"] *= slow
    total = sum(spent.values())
    return ProfileStepRow(
        run_id="r", arm="baseline", load_point="chat@c2", step=number, start_s=0.0,
        seconds=total - spent["scheduling_s"], until_next_s=total + 0.5, idle_s=0.5,
        context_requests=batch.context_requests, context_tokens=context, context_entries=context,
        context_pairs=round(batch.context_pairs), generation_requests=generation, generation_tokens=generation,
        generation_entries=generation * length, generation_pairs=generation * length, **spent,
    )  # fmt: skip


def steps(slow: float = 1.0) -> list[ProfileStepRow]:
    rng = random.Random(1)
    return [
        step(number, rng.choice((0, 0, 32, 256)), rng.randint(1, 4), rng.randint(30, 400), slow) for number in range(80)
    ]
