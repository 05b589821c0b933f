"""Two starts of one deployment agree; anything that changes what is computed does not."""

import copy
import dataclasses

import pytest

from steelyard.engines.base import Deployment
from steelyard.engines.identity import VLLM_FIELDS, deployment_digest, reduce_vllm

DEPLOYMENT = Deployment(
    arm="baseline", engine="vllm", model_name="m", weights="/w", tokenizer="/w", chat_template=None,
    args={"max_num_seqs": 4}, env={}, url=None, device="cpu", weights_digest="w", tokenizer_digest="t",
    template_digest=None,
)  # fmt: skip

CONFIG = {
    "model_config": {"dtype": "torch.bfloat16", "model": "/some/where", "max_model_len": 1024, "quantization": None},
    "cache_config": {"block_size": 128, "cache_dtype": "auto", "num_gpu_blocks": 5461, "kv_cache_size_tokens": 699008},
    "scheduler_config": {"max_num_seqs": 4, "max_num_batched_tokens": 2048},
    "parallel_config": {"tensor_parallel_size": 1, "master_port": 29501, "data_parallel_rpc_port": 29550},
    "compilation_config": {"mode": 0, "cache_dir": "/tmp/x", "compilation_time": 1.5, "static_forward_context": {}},
    "speculative_config": None,
    "instance_id": "1795289242512202525",
    "optimization_level": 2,
}


def of(config=CONFIG, version="0.32.0", **changes):
    return deployment_digest(dataclasses.replace(DEPLOYMENT, **changes), version=version, resolved=reduce_vllm(config))


def test_what_a_start_brings_along_stays_out():
    other = copy.deepcopy(CONFIG)
    other["instance_id"] = "2"
    other["model_config"]["model"] = "/else/where"
    other["cache_config"].update(num_gpu_blocks=17, kv_cache_size_tokens=2176)
    other["parallel_config"].update(master_port=1, data_parallel_rpc_port=2)
    other["compilation_config"].update(cache_dir="/tmp/y", compilation_time=9.0, static_forward_context={"a": 1})
    assert of(other) == of()
    assert of(arm="identity") == of(), "the identity control is the baseline"
    assert of(weights="/elsewhere") == of(), "content counts, not the folder"


@pytest.mark.parametrize(
    "change",
    [
        {"args": {"max_num_seqs": 64}}, {"env": {"OMP_NUM_THREADS": "1"}}, {"weights_digest": "v"},
        {"tokenizer_digest": "u"}, {"template_digest": "x"}, {"engine": "transformers"}, {"version": "0.33.0"},
    ],
)  # fmt: skip
def test_what_is_asked_counts(change):
    assert of(**change) != of()


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("model_config", "dtype", "torch.float32"), ("cache_config", "cache_dtype", "fp8"),
        ("cache_config", "block_size", 32), ("scheduler_config", "max_num_batched_tokens", 256),
        ("compilation_config", "mode", 3),
    ],
)  # fmt: skip
def test_what_is_resolved_counts(section, name, value):
    other = copy.deepcopy(CONFIG)
    other[section][name] = value
    assert of(other) != of()


def test_speculation_counts():
    other = {**CONFIG, "speculative_config": {"method": "ngram", "num_speculative_tokens": 4, "model_config": {}}}
    assert reduce_vllm(other)["speculative_config"] == {"method": "ngram", "num_speculative_tokens": 4}
    assert of(other) != of()


def test_every_section_is_present_and_unknown_ones_are_not():
    reduced = reduce_vllm(CONFIG)
    assert set(VLLM_FIELDS) | {"optimization_level"} == set(reduced)
    assert reduced["lora_config"] is None
