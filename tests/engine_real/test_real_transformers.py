"""The legacy engine against vLLM on the same weights: the same protocol and, in float32, the same answers."""

import dataclasses
import json

import pytest

from steelyard.engines import serve
from steelyard.engines.http import ask
from steelyard.engines.probe import check_alive, reset_prefix_cache, scrape
from steelyard.errors import BadArgument

pytestmark = pytest.mark.engine

PROMPT = "The capital of"


@pytest.fixture(scope="module")
def legacy(deploy, state):
    args = {"dtype": "float32", "max_batch_size": 4, "max_model_len": 256}
    arm = dataclasses.replace(deploy("legacy", engine="transformers"), args=args)
    with serve(arm, run_log_dir=state, start_timeout_s=120) as engine:
        yield engine


@pytest.fixture(scope="module")
def exact(deploy, state):
    with serve(deploy("exact", {"dtype": "float32"}), run_log_dir=state, start_timeout_s=120) as engine:
        yield engine


def complete(engine, route="completions", **payload):
    payload = {"model": "reference", "temperature": 0, **payload}
    return ask(f"{engine.base_url}/v1/{route}", payload=payload, timeout_s=60)


def stream(engine, **payload):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    lines = complete(engine, **payload, **options).body.decode().splitlines()
    assert lines[-2 if not lines[-1] else -1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def test_it_says_what_it_is(legacy):
    assert legacy.resolved["dtype"] == "float32"
    assert legacy.resolved["max_batch_size"] == 4
    check_alive(legacy)
    assert reset_prefix_cache(legacy) is False, "it has no prefix cache"


def test_greedy_answers_agree_with_vllm(legacy, exact):
    for prompt in (PROMPT, "Hello", list(range(20, 40))):
        ours, theirs = (complete(each, prompt=prompt, max_tokens=8, ignore_eos=True).json() for each in (legacy, exact))
        assert ours["choices"][0]["text"] == theirs["choices"][0]["text"]
        assert {key: ours["usage"][key] for key in ("prompt_tokens", "completion_tokens")} == {
            "prompt_tokens": theirs["usage"]["prompt_tokens"],
            "completion_tokens": 8,
        }


def test_a_batch_of_unequal_prompts_answers_as_alone(legacy):
    prompts = [PROMPT, "Hello there, this is a longer one", "A"]
    alone = [complete(legacy, prompt=each, max_tokens=6).json()["choices"][0]["text"] for each in prompts]
    together = complete(legacy, prompt=prompts, max_tokens=6).json()["choices"]
    assert [each["text"] for each in together] == alone


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_log_likelihoods_agree_with_vllm(legacy, exact, max_tokens):
    asked = {"prompt": [PROMPT, "Hello there"], "max_tokens": max_tokens, "echo": True, "logprobs": 1}
    ours, theirs = (complete(each, **asked).json()["choices"] for each in (legacy, exact))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["logprobs"]["tokens"] == other["logprobs"]["tokens"]
        assert mine["logprobs"]["text_offset"] == other["logprobs"]["text_offset"]
        assert mine["logprobs"]["token_logprobs"][0] is None
        assert mine["logprobs"]["token_logprobs"][1:] == pytest.approx(
            other["logprobs"]["token_logprobs"][1:], abs=1e-3
        )
        for left, right in zip(
            mine["logprobs"]["top_logprobs"][1:], other["logprobs"]["top_logprobs"][1:], strict=True
        ):
            assert max(left, key=left.get) == max(right, key=right.get)


def test_streams_have_a_chunk_a_token_and_usage(legacy):
    chunks = stream(legacy, prompt=PROMPT, max_tokens=7, ignore_eos=True)
    assert len(chunks) == 8
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 6 + ["length"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 7
    whole = complete(legacy, prompt=PROMPT, max_tokens=7, ignore_eos=True).json()["choices"][0]["text"]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == whole


def test_chats_use_the_template(legacy, exact):
    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6}
    ours, theirs = (complete(each, "chat/completions", **asked).json() for each in (legacy, exact))
    assert ours["choices"][0]["message"]["content"] == theirs["choices"][0]["message"]["content"]
    assert ours["usage"]["prompt_tokens"] == theirs["usage"]["prompt_tokens"]


def test_stop_strings_end_the_text_before_them(legacy):
    text = complete(legacy, prompt=PROMPT, max_tokens=12, ignore_eos=True).json()["choices"][0]["text"]
    stop = text[4:6]
    cut = complete(legacy, prompt=PROMPT, max_tokens=12, ignore_eos=True, stop=[stop]).json()["choices"][0]
    assert cut["text"] == text[: text.index(stop)]
    assert cut["finish_reason"] == "stop"
    streamed = stream(legacy, prompt=PROMPT, max_tokens=12, ignore_eos=True, stop=[stop])
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed[:-1]) == cut["text"]


def test_what_it_cannot_do_is_refused(legacy):
    assert complete(legacy, prompt=PROMPT, max_tokens=10_000).status == 400
    assert complete(legacy, prompt=PROMPT, logprobs=3).status == 400
    assert complete(legacy, prompt="").status == 400
    assert complete(legacy, prompt=PROMPT, model="other").status == 404


def test_tokens_are_counted(legacy):
    before = scrape(legacy)
    usage = complete(legacy, prompt=PROMPT, max_tokens=5, ignore_eos=True).json()["usage"]
    after = scrape(legacy)
    for name, key in (("prompt_tokens_total", "prompt_tokens"), ("generation_tokens_total", "completion_tokens")):
        assert after[name][0] == "counter"
        assert after[name][1] - before[name][1] == usage[key]


def test_bad_arguments_are_named(deploy, state):
    with pytest.raises(BadArgument, match="max_num_seqs"), serve(deploy(engine="transformers"), run_log_dir=state):
        pass
