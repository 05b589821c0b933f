"""The catalogue of levers: what each changes, what it may harm, what must judge it, and its exact arguments.

Whether a lever exists here is not written here: `available` asks the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from steelyard.study import Lever

Risk = Literal["none", "rounding", "approximation", "damage"]
"""What answers may suffer. none: the same arithmetic; rounding: another order of the same arithmetic; approximation:
fewer bits where training used more; damage: known to break answers without a word on some engine.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One lever. `args` and `env` go into a candidate as they stand; `weights` transforms the study's own.

    `needs` says in words what else must be there that no argument can bring (another checkpoint, a second device).
    """

    name: str
    kind: Lever
    changes: str
    risk: Risk
    args: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, Any] | None = None
    engine: str = "vllm"
    devices: tuple[str, ...] = ("cpu", "cuda")
    needs: str | None = None

    @property
    def suites(self) -> str:
        """What must judge it besides the accuracy and safety suites that every candidate faces."""
        if self.risk == "none":
            return "any"
        return (
            "generation"
            if self.kind in ("cache", "batching", "speculation", "combined")
            else "generation or likelihood"
        )


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        name="more-sequences",
        kind="batching",
        changes="sequences in a batch; decoding many costs as one",
        risk="rounding",
        args={"max_num_seqs": 64},
    ),
    Entry(
        name="token-budget",
        kind="batching",
        changes="tokens of a step, prefill and decode together",
        risk="rounding",
        args={"max_num_batched_tokens": 8192},
    ),
    Entry(
        name="chunked-prefill",
        kind="batching",
        changes="long prompts are cut between decodes: steadier ITL",
        risk="rounding",
        args={"enable_chunked_prefill": True},
    ),
    Entry(
        name="whole-prefill",
        kind="batching",
        changes="prompts are read at once: shorter TTFT where nobody decodes",
        risk="rounding",
        args={"enable_chunked_prefill": False},
    ),
    Entry(
        name="async-scheduling",
        kind="batching",
        changes="the next step is planned while the device computes",
        risk="none",
        args={"async_scheduling": True},
    ),
    Entry(
        name="priority-scheduling",
        kind="batching",
        changes="requests with a priority overtake others",
        risk="none",
        args={"scheduling_policy": "priority"},
    ),
    Entry(
        name="prefix-caching",
        kind="cache",
        changes="common beginnings of prompts are computed once",
        risk="rounding",
        args={"enable_prefix_caching": True},
    ),
    Entry(
        name="block-size",
        kind="cache",
        changes="tokens of a KV block: less waste or less bookkeeping",
        risk="none",
        args={"block_size": 64},
    ),
    Entry(
        name="kv-fp8",
        kind="cache",
        changes="KV cache in 8-bit floating point (e4m3): half the bytes a token",
        risk="approximation",
        args={"kv_cache_dtype": "fp8"},
    ),
    Entry(
        name="kv-fp8-e5m2",
        kind="cache",
        changes="the same with more range and less precision",
        risk="approximation",
        args={"kv_cache_dtype": "fp8_e5m2"},
    ),
    Entry(
        name="kv-int8",
        kind="cache",
        changes="KV cache in INT8 with a scale a token and head",
        risk="damage",
        args={"kv_cache_dtype": "int8_per_token_head"},
    ),
    Entry(
        name="bfloat16",
        kind="precision",
        changes="half the bytes of float32, matrix units of newer processors",
        risk="rounding",
        args={"dtype": "bfloat16"},
    ),
    Entry(
        name="float16",
        kind="precision",
        changes="half the bytes, less range: overflows show as garbage",
        risk="approximation",
        args={"dtype": "float16"},
    ),
    Entry(
        name="int8-w8a8",
        kind="quantization",
        changes="INT8 weights by channel, activations by token, made by Steelyard",
        risk="approximation",
        weights={"method": "int8_w8a8"},
    ),
    Entry(
        name="fp8-weights",
        kind="quantization",
        changes="weights rounded to 8-bit floating point while loading",
        risk="approximation",
        args={"quantization": "fp8"},
    ),
    Entry(
        name="int8-weights",
        kind="quantization",
        changes="weights rounded to INT8 by channel while loading",
        risk="approximation",
        args={"quantization": "int8_per_channel_weight_only"},
    ),
    Entry(
        name="int4-checkpoint",
        kind="quantization",
        changes="4-bit weights in groups (GPTQ, AWQ, compressed-tensors)",
        risk="approximation",
        needs="a checkpoint that was quantized so, in a study of its own",
    ),
    Entry(
        name="ngram-speculation",
        kind="speculation",
        changes="guesses tokens from the prompt, verifies them in one step",
        risk="rounding",
        args={
            "speculative_config": {
                "method": "ngram",
                "num_speculative_tokens": 4,
                "prompt_lookup_max": 4,
                "prompt_lookup_min": 2,
            }
        },
    ),
    Entry(
        name="suffix-speculation",
        kind="speculation",
        changes="guesses tokens from a tree of earlier answers",
        risk="rounding",
        args={"speculative_config": {"method": "suffix", "num_speculative_tokens": 4}},
    ),
    Entry(
        name="draft-speculation",
        kind="speculation",
        changes="a small model guesses, the large one verifies",
        risk="rounding",
        needs="a draft model with the same tokenizer, as speculative_config.model",
    ),
    Entry(
        name="compile",
        kind="compilation",
        changes="torch.compile of the model; minutes once, faster steps after",
        risk="rounding",
        args={"enforce_eager": False},
    ),
    Entry(
        name="full-graphs",
        kind="compilation",
        changes="whole steps replayed as CUDA graphs",
        risk="rounding",
        args={"enforce_eager": False, "compilation_config": {"cudagraph_mode": "FULL"}},
        devices=("cuda",),
    ),
    Entry(
        name="tensor-parallel",
        kind="parallelism",
        changes="each matrix is divided among two devices",
        risk="rounding",
        args={"tensor_parallel_size": 2},
    ),
    Entry(
        name="pipeline-parallel",
        kind="parallelism",
        changes="layers are divided among two devices",
        risk="rounding",
        args={"pipeline_parallel_size": 2},
    ),
    Entry(
        name="data-parallel",
        kind="parallelism",
        changes="two engines behind one door",
        risk="none",
        args={"data_parallel_size": 2},
    ),
    Entry(
        name="expert-parallel",
        kind="parallelism",
        changes="experts of a mixture are divided among devices",
        risk="rounding",
        args={"tensor_parallel_size": 2, "enable_expert_parallel": True},
    ),
    Entry(
        name="flash-attention",
        kind="attention",
        changes="FlashAttention kernels",
        risk="rounding",
        args={"attention_backend": "FLASH_ATTN"},
    ),
    Entry(
        name="flashinfer",
        kind="attention",
        changes="FlashInfer kernels",
        risk="rounding",
        args={"attention_backend": "FLASHINFER"},
    ),
    Entry(
        name="triton-attention",
        kind="attention",
        changes="attention kernels written in Triton",
        risk="rounding",
        args={"attention_backend": "TRITON_ATTN"},
    ),
    Entry(
        name="omp-threads",
        kind="engine",
        changes="threads of one engine's matrix products",
        risk="rounding",
        env={"OMP_NUM_THREADS": "2"},
        devices=("cpu",),
    ),
    Entry(
        name="omp-binding",
        kind="engine",
        changes="which cores these threads may use",
        risk="none",
        env={"VLLM_CPU_OMP_THREADS_BIND": "nobind"},
        devices=("cpu",),
    ),
    Entry(
        name="tcmalloc",
        kind="engine",
        changes="another memory allocator for small objects",
        risk="none",
        env={"LD_PRELOAD": "libtcmalloc_minimal.so.4"},
        devices=("cpu",),
        needs="the library on the machine",
    ),
    Entry(
        name="transformers",
        kind="engine",
        changes="Hugging Face generate: the legacy reference, static batches",
        risk="rounding",
        engine="transformers",
    ),
    Entry(
        name="attached-engine",
        kind="engine",
        changes="SGLang, TensorRT-LLM, llama.cpp or any OpenAI-compatible server",
        risk="rounding",
        engine="attach",
        needs="the server: engine: attach and its url",
    ),
)
