"""Operations and bytes counted from configurations, held against known models and our own weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from steelyard.profiling.shape import Matrix, NotCounted, Shape, shape_of, stored_parameters

WEIGHTS = Path(__file__).parents[2] / "reference_model" / "weights"
LLAMA_8B = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip
MIXTRAL = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2,
    "hidden_act": "silu",
}  # fmt: skip


@pytest.mark.parametrize(("config", "billions"), [(LLAMA_8B, 8.030), (MIXTRAL, 46.70)])
def test_published_sizes_follow_from_the_configuration(config: dict[str, Any], billions: float) -> None:
    assert Shape.of(config).parameters / 1e9 == pytest.approx(billions, rel=1e-3)


def test_our_own_weights_are_counted_to_the_last() -> None:
    assert shape_of(WEIGHTS).parameters == stored_parameters(WEIGHTS)


def test_operations_of_a_token() -> None:
    shape = Shape.of(LLAMA_8B)
    linear = shape.parameters - 2 * shape.head.parameters - shape.norms
    assert shape.operations(10, 1, 0) == 2 * 10 * linear + 2 * shape.head.parameters
    # Scores and values: 4 for each pair, head and dimension, in every layer.
    assert shape.operations(0, 0, 7) == 4 * 7 * 32 * 32 * 128
    # Llama 8B in bfloat16 reads 15 GB a step, and keeps 128 KiB a token.
    assert shape.weight_bytes(1, 2) / 1e9 == pytest.approx(15.0, rel=0.01)
    assert shape.kv_bytes(1, 2) == 131072


def test_a_batch_touches_more_experts_than_a_token() -> None:
    shape = Shape.of(MIXTRAL)
    one, many = shape.weight_bytes(1, 1), shape.weight_bytes(1000, 1)
    assert one / 1e9 == pytest.approx(12.7, rel=0.02)
    assert many / 1e9 == pytest.approx(46.5, rel=0.02)
    assert Matrix(name="e", inner=1, outer=1, copies=8, share=0.25).touched(2) == pytest.approx(1 - 0.75**2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kv_lora_rank": 512}, "latent attention"),
        ({"mamba_d_state": 16}, "state-space"),
        ({"hidden_size": None}, "config.json says nothing"),
        ({"num_experts": 64, "num_experts_per_tok": 4, "first_k_dense_replace": 1}, "other layers beside"),
        ({"num_experts": 64}, "other layers beside"),
    ],
)
def test_what_is_not_counted_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(NotCounted, match=says):
        Shape.of({**LLAMA_8B, **change})


def test_weights_that_contradict_their_configuration_are_not_counted(tmp_path: Path) -> None:
    for path in WEIGHTS.iterdir():
        shutil.copy(path, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(NotCounted, match="where config"):
        shape_of(tmp_path)
    (tmp_path / "config.json").write_text("no json")
    with pytest.raises(NotCounted, match="cannot be read"):
        shape_of(tmp_path)
