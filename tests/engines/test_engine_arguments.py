"""Arguments of engines that need no vLLM; vLLM's own are checked in tests/engine_real."""

import pytest

from steelyard.engines.arguments import check_arguments, check_many
from steelyard.engines.vllm_args import CPU_KV_BYTES, flags, with_defaults
from steelyard.errors import BadArgument, InputError


def test_flags_are_spelled_as_the_command_line_wants_them():
    made = flags({"max_num_seqs": 4, "enforce_eager": True, "enable_prefix_caching": False, "speculative_config": None})
    assert made == ["--max-num-seqs=4", "--enforce-eager", "--no-enable-prefix-caching"]
    assert flags({"speculative_config": {"method": "ngram", "a": 1}}) == [
        '--speculative-config={"a": 1, "method": "ngram"}'
    ]


def test_cpu_defaults_yield_to_the_study_and_exist_on_a_cpu_only():
    made = with_defaults({"max_num_seqs": 4}, {}, "cpu")
    assert made["kv_cache_memory_bytes"] == CPU_KV_BYTES
    assert made["enforce_eager"] is True
    asked = with_defaults({"enforce_eager": False, "kv_cache_memory_bytes": 7}, {}, "cpu")
    assert (asked["enforce_eager"], asked["kv_cache_memory_bytes"]) == (False, 7)
    assert "kv_cache_memory_bytes" not in with_defaults({}, {"VLLM_CPU_KVCACHE_SPACE": "2"}, "cpu")
    assert set(with_defaults({}, {}, "cuda")) == {"disable_uvicorn_access_log"}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"max_batchsize": 4}, "did you mean max_batch_size"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"max_batch_size": 0}, "whole number from 1"),
        ({"max_model_len": True}, "whole number from 1"),
    ],
)
def test_transformers_refuses(args, says):
    with pytest.raises(BadArgument, match=says):
        check_arguments("transformers", args, "cpu")


def test_several_arms_at_once():
    refused = check_many(
        [
            ("good", "transformers", {"dtype": "float32"}),
            ("bad", "transformers", {"dtyp": "float32"}),
            ("theirs", "attach", {}),
            ("theirs-bad", "attach", {"max_num_seqs": 4}),
            ("fake-good", "fake", {"ttft_s": 0.1}),
            ("fake-bad", "fake", {"ttft": 0.1}),
        ],
        "cpu",
    )
    assert set(refused) == {"bad", "theirs-bad", "fake-bad"}


def test_an_unknown_engine_is_the_users_mistake():
    with pytest.raises(InputError, match="no engine sglang"):
        check_many([("arm", "sglang", {})], "cpu")
