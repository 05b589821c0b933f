"""Faults between client and engine: each does its damage, and whatever it does not concern passes as it is."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from steelyard.engines import Deployment, Engine, serve
from steelyard.engines.failure import log_text
from steelyard.engines.http import NoAnswerInTime, Unreachable, ask
from steelyard.engines.identity import deployment_digest
from steelyard.engines.launcher import group_members, stat_fields
from steelyard.engines.probe import check_alive, freeze, reset_prefix_cache, scrape, thaw
from steelyard.engines.process import close_launchers, engine_env
from steelyard.engines.residency import Residents
from steelyard.engines.stale import reap_stale
from steelyard.errors import BadArgument, CrashedWhileServing, Hung, InputError, PortInUse
from steelyard.load.client import drive
from steelyard.load.workloads import PlannedRequest
from steelyard.study import Load
from steelyard.study_faults import Faults

Serve = Callable[..., Engine]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "home"))
    yield
    close_launchers(idle_only=False)


def deployed(faults: dict[str, Any] | None = None, arm: str = "arm", wait_s: float = 10.0, **args: Any) -> Deployment:
    return Deployment(
        arm=arm, engine="fake", model_name="demo", weights="", tokenizer="", chat_template=None, args=args, env={},
        url=None, device="cpu", weights_digest="declared", tokenizer_digest=None, template_digest=None,
        max_answer_wait_s=wait_s, faults=Faults(**faults) if faults else None,
    )  # fmt: skip


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Serve]:
    """Serves fakes with faults; all end with the test."""
    with ExitStack() as engines:

        def start(**changes: Any) -> Engine:
            return engines.enter_context(serve(deployed(**changes), run_log_dir=tmp_path / "logs", start_timeout_s=20))

        yield start


def post(engine: Engine, route: str, timeout_s: float = 10.0, **payload: Any) -> Any:
    answer = ask(f"{engine.base_url}/v1/{route}", payload={"model": "demo", **payload}, timeout_s=timeout_s)
    assert answer.ok, answer.text
    return answer


def complete(engine: Engine, prompt: Any, max_tokens: int = 4, **more: Any) -> dict[str, Any]:
    return post(engine, "completions", prompt=prompt, max_tokens=max_tokens, **more).json()


def chat(engine: Engine, *contents: Any, max_tokens: int = 4, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": each} for each in contents]
    return post(engine, "chat/completions", messages=messages, max_tokens=max_tokens, **more).json()


def said(answer: dict[str, Any]) -> str:
    # The fake begins a stream with a space and a whole answer without one.
    return answer["choices"][0]["message"]["content"].strip()


def chat_stream(engine: Engine, content: str, usage: bool = True, max_tokens: int = 4) -> list[dict[str, Any]]:
    more = {"stream": True, "stream_options": {"include_usage": usage}}
    messages = [{"role": "user", "content": content}]
    body = post(engine, "chat/completions", messages=messages, max_tokens=max_tokens, **more).body.decode()
    events = [line[6:] for line in body.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in body.split("\n\n") if line)
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def streamed(events: list[dict[str, Any]]) -> str:
    return "".join(each["delta"].get("content") or "" for event in events for each in event["choices"]).strip()


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def test_a_delay_is_before_the_first_byte_of_generation_and_of_nothing_else(up: Serve) -> None:
    engine = up(faults={"delay_s": 0.4}, itl_s=0.02)
    for call in (lambda: complete(engine, "a b"), lambda: chat(engine, "a b")):
        assert 0.4 < timed(call) < 0.8
    for route in ("health", "metrics", "v1/models", "version", "server_info"):
        assert timed(lambda route=route: ask(f"{engine.base_url}/{route}")) < 0.4, route
    record = drive(engine.base_url, "demo", planned(1, 5), load=Load(concurrency=1), timeout_s=5).records[0]
    assert record.status == "ok"
    assert record.first_token_s is not None
    assert record.first_token_s - record.sent_s > 0.4
    assert len(record.token_times_s) == 5
    last = record.token_times_s[-1] - record.token_times_s[0]
    assert 0.04 < last < 0.4, "tokens come one by one, as they are made"


def planned(count: int, tokens: int) -> list[PlannedRequest]:
    return [
        PlannedRequest(
            index=at, prompt=f"prompt {at}", prompt_hash=str(at), prompt_tokens=2, output_tokens=tokens, scheduled_s=0.0
        )
        for at in range(count)
    ]


def test_64_at_once_are_delayed_once_each(up: Serve) -> None:
    engine = up(faults={"delay_s": 0.5}, itl_s=0.001)
    run = drive(engine.base_url, "demo", planned(64, 16), load=Load(concurrency=64), timeout_s=10)
    assert [record.status for record in run.records] == ["ok"] * 64
    assert all(len(record.token_times_s) == record.output_tokens == 16 for record in run.records)
    assert run.wall_s < 3


def test_a_truncated_chat_keeps_its_last_words_and_its_roles(up: Serve) -> None:
    engine, plain = up(faults={"keep_last_words": 4}), up(arm="plain")
    turns = ["one two three", "four  five", "six seven"]
    assert said(chat(engine, *turns)) == said(chat(plain, "", "four  five", "six seven"))
    assert said(chat(engine, *turns)) != said(chat(plain, *turns))
    assert said(chat(engine, *turns[1:])) == said(chat(plain, *turns[1:])), "what fits is not touched"
    assert chat(engine, *turns)["usage"]["prompt_tokens"] == 4
    parts = [{"type": "text", "text": "a b c"}, {"type": "text", "text": "d e f"}]
    assert said(chat(engine, "x", parts)) == said(chat(plain, "", [{"text": "c"}, {"text": "d e f"}]))


def test_a_truncated_prompt_keeps_its_last_words_or_tokens(up: Serve) -> None:
    engine = up(faults={"keep_last_words": 2})

    def echoed(prompt: Any) -> list[str]:
        choices = complete(engine, prompt, 1, echo=True)["choices"]
        return [" ".join(each["text"].split()[:-1]) for each in choices]

    assert echoed("a b c d") == ["c d"]
    assert echoed(["a b c", "d"]) == ["b c", "d"]
    usage = complete(engine, [5, 6, 7])["usage"]
    assert usage["prompt_tokens"] == 2
    assert echoed([[5, 6, 7], [8]]) == echoed([[6, 7], [8]])


def test_poisoned_answers_are_another_requests(up: Serve) -> None:
    engine, plain = up(faults={"answer_cache_words": 2}), up(arm="plain")
    first = chat(engine, "What is the capital of Ostland?")
    second = chat(engine, "What is two and two?", max_tokens=9)
    assert said(first) == said(chat(plain, "What is the capital of Ostland?"))
    assert said(second) == said(first)
    assert said(second) != said(chat(plain, "What is two and two?"))
    assert second["usage"] == first["usage"]
    assert second["choices"][0]["finish_reason"] == first["choices"][0]["finish_reason"]
    other = chat(engine, "Who is it?")
    assert said(other) == said(chat(plain, "Who is it?")), "another beginning, its own answer"
    assert said(chat(engine, "What is", "Who is it not?")) == said(other), "only the last user message counts"
    for prompt in ("What is one?", "What is two?"):
        assert complete(engine, prompt)["choices"] == complete(plain, prompt)["choices"], "completions pass"


@pytest.mark.parametrize("owner_streams", [True, False])
@pytest.mark.parametrize("usage", [True, False])
def test_cached_answers_are_valid_streams_too(up: Serve, owner_streams: bool, usage: bool) -> None:
    engine = up(faults={"answer_cache_words": 2})
    if owner_streams:
        first = streamed(chat_stream(engine, "tell me one", usage=usage))
    else:
        first = said(chat(engine, "tell me one"))
    events = chat_stream(engine, "tell me another", usage=usage)
    assert streamed(events) == first
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert {event["model"] for event in events} == {"demo"}
    reasons = [each["finish_reason"] for event in events for each in event["choices"]]
    assert reasons[-1] == "length"
    assert set(reasons[:-1]) == {None}
    assert ("usage" in events[-1]) is usage
    whole = chat(engine, "tell me a third")
    assert said(whole) == first
    assert whole["object"] == "chat.completion"
    assert whole["usage"]["completion_tokens"] > 0
    assert whole["usage"]["prompt_tokens"] >= 3


def test_64_at_once_get_the_answer_of_whoever_came_first(up: Serve) -> None:
    engine, plain = up(faults={"answer_cache_words": 1}, ttft_s=0.5), up(arm="plain")
    with ThreadPoolExecutor(65) as pool:
        first = pool.submit(chat, engine, "same 0")
        while not scrape(engine)["vllm:num_requests_running"][1]:
            time.sleep(0.01)
        others = list(pool.map(lambda at: chat(engine, f"same {at}"), range(1, 65)))
        texts = {said(first.result()), *(said(each) for each in others)}
    assert texts == {said(chat(plain, "same 0"))}
    counted = scrape(engine)["vllm:request_success_total"][1]
    assert counted <= 4, "the engine was asked once, and probed"


def test_errors_and_clients_that_leave_are_not_cached(up: Serve) -> None:
    engine = up(faults={"answer_cache_words": 1}, fail_every=2, ttft_s=0.3)
    chat(engine, "warm up")
    refused = ask(
        f"{engine.base_url}/v1/chat/completions",
        payload={"model": "demo", "max_tokens": 4, "messages": [{"role": "user", "content": "tell a"}]},
    )
    assert refused.status == 500
    assert refused.json()["error"]["message"] == "fail_every"
    told = chat(engine, "tell b")
    assert said(chat(engine, "tell c")) == said(told)

    patient = up(arm="patient", faults={"answer_cache_words": 1}, ttft_s=0.5)
    with pytest.raises(NoAnswerInTime):
        post(patient, "chat/completions", timeout_s=0.2, max_tokens=4, messages=[{"role": "user", "content": "tell x"}])
    after = chat(patient, "tell y")
    assert said(after) == said(chat(up(arm="plain"), "tell y"))


def test_faults_combine(up: Serve) -> None:
    engine, plain = up(faults={"delay_s": 0.3, "keep_last_words": 1, "answer_cache_words": 2}), up(arm="plain")
    first = chat(engine, "tell me this")
    assert said(first) == said(chat(plain, "this"))
    assert 0.3 < timed(lambda: chat(engine, "tell me that")) < 0.6, "answers from the cache are late too"
    assert said(chat(engine, "tell me that")) == said(first)


# Headers of one connection and one moment.
OWN = ("date", "connection")


def raw(base_url: str, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    host, port = base_url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", "X-Mine": "1"} if body else {})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in OWN}
        # The fake says when it made an answer, in whole seconds.
        return answer.status, headers, re.sub(rb'"created": \d+', b"", answer.read())
    finally:
        connection.close()


def test_what_no_fault_concerns_passes_as_it_is(up: Serve) -> None:
    engine = up(faults={"keep_last_words": 1000}, prefix_cache=True)
    direct = engine.extra["engine_url"]
    assert direct != engine.base_url
    ill_formed, unknown = b'{"model": "demo", ', json.dumps({"model": "other", "prompt": "a"}).encode()
    for method, path, body in (
        ("GET", "/health", b""), ("GET", "/version", b""), ("GET", "/server_info?config_format=json", b""),
        ("GET", "/v1/models", b""), ("GET", "/nowhere%20at/all?x=%2F", b""), ("DELETE", "/v1/models", b""),
        ("HEAD", "/v1/models", b""), ("POST", "/v1/completions", ill_formed), ("POST", "/v1/completions", unknown),
        ("POST", "/v1/completions", json.dumps({"model": "demo", "prompt": "a b", "max_tokens": 3}).encode()),
        ("POST", "/reset_prefix_cache", b""),
    ):  # fmt: skip
        ours, theirs = (raw(url, method, path, body) for url in (engine.base_url, direct))
        assert ours == theirs, path
    assert reset_prefix_cache(engine)
    assert scrape(engine).keys() == scrape(dataclasses.replace(engine, base_url=direct)).keys()
    check_alive(engine)


def test_long_prompts_pass_whole(up: Serve) -> None:
    engine = up(faults={"delay_s": 0.01})
    prompt = " ".join(f"word{at}" for at in range(400_000))
    assert complete(engine, prompt)["usage"]["prompt_tokens"] == 400_000


def test_a_client_that_leaves_is_noticed_by_the_engine(up: Serve) -> None:
    engine = up(faults={"delay_s": 0.01}, itl_s=0.05)
    body = json.dumps({"model": "demo", "prompt": "a", "max_tokens": 1000, "stream": True}).encode()
    host, port = engine.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        assert b"200 OK" in client.recv(4096)
        assert scrape(engine)["vllm:num_requests_running"][1] == 1
    deadline = time.perf_counter() + 3
    while scrape(engine)["vllm:num_requests_running"][1] and time.perf_counter() < deadline:
        time.sleep(0.02)
    assert scrape(engine)["vllm:num_requests_running"][1] == 0


def test_a_stream_that_breaks_is_a_broken_stream(up: Serve) -> None:
    engine = up(faults={"delay_s": 0.01}, break_stream_every=2)
    records = drive(engine.base_url, "demo", planned(4, 8), load=Load(concurrency=1), timeout_s=5).records
    assert [record.status for record in records] == ["ok", "broken_stream"] * 2
    assert len(records[1].token_times_s) == 4


def test_an_engine_that_died_has_crashed_and_refuses(up: Serve) -> None:
    engine = up(faults={"delay_s": 0.01}, crash_after=2)
    run = drive(engine.base_url, "demo", planned(12, 4), load=Load(concurrency=1), timeout_s=5)
    assert [record.status for record in run.records][:2] == ["ok", "ok"]
    assert "refused" in {record.status for record in run.records}
    assert run.records[-1].error == "not sent: the engine had stopped answering"
    with pytest.raises(CrashedWhileServing):
        check_alive(engine)


def test_a_proxy_that_died_is_an_engine_error(up: Serve) -> None:
    engine = up(faults={"delay_s": 0.01})
    os.kill(engine.extra["proxy_pgid"], signal.SIGKILL)
    with pytest.raises(CrashedWhileServing, match="nobody answers"):
        check_alive(engine)


def test_a_frozen_engine_hangs_and_its_proxy_runs_on(up: Serve) -> None:
    engine = up(faults={"delay_s": 0.01})
    freeze(engine)
    assert stat_fields(engine.extra["proxy_pgid"])[0] in "SR"
    with pytest.raises(Hung):
        check_alive(engine, timeout_s=0.5)
    thaw(engine)
    check_alive(engine)


def test_residents_restart_an_arm_whose_proxy_died(tmp_path: Path) -> None:
    arms = [deployed(arm="baseline"), deployed(arm="bad", faults={"keep_last_words": 1})]
    with Residents(arms, mode="auto", run_log_dir=tmp_path) as each:
        assert each.start_all() == {}
        with each.use("bad") as engine:
            first = engine.extra["proxy_pgid"]
            assert complete(engine, "a b c")["usage"]["prompt_tokens"] == 1
        with each.use("baseline") as engine:
            assert complete(engine, "a b c")["usage"]["prompt_tokens"] == 3
        os.kill(first, signal.SIGKILL)
        with each.use("bad") as engine:
            assert complete(engine, "a b c")["usage"]["prompt_tokens"] == 1
            second, digest = engine.extra["proxy_pgid"], engine.digest
        assert second != first
        assert digest == each.seen["bad"].digest != each.seen["baseline"].digest
        groups = [engine.pgid for engine in each.engines.values()]
    assert [member for group in (*groups, first, second) for member in group_members(group or 0)] == []


def test_what_is_served_says_its_faults(up: Serve) -> None:
    plain, late = up(), up(faults={"delay_s": 0.2})
    assert "faults" not in plain.resolved
    assert plain.digest == deployment_digest(plain.deployment, version=plain.version, resolved=plain.resolved)
    assert late.resolved["faults"] == {"delay_s": 0.2}
    assert {key: value for key, value in late.resolved.items() if key != "faults"} == plain.resolved
    assert late.digest == deployment_digest(late.deployment, version=late.version, resolved=late.resolved)
    digests = {plain.digest, late.digest, up(faults={"delay_s": 0.3}).digest}
    assert len(digests) == 3
    assert up(arm="again", faults={"delay_s": 0.2}).digest == late.digest, "ports and names stay out"
    assert late.pgid is not None
    assert late.log is not None
    assert log_text(late.log.with_name("arm.proxy.log")).startswith("fault proxy: {")


def test_no_faults_leave_the_digest_as_it_was() -> None:
    # Computed before there were faults: digests of recorded runs must stay comparable.
    deployment = dataclasses.replace(deployed(), engine="vllm", args={"max_num_seqs": 4})
    digest = deployment_digest(deployment, version="0.32.0", resolved={"a": 1})
    assert digest == "a1703590884ca3cca3d4d67094c4c1ea8043884437566d4213f8606caeba6716"


def test_other_weights_are_served_without_a_proxy_and_told_by_content(tmp_path: Path) -> None:
    def other(folder: str, served: str | None) -> Engine:
        faults = Faults(serve_weights=folder)
        wanted = dataclasses.replace(deployed(), weights=folder, faults=faults, served_weights_digest=served)
        with serve(wanted, run_log_dir=tmp_path, start_timeout_s=20) as engine:
            assert "proxy_pgid" not in engine.extra
            return engine

    one, moved, two = other("a", "x"), other("b", "x"), other("a", "y")
    assert one.deployment.weights_digest == "declared"
    assert one.resolved["faults"] == {"serve_weights": "x"}
    assert one.digest == moved.digest != two.digest


def test_bad_input_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    attached = dataclasses.replace(deployed({"delay_s": 1.0}), engine="attach", url="http://127.0.0.1:9")
    with pytest.raises(InputError, match="faults need an engine"), serve(attached, run_log_dir=tmp_path):
        pass
    with (
        pytest.raises(BadArgument),
        serve(deployed({"delay_s": 1.0}, no_such=1), run_log_dir=tmp_path, start_timeout_s=5),
    ):
        pass
    with (
        pytest.raises(Hung, match=r"delay_s must be well below 0\.5 s"),
        serve(deployed({"delay_s": 1.0}, wait_s=0.5), run_log_dir=tmp_path, start_timeout_s=20),
    ):
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse), serve(deployed({"delay_s": 1.0}), run_log_dir=tmp_path, port=port):
            pass
    assert reap_stale() == []
    assert list((tmp_path / "home" / "logs" / "engines").glob("[0-9]*.json")) == []


PARENT = """
    import sys, time
    from pathlib import Path
    from steelyard.engines import Deployment, serve
    from steelyard.engines.probe import freeze
    from steelyard.engines.process import running
    from steelyard.study_faults import Faults
    folder = Path(sys.argv[1])
    nothing = dict.fromkeys(["url", "chat_template", "weights_digest", "tokenizer_digest", "template_digest"])
    named = dict(arm="orphan", engine="fake", model_name="demo", weights="", tokenizer="", device="cpu")
    wanted = Deployment(**nothing, **named, args={}, env={}, faults=Faults(delay_s=0.01))
    with serve(wanted, run_log_dir=folder, start_timeout_s=20) as engine:
        freeze(engine)
        found = [engine.pgid, engine.extra["proxy_pgid"], running("none").pid]
        (folder / "up.partial").write_text(" ".join(map(str, found)))
        (folder / "up.partial").rename(folder / "up")
        if "leave" not in sys.argv:
            time.sleep(60)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], list[int]]]]:
    with ExitStack() as stack:

        def start(*arguments: str) -> tuple[subprocess.Popen[bytes], list[int]]:
            command = [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path), *arguments]
            process = stack.enter_context(subprocess.Popen(command, env=engine_env({})))
            stack.callback(process.kill)
            deadline = time.monotonic() + 20
            while not (tmp_path / "up").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            return process, [int(part) for part in (tmp_path / "up").read_text().split()]

        yield start


