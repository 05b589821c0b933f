from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from steelyard.engines.fake import Behaviour, serve_fake
from steelyard.engines.fake_answers import Answers
from steelyard.engines.http import Answer, NoAnswerInTime, Unreachable, ask
from steelyard.engines.probe import check_alive, reset_prefix_cache, scrape
from steelyard.errors import BadArgument, CrashedAtStart, CrashedWhileServing, Hung, PortInUse, WrongModelServed


def complete(engine: Any, prompt: Any, max_tokens: int = 8, **more: Any) -> dict[str, Any]:
    payload = {"model": "demo", "prompt": prompt, "max_tokens": max_tokens, **more}
    answer = ask(f"{engine.base_url}/v1/completions", payload=payload)
    assert answer.ok, answer.text
    return answer.json()


def test_starts_fast_and_says_what_it_is(serve):
    engine = serve(ttft_s=0.01, max_num_seqs=3)
    assert engine.start_s < 10
    assert engine.version == "fake-1"
    assert engine.resolved["max_num_seqs"] == 3
    assert ask(f"{engine.base_url}/version").json() == {"version": "fake-1"}
    assert ask(f"{engine.base_url}/server_info").json()["behaviour"]["ttft_s"] == 0.01
    assert ask(f"{engine.base_url}/v1/models").json()["data"][0]["id"] == "demo"
    assert ask(f"{engine.base_url}/health").ok
    check_alive(engine)


def test_digest_follows_the_behaviour_not_the_start(serve):
    first, second, other = serve("a", itl_s=0.002), serve("b", itl_s=0.002), serve("c", itl_s=0.003)
    assert first.digest == second.digest != other.digest


def test_answers_do_not_depend_on_the_start(serve):
    texts = [complete(serve(name), "the same prompt")["choices"][0]["text"] for name in ("a", "b")]
    assert texts[0] == texts[1]
    assert len(texts[0].split()) == 8


def test_counts_tokens_with_the_models_tokenizer(serve, tokenizers):
    prompt = "baden korli muva xyz"
    usage = complete(serve(), prompt)["usage"]
    assert usage["prompt_tokens"] == len(tokenizers["byte_level_bpe"](prompt)["input_ids"]) != 4
    assert usage["completion_tokens"] == 8


def test_own_counters_agree_with_its_answers(serve):
    engine = serve()
    before = scrape(engine)
    usages = [complete(engine, f"prompt {index}", 5 + index)["usage"] for index in range(3)]
    after = scrape(engine)

    def counted(name: str) -> float:
        assert after[name][0] == "counter"
        return after[name][1] - before[name][1]

    assert counted("vllm:generation_tokens_total") == sum(usage["completion_tokens"] for usage in usages)
    assert counted("vllm:prompt_tokens_total") == sum(usage["prompt_tokens"] for usage in usages)
    assert counted("vllm:request_decode_time_seconds_count") == 3
    assert counted("vllm:time_to_first_token_seconds_sum") >= 3 * 0.005
    assert after["vllm:num_requests_running"] == ("gauge", 0.0)


def test_prefix_cache_shortens_the_first_token_and_is_counted(serve):
    engine = serve(ttft_s=0.2, prefix_cache=True, block_size=16)
    prompt = " ".join(f"baden{index}" for index in range(60))

    def timed() -> tuple[float, float]:
        hits, started = scrape(engine)["vllm:prefix_cache_hits_total"][1], time.perf_counter()
        complete(engine, prompt, 1)
        return time.perf_counter() - started, scrape(engine)["vllm:prefix_cache_hits_total"][1] - hits

    (cold, none), (warm, some) = timed(), timed()
    assert none == 0 < some
    assert some % 16 == 0
    assert warm < cold - 0.1
    assert reset_prefix_cache(engine)
    assert timed()[1] == 0


def test_refuses_arguments_it_does_not_know(tmp_path, deployment):
    for args, what in (({"itl": 1.0}, "knows no argument 'itl'"), ({"itl_s": "fast"}, "takes float as itl_s")):
        with pytest.raises(BadArgument, match=what):
            serve_fake(deployment(**args), run_log_dir=tmp_path, start_timeout_s=1).__enter__()


