"""The shape of a decoder-only transformer, from its configuration: what a step computes and what it has to read.

Operations: two for each weight and token of every matrix, and four for each query-key pair, head and dimension (scores
and their sum over values); norms and activations are left out, as in the PaLM paper (Chowdhery et al. 2022, appendix
B). Bytes: every weight that the step uses once, and the keys and values it looks at and writes (Pope et al. 2022,
Efficiently Scaling Transformer Inference); activations stay in caches and are left out.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "fp8": 1.0, "int8": 1.0}
# Architectures whose layers are not what is counted here; each names what its configuration says of it.
_OTHER = {
    "kv_lora_rank": "latent attention", "ssm_cfg": "state-space layers", "mamba_d_state": "state-space layers",
    "linear_num_value_heads": "linear attention", "is_encoder_decoder": "an encoder",
    "state_size": "state-space layers",
}  # fmt: skip
AGREE = 0.02


def dtype_name(value: object) -> str:
    """A data type as torch names it, from what an engine or a study calls it: `torch.float16` or `half`, `float16`."""
    text = str(value).removeprefix("torch.")
    return {"half": "float16", "float": "float32"}.get(text, text)


class NotCounted(Exception):
    """Why a model's operations and bytes cannot be counted, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A weight matrix of each of `copies` places: `inner` inputs, `outer` outputs. `share` of its copies is used by one
    token (less than 1 for experts).
    """

    name: str
    inner: int
    outer: int
    copies: int = 1
    share: float = 1.0

    @property
    def parameters(self) -> int:
        """Weights in all copies."""
        return self.inner * self.outer * self.copies

    def touched(self, tokens: float) -> float:
        """Expected share of the copies that `tokens` tokens use, if each chooses independently."""
        return 1.0 if self.share >= 1 else -math.expm1(tokens * math.log1p(-self.share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Matrices of all layers, the output projection, and attention. `tied` says that the latter is the embedding."""

    matrices: tuple[Matrix, ...]
    head: Matrix
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    norms: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """From a Hugging Face `config.json`. Raises NotCounted for an architecture that is not a plain decoder."""
        inner = config.get("text_config")
        config = {**config, **inner} if isinstance(inner, Mapping) else config
        for key, what in _OTHER.items():
            if config.get(key):
                raise NotCounted(f"the model has {what}, which is not counted")
        try:
            hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
            heads, vocabulary = int(config["num_attention_heads"]), int(config["vocab_size"])
            wide = int(config["intermediate_size"])
            kv_heads = int(config.get("num_key_value_heads") or heads)
            head_dim = int(config.get("head_dim") or hidden // heads)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise NotCounted(f"config.json says nothing of {error}") from error
        if config.get("sliding_window") and config.get("use_sliding_window", True):
            raise NotCounted("the model looks at a window of its sequence, which is not counted")
        gated = str(config.get("hidden_act", "silu")) in ("silu", "swish", "gelu_pytorch_tanh", "swiglu")
        attention = (
            Matrix(name="qkv", inner=hidden, outer=(heads + 2 * kv_heads) * head_dim, copies=layers),
            Matrix(name="attention out", inner=heads * head_dim, outer=hidden, copies=layers),
        )
        return cls(
            matrices=(*attention, *_feed_forward(config, hidden, wide, layers, gated)),
            head=Matrix(name="logits", inner=hidden, outer=vocabulary),
            layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim,
            tied=bool(config.get("tie_word_embeddings", False)), norms=(2 * layers + 1) * hidden,
        )  # fmt: skip

    @property
    def parameters(self) -> int:
        """Weights in all, embedding and norms included, biases not."""
        return (
            sum(each.parameters for each in self.matrices) + self.head.parameters * (1 if self.tied else 2) + self.norms
        )

    def operations(self, tokens: float, sampled: float, pairs: float) -> float:
        """Floating-point operations of a step that computes `tokens`, samples after `sampled` of them, and pairs
        queries with keys `pairs` times in a head.
        """
        linear = sum(each.parameters * each.share for each in self.matrices)
        attention = 4.0 * self.layers * self.heads * self.head_dim * pairs
        return 2.0 * tokens * linear + 2.0 * sampled * self.head.parameters + attention

    def weight_bytes(self, tokens: float, each_bytes: float) -> float:
        """Bytes of weights that a step over `tokens` reads at least, at `each_bytes` a weight."""
        linear = sum(each.parameters * each.touched(tokens) for each in self.matrices)
        return (linear + self.head.parameters) * each_bytes

    def kv_bytes(self, entries: float, each_bytes: float) -> float:
        """Bytes of `entries` tokens in the KV cache, keys and values of all layers, at `each_bytes` a number."""
        return 2.0 * self.layers * self.kv_heads * self.head_dim * entries * each_bytes


def _feed_forward(config: Mapping[str, Any], hidden: int, wide: int, layers: int, gated: bool) -> tuple[Matrix, ...]:
    up = 2 if gated else 1
    experts = config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts")
    if not experts:
        return (
            Matrix(name="feed-forward in", inner=hidden, outer=up * wide, copies=layers),
            Matrix(name="feed-forward out", inner=wide, outer=hidden, copies=layers),
        )
    chosen = config.get("num_experts_per_tok") or config.get("top_k")
    if not chosen or config.get("first_k_dense_replace") or config.get("shared_expert_intermediate_size"):
        raise NotCounted("its mixture of experts has other layers beside, which are not counted")
    width, count = int(config.get("moe_intermediate_size") or wide), int(experts)
    share = int(chosen) / count
    return (
        Matrix(name="router", inner=hidden, outer=count, copies=layers),
        Matrix(name="experts in", inner=hidden, outer=up * width, copies=layers * count, share=share),
        Matrix(name="experts out", inner=width, outer=hidden, copies=layers * count, share=share),
    )


def shape_of(folder: Path) -> Shape:
    """The shape of the model in a folder, counted from its configuration and held against its weights.

    Raises NotCounted if there is no configuration, if it is no plain decoder, or if the files hold another number of
    weights than follows from it (more than 2 % apart): a count that cannot be wrong would be no count.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotCounted(f"{folder / 'config.json'} cannot be read: {error}") from error
    shape = Shape.of(config)
    stored = None if config.get("quantization_config") else stored_parameters(folder)
    if stored and not shape.parameters * (1 - AGREE) <= stored <= shape.parameters * (1 + AGREE):
        raise NotCounted(f"its files hold {stored:,} weights where config.json makes {shape.parameters:,}")
    return shape


def stored_parameters(folder: Path) -> int | None:
    """Numbers in the folder's safetensors, from their headers; None without such files."""
    total = 0
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        total += sum(math.prod(each["shape"]) for name, each in header.items() if name != "__metadata__")
    return total if files else None