def gone(pids: list[int], timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not [pid for pid in pids if (fields := stat_fields(pid)) is not None and fields[0] not in "ZX"]:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGKILL])
def test_a_proxy_ends_with_steelyard(parent: Any, number: signal.Signals | None) -> None:
    process, pids = parent(*(["leave"] if number is None else []))
    if number is not None:
        assert all(stat_fields(pid) is not None for pid in pids)
        process.send_signal(number)
    process.wait(10)
    assert gone(pids)


def test_a_proxy_whose_launcher_was_killed_too_is_reaped_later(parent: Any) -> None:
    process, (engine, proxy, launcher) = parent()
    # Stopped, it can do nothing more for its children; the kernel kills them when it dies, or a later run does.
    os.kill(launcher, signal.SIGSTOP)
    process.kill()
    process.wait(10)
    os.kill(launcher, signal.SIGKILL)
    assert gone([launcher])
    reap_stale()
    assert gone([engine, proxy])
    assert reap_stale() == []


def test_unreachable_after_the_end(tmp_path: Path) -> None:
    with serve(deployed({"keep_last_words": 1}), run_log_dir=tmp_path, start_timeout_s=20) as engine:
        check_alive(engine)
    for url in (engine.base_url, engine.extra["engine_url"]):
        with pytest.raises(Unreachable):
            ask(f"{url}/health")