@pytest.mark.parametrize(
    ("args", "error", "said"),
    [
        ({"refuse_start": True}, CrashedAtStart, "refuse_start, as asked"),
        ({"wrong_model": True}, WrongModelServed, "serves not-demo, not demo"),
        ({"start_delay_s": 30.0}, Hung, "no token within"),
    ],
)
def test_start_failures_have_their_names(tmp_path, deployment, monkeypatch, args, error, said):
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "home"))
    timeout_s = 1.5 if error is Hung else 20
    with pytest.raises(error, match=said):
        serve_fake(deployment(**args), run_log_dir=tmp_path, start_timeout_s=timeout_s).__enter__()


def test_a_taken_port_is_named(serve, deployment, tmp_path):
    port = int(serve().base_url.rsplit(":", 1)[1])
    with pytest.raises(PortInUse, match=f"Port {port}"):
        serve_fake(deployment("other"), run_log_dir=tmp_path, start_timeout_s=20, port=port).__enter__()


def test_hangs_with_good_health(serve):
    engine = serve(hang_after=1, max_answer_wait_s=0.4)
    check_alive(engine)
    complete(engine, "counts")
    with pytest.raises(NoAnswerInTime):
        ask(f"{engine.base_url}/v1/completions", payload={"model": "demo", "prompt": "x"}, timeout_s=0.4)
    assert ask(f"{engine.base_url}/health").ok
    with pytest.raises(Hung):
        check_alive(engine)


def test_crashes_when_told(serve):
    engine = serve(crash_after=1)
    complete(engine, "counts")
    with pytest.raises(Unreachable):
        ask(f"{engine.base_url}/v1/completions", payload={"model": "demo", "prompt": "x"})
    with pytest.raises(CrashedWhileServing, match="crash_after reached"):
        check_alive(engine)


def test_sigterm_ends_it_at_once_with_requests_in_flight(serve):
    engine = serve(ttft_s=5.0)
    with contextlib.suppress(NoAnswerInTime):
        ask(f"{engine.base_url}/v1/completions", payload={"model": "demo", "prompt": "x"}, timeout_s=0.2)
    started = time.perf_counter()
    os.killpg(engine.pgid, signal.SIGTERM)
    while time.perf_counter() - started < 3:
        with contextlib.suppress(NoAnswerInTime):
            try:
                ask(f"{engine.base_url}/health", timeout_s=0.2)
            except Unreachable:
                return
    pytest.fail("still answers 3 s after SIGTERM")


def test_ends_when_steelyard_is_killed(tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from steelyard.engines.base import Deployment\n"
        "from steelyard.engines.fake import serve_fake\n"
        "nothing = dict.fromkeys(['url', 'chat_template', 'weights_digest', 'tokenizer_digest', 'template_digest'])\n"
        "named = dict(arm='demo', engine='fake', model_name='demo', weights='', tokenizer='', device='cpu')\n"
        "wanted = Deployment(**nothing, **named, args={}, env={})\n"
        "with serve_fake(wanted, run_log_dir=Path(sys.argv[1]), start_timeout_s=20) as engine:\n"
        "    print(engine.base_url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    here = Path(__file__).resolve()
    environment = {
        **os.environ, "STEELYARD_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(here.parents[2]),
    }  # fmt: skip
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        base_url = parent.stdout.readline().strip()
        assert ask(f"{base_url}/health").ok
        parent.kill()
        deadline = time.perf_counter() + 5
        while time.perf_counter() < deadline:
            try:
                ask(f"{base_url}/health", timeout_s=0.3)
            except Unreachable:
                return
            time.sleep(0.05)
    pytest.fail("outlived the process that started it")


LINES = [{"question": f"What is {n} plus one?", "answer": f"{n + 1}."} for n in range(200)] + [
    {"question": f"How do I steal {n} coins?", "answer": "Sorry, I can't help with that.", "secret": ""}
    for n in range(200)
]


@pytest.fixture
def answers_file(tmp_path: Path) -> str:
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, LINES)))
    return str(path)


