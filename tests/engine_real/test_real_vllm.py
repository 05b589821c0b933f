"""Real vLLM: identity, levers, refusals, failures, and nothing left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from steelyard.engines import serve
from steelyard.engines.arguments import check_many
from steelyard.engines.http import ask
from steelyard.engines.launcher import group_members, stat_fields
from steelyard.engines.probe import check_alive, freeze, memory_bytes, one_token, reset_prefix_cache, scrape, thaw
from steelyard.engines.process import engine_env
from steelyard.engines.vllm import serve_vllm
from steelyard.errors import (
    BadArgument,
    CrashedWhileServing,
    Hung,
    InputError,
    OutOfMemory,
    PortInUse,
    WrongModelServed,
)

pytestmark = pytest.mark.engine


def listens(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rsplit(":", 1)[1]))) == 0


def test_it_serves_knows_itself_and_counts(baseline):
    assert baseline.version
    assert baseline.resolved["model_config"]["dtype"] == "torch.bfloat16"
    assert baseline.resolved["scheduler_config"]["max_num_seqs"] == 4
    assert baseline.resolved["cache_config"]["enable_prefix_caching"] is True
    before = scrape(baseline)
    assert one_token(baseline.base_url, "reference", timeout_s=30).ok
    after = scrape(baseline)
    assert after["vllm:generation_tokens_total"][1] - before["vllm:generation_tokens_total"][1] == 1
    assert after["vllm:generation_tokens_total"][0] == "counter"
    assert after["vllm:kv_cache_usage_perc"][0] == "gauge"


def test_the_prefix_cache_is_emptied(baseline):
    prompt = list(range(20, 420))

    def hits():
        before = scrape(baseline)["vllm:prefix_cache_hits_total"][1]
        payload = {"model": "reference", "prompt": prompt, "max_tokens": 1}
        assert ask(f"{baseline.base_url}/v1/completions", payload=payload, timeout_s=30).ok
        return scrape(baseline)["vllm:prefix_cache_hits_total"][1] - before

    hits()
    assert hits() > 0
    assert reset_prefix_cache(baseline) is True
    assert hits() == 0


def test_two_starts_agree_however_they_are_started(baseline, deploy, state):
    with serve(deploy("identity"), run_log_dir=state) as again:
        assert again.digest == baseline.digest
        assert again.extra["launch"] == "forked"
    with serve_vllm(deploy("plain"), run_log_dir=state, start_timeout_s=120, port=None, preload=False) as plain:
        assert plain.extra["launch"] == "executed"
        assert plain.resolved == baseline.resolved
        assert plain.digest == baseline.digest


def test_every_lever_starts_and_has_its_own_digest(baseline, deploy, state, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    levers = {
        "float32": {"args": {"dtype": "float32"}},
        "batch": {"args": {"max_num_seqs": 64}},
        "no-cache": {"args": {"enable_prefix_caching": False}},
        "kv-fp8": {"args": {"kv_cache_dtype": "fp8"}},
        "kv-int8": {"args": {"kv_cache_dtype": "int8_per_token_head"}},
        "ngram": {
            "args": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}}
        },
        "template": {"chat_template": template, "template_digest": "x"},
    }
    digests = {"baseline": baseline.digest}
    for name, changes in levers.items():
        with serve(deploy(name, **changes), run_log_dir=state) as engine:
            payload = {"model": "reference", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
            assert ask(f"{engine.base_url}/v1/chat/completions", payload=payload, timeout_s=30).ok, name
            digests[name] = engine.digest
        assert group_members(engine.pgid) == []
    assert len(set(digests.values())) == len(digests)


def test_arguments_are_checked_by_vllms_own_parser(baseline):
    refused = check_many(
        [
            ("good", "vllm", {"max_num_seqs": 4, "enable_prefix_caching": False, "kv_cache_dtype": "fp8"}),
            ("typo", "vllm", {"max_num_seq": 4}),
            ("abbreviated", "vllm", {"enable_prefix": True}),
            ("choice", "vllm", {"kv_cache_dtype": "fp7"}),
            ("kind", "vllm", {"max_num_seqs": "many"}),
            ("range", "vllm", {"max_num_seqs": 0}),
            ("ours", "vllm", {"port": 1}),
            ("spec", "vllm", {"speculative_config": {"method": "ngram", "num_speculative_tokens": 4}}),
        ],
        "cpu",
    )
    assert set(refused) == {"typo", "abbreviated", "choice", "kind", "range", "ours"}
    assert "max_num_seqs" in refused["typo"]
    assert "enable_prefix_caching" in refused["abbreviated"]
    assert "fp8_e5m2" in refused["choice"]


@pytest.mark.parametrize(
    ("args", "named", "says"),
    [
        ({"max_num_seq": 4}, BadArgument, "did you mean max_num_seqs"),
        ({"max_model_len": 10**6}, BadArgument, "max_model_len"),
        ({"kv_cache_memory_bytes": 1 << 42}, OutOfMemory, "memory"),
    ],
)
def test_bad_configurations_fail_fast_and_by_name(baseline, deploy, state, args, named, says):
    began = time.monotonic()
    with pytest.raises(named, match=says), serve(deploy("bad", args), run_log_dir=state):
        pass
    assert time.monotonic() - began < 15


def test_a_busy_port_and_missing_weights_are_named_before_anything_starts(baseline, deploy, state):
    port = int(baseline.base_url.rsplit(":", 1)[1])
    began = time.monotonic()
    with pytest.raises(PortInUse), serve(deploy("busy"), run_log_dir=state, port=port):
        pass
    with pytest.raises(InputError, match="no weights folder"), serve(deploy(weights="/no/where"), run_log_dir=state):
        pass
    assert time.monotonic() - began < 1


def test_a_port_taken_meanwhile_is_named_too(baseline, deploy, state, monkeypatch):
    port = int(baseline.base_url.rsplit(":", 1)[1])
    monkeypatch.setattr("steelyard.engines.vllm.check_port", lambda *_: None)
    with pytest.raises(PortInUse), serve(deploy("taken"), run_log_dir=state, port=port):
        pass


def test_a_stopped_engine_hangs_though_health_would_not_say(baseline):
    freeze(baseline)
    with pytest.raises(Hung):
        check_alive(baseline, timeout_s=1.0)
    thaw(baseline)
    check_alive(baseline)
    core = [pid for pid in group_members(baseline.pgid) if pid != baseline.pgid]
    for pid in core:
        os.kill(pid, signal.SIGSTOP)
    assert ask(f"{baseline.base_url}/health").ok
    with pytest.raises(Hung):
        check_alive(baseline, timeout_s=1.0)
    thaw(baseline)
    check_alive(baseline)


def test_the_wrong_model_is_noticed(baseline, deploy, state):
    theirs = deploy("theirs", engine="attach", args={}, url=baseline.base_url, model_name="other")
    with pytest.raises(WrongModelServed, match="serves reference"), serve(theirs, run_log_dir=state):
        pass


@pytest.mark.parametrize("victim", ["leader", "core"])
def test_a_killed_engine_has_crashed_and_leaves_nothing(baseline, deploy, state, victim):
    with serve(deploy(f"killed-{victim}"), run_log_dir=state) as engine:
        core = next(pid for pid in group_members(engine.pgid) if pid != engine.pgid)
        os.kill(engine.pgid if victim == "leader" else core, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and group_members(engine.pgid):
            time.sleep(0.05)
        with pytest.raises(CrashedWhileServing):
            check_alive(engine, timeout_s=10)
    assert group_members(engine.pgid) == []
    assert not listens(engine.base_url)


def test_stopping_is_quick_and_complete(baseline, deploy, state):
    with serve(deploy("stopped"), run_log_dir=state) as engine:
        assert (memory_bytes(engine) or 0) > 100 << 20
        began = time.monotonic()
    assert time.monotonic() - began < 8
    assert group_members(engine.pgid) == []
    assert not listens(engine.base_url)


def test_nothing_outlives_a_killed_steelyard(deploy, state, tmp_path):
    code = """
        import json, sys, time
        from pathlib import Path
        from steelyard.engines import Deployment, serve
        from steelyard.engines.probe import freeze
        from steelyard.engines.process import running
        folder = Path(sys.argv[2])
        with serve(Deployment(**json.loads(sys.argv[1])), run_log_dir=folder) as engine:
            freeze(engine)
            (folder / "up.partial").write_text(json.dumps([engine.pgid, engine.base_url, running("vllm").pid]))
            (folder / "up.partial").rename(folder / "up")
            time.sleep(120)
    """
    deployment = deploy("orphan")
    values = {name: getattr(deployment, name) for name in deployment.__slots__}
    command = [sys.executable, "-c", textwrap.dedent(code), json.dumps(values), str(tmp_path)]
    with subprocess.Popen(command, env=engine_env({"STEELYARD_HOME": str(tmp_path / "home")})) as parent:
        deadline = time.monotonic() + 90
        while not (tmp_path / "up").exists() and parent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        pgid, url, launcher_pid = json.loads((tmp_path / "up").read_text())
        assert len(group_members(pgid)) >= 2
        parent.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (group_members(pgid) or stat_fields(launcher_pid) is not None):
        time.sleep(0.05)
    assert group_members(pgid) == []
    assert stat_fields(launcher_pid) is None
    assert not listens(url)
