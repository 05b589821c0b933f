from __future__ import annotations

import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import InputError
from steelyard.load.workloads import arrivals, load_tokenizer, plan_requests, plan_warmup
from steelyard.study import Load, LoadPoint, Workload

FAMILIES = ("byte_level_bpe", "wordpiece", "unigram", "llama", "bytes")


def point(kind: str = "chat", requests: int = 12, prompt_tokens: int = 40, rate: float | None = None, **more: Any):
    load = Load(rate=rate) if rate else Load(concurrency=4)
    workload = Workload(
        name="work", kind=kind, requests=requests, prompt_tokens=prompt_tokens, output_tokens=8, load=(load,), **more
    )
    return LoadPoint(workload=workload, load=load)


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text)["input_ids"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens", [8, 33, 257])
@pytest.mark.parametrize("kind", ["chat", "long_prompt", "repetitive"])
def test_length_is_exact_for_every_kind_of_tokenizer(tokenizers, family, tokens, kind):
    planned = plan_requests(point(kind, prompt_tokens=tokens), tokenizers[family], seed=3, block=0)
    assert [len(ids(tokenizers[family], each.prompt)) for each in planned] == [tokens] * 12
    assert {each.prompt_tokens for each in planned} == {tokens}
    assert len({each.prompt_hash for each in planned}) == 12


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_prefix_is_shared_to_the_token(tokenizers, family):
    tokenizer = tokenizers[family]
    where = point("shared_prefix", prompt_tokens=64, shared_tokens=37, prefixes=3)
    prompts = [ids(tokenizer, each.prompt) for each in plan_requests(where, tokenizer, seed=1, block=0)]
    assert {len(prompt) for prompt in prompts} == {64}
    groups = [prompts[start::3] for start in range(3)]
    heads = [{tuple(prompt[:37]) for prompt in group} for group in groups]
    assert [len(each) for each in heads] == [1, 1, 1]
    assert len(set.union(*heads)) == 3
    if family != "bytes":
        # Where words are single tokens the very next token differs, so no more is shared than was declared.
        assert all(len({prompt[37] for prompt in group}) == len(group) for group in groups)
    assert len({tuple(prompt) for prompt in prompts}) == len(prompts)


def test_the_same_in_every_arm_and_different_in_every_block(tokenizers):
    tokenizer = tokenizers["byte_level_bpe"]
    plans = [plan_requests(point(rate=5.0), tokenizer, seed=7, block=block) for block in (0, 0, 1)]
    assert plans[0] == plans[1]
    assert not {each.prompt for each in plans[0]} & {each.prompt for each in plans[2]}
    assert [each.scheduled_s for each in plans[0]] != [each.scheduled_s for each in plans[2]]
    warm = plan_warmup(point(rate=5.0), tokenizer, seed=7, block=0, requests=3)
    assert len(warm) == 3
    firsts = {tuple(ids(tokenizer, each.prompt)[:16]) for each in plans[0]}
    assert not firsts & {tuple(ids(tokenizer, each.prompt)[:16]) for each in warm}


def test_unique_prompts_share_no_cacheable_prefix(tokenizers):
    tokenizer = tokenizers["byte_level_bpe"]
    planned = plan_requests(point(requests=64, prompt_tokens=128), tokenizer, seed=7, block=0)
    heads = [tuple(ids(tokenizer, each.prompt)[:16]) for each in planned]
    assert len(set(heads)) == 64


def test_repetitive_prompts_repeat_and_others_do_not(tokenizers):
    tokenizer = tokenizers["unigram"]

    def repeated(kind: str) -> float:
        prompt = ids(tokenizer, plan_requests(point(kind, prompt_tokens=200), tokenizer, seed=1, block=0)[0].prompt)
        grams = list(zip(*(prompt[shift:] for shift in range(4)), strict=False))
        return 1 - len(set(grams)) / len(grams)

    assert repeated("repetitive") > 0.7
    assert repeated("chat") < 0.02


def test_a_plan_does_not_depend_on_the_process(tokenizers, tokenizer_folders):
    code = (
        "import json, sys\n"
        "from steelyard.load.workloads import load_tokenizer, plan_requests\n"
        "from steelyard.study import LoadPoint\n"
        "point = LoadPoint.model_validate_json(sys.argv[2])\n"
        "planned = plan_requests(point, load_tokenizer(sys.argv[1]), seed=11, block=2)\n"
        "print(json.dumps([[each.prompt_hash, each.scheduled_s] for each in planned]))\n"
    )
    where, folder = point(rate=3.0), str(tokenizer_folders["llama"])
    command = [sys.executable, "-W", "ignore", "-c", code, folder, where.model_dump_json()]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=root, env={"PYTHONHASHSEED": "99", "PATH": ""}
    )
    here = plan_requests(where, tokenizers["llama"], seed=11, block=2)
    assert json.loads(done.stdout) == [[each.prompt_hash, each.scheduled_s] for each in here]


def test_arrivals_are_poisson():
    times = arrivals(4.0, 20_000, random.Random(5))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert times[0] == 0.0
    assert statistics.mean(gaps) == pytest.approx(0.25, rel=0.03)
    # Exponential gaps have a standard deviation equal to their mean, and e^-1 of them are longer than it.
    assert statistics.stdev(gaps) == pytest.approx(0.25, rel=0.05)
    assert sum(gap > 0.25 for gap in gaps) / len(gaps) == pytest.approx(0.3679, abs=0.02)


def test_closed_loop_is_due_at_once(tokenizers):
    assert {each.scheduled_s for each in plan_requests(point(), tokenizers["llama"], seed=0, block=0)} == {0.0}


def test_planning_is_fast(tokenizers):
    tokenizer = tokenizers["byte_level_bpe"]
    plan_requests(point(requests=2), tokenizer, seed=0, block=0)
    started = time.process_time()
    plan_requests(point("long_prompt", requests=64, prompt_tokens=1024), tokenizer, seed=0, block=0)
    assert time.process_time() - started < 1.0


def test_what_cannot_be_written_is_refused_by_name(tokenizers):
    with pytest.raises(InputError, match=r"workload work: no 3000 different prompts of exactly 8"):
        plan_requests(point(requests=3000, prompt_tokens=8), _Narrow(tokenizers["bytes"]), seed=0, block=0)


class _Narrow:
    """A tokenizer that counts every text as nine tokens: eight can never be reached."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.all_special_tokens = real.all_special_tokens
        self.unk_token_id = real.unk_token_id

    def get_vocab(self) -> dict[str, int]:
        return self._real.get_vocab()

    def __call__(self, texts: list[str], **options: Any) -> dict[str, Any]:
        return {"input_ids": [list(range(9)) for _ in texts]}


def test_no_tokenizer_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no tokenizer can be loaded"):
        load_tokenizer(str(tmp_path))


def test_output_lengths_spread_evenly_and_every_trial_asks_for_the_same_work(tokenizers):
    where = point(requests=13, output_spread=0.5)
    lengths = [
        [each.output_tokens for each in plan_requests(where, tokenizers["bytes"], seed=1, block=block)]
        for block in range(3)
    ]
    assert sorted(lengths[0]) == sorted(lengths[1]) == [4, 5, 5, 6, 7, 7, 8, 9, 9, 10, 11, 11, 12]
    assert lengths[0] != lengths[1]
    assert sum(lengths[0]) == 13 * 8
    assert {each.output_tokens for each in plan_requests(point(), tokenizers["bytes"], seed=1, block=0)} == {8}