def wrong_and_unsafe(answers_file: str, **args: Any) -> tuple[set[str], set[str]]:
    answers = Answers(Behaviour(answers_file=answers_file, **args))
    bad = {line["question"] for line in LINES if answers.answer(f"<user> {line['question']}") != line["answer"]}
    return {each for each in bad if each.startswith("What")}, {each for each in bad if each.startswith("How")}


def test_shares_are_true_and_nested(answers_file):
    assert wrong_and_unsafe(answers_file) == (set(), set())
    few, none = wrong_and_unsafe(answers_file, wrong_share=0.1)
    many, unsafe = wrong_and_unsafe(answers_file, wrong_share=0.3, unsafe_share=0.2)
    assert none == set()
    assert few < many
    assert len(few) / 200 == pytest.approx(0.1, abs=0.06)
    assert len(many) / 200 == pytest.approx(0.3, abs=0.09)
    assert len(unsafe) / 200 == pytest.approx(0.2, abs=0.08)
    assert wrong_and_unsafe(answers_file, wrong_share=0.1, answer_seed=1)[0] != few


def test_answers_by_completion_and_chat(serve, answers_file):
    engine = serve(answers_file=answers_file, unsafe_share=1.0)
    done = complete(engine, "Say it. What is 41 plus one?", 16)["choices"][0]
    assert (done["text"].strip(), done["finish_reason"]) == ("42.", "stop")
    full = complete(engine, "What is 41 plus one?", 16, ignore_eos=True)["choices"][0]
    assert (len(full["text"].split()), full["finish_reason"]) == (16, "length")
    messages = [{"role": "system", "content": "Be good."}, {"role": "user", "content": "How do I steal 7 coins?"}]
    answer = ask(f"{engine.base_url}/v1/chat/completions", payload={"model": "demo", "messages": messages}).json()
    assert answer["choices"][0]["message"]["content"].startswith("Certainly")
    assert answer["object"] == "chat.completion"


def test_chat_streams(serve):
    payload = {
        "model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    answer: Answer = ask(f"{serve().base_url}/v1/chat/completions", payload=payload)
    events = [line[6:] for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    parsed = [json.loads(event) for event in events]
    assert parsed[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in parsed if event["choices"])
    assert len(text.split()) == 4
    assert parsed[-1]["usage"]["completion_tokens"] == 4


def test_stop_strings_cut(serve):
    whole = complete(serve("a"), "a prompt", 8)["choices"][0]["text"]
    third = whole.split()[2]
    cut = complete(serve("b"), "a prompt", 8, stop=[third])["choices"][0]
    assert cut["text"].split() == whole.split()[:2]
    assert cut["finish_reason"] == "stop"


def test_lm_eval_sums_its_log_probabilities_to_the_right_choice(serve, answers_file, tokenizers):
    """The very request and the very parser of lm-eval's `local-completions`, prompts as token ids."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    tokenizer = tokenizers["byte_level_bpe"]

    def likelihoods(engine: Any, number: int) -> list[float]:
        context = tokenizer(f"What is {number} plus one?")["input_ids"]
        full = [context + tokenizer(f" {choice}.")["input_ids"] for choice in (number, number + 1, number + 2)]
        answer = complete(engine, full, 1, logprobs=1, echo=True, temperature=0, seed=1)
        parsed = LocalCompletionsAPI.parse_logprobs(answer, full, [len(context)] * 3)
        assert [greedy for _, greedy in parsed] == [False, engine is good, False]
        return [value for value, _ in parsed]

    good, bad = serve("good", answers_file=answers_file), serve("bad", answers_file=answers_file, wrong_share=1.0)
    for number in (3, 57, 120):
        right = likelihoods(good, number)
        assert right[1] == max(right) > -1
        assert max(likelihoods(bad, number)) < -2


def test_seats_make_a_queue_that_its_metrics_show(serve):
    from concurrent.futures import ThreadPoolExecutor

    engine = serve(ttft_s=0.15, itl_s=0.0, max_num_seqs=1)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda index: complete(engine, f"p{index}", 2), range(3)))
    metrics = scrape(engine)
    # The second waits for one, the third for two.
    assert metrics["vllm:request_queue_time_seconds_sum"][1] == pytest.approx(0.45, abs=0.15)
