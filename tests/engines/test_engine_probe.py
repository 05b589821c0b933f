"""Probes against the fake: an engine that died, one that hangs, one that serves another model."""

import json
import os
import signal
import time

import pytest

from steelyard.engines import Deployment, serve
from steelyard.engines.http import Answer
from steelyard.engines.launcher import processes_of
from steelyard.engines.probe import (
    check_alive,
    freeze,
    has_token,
    memory_bytes,
    parse_metrics,
    reset_prefix_cache,
    scrape,
    served_models,
    thaw,
)
from steelyard.engines.process import close_launchers
from steelyard.errors import CrashedWhileServing, Hung, InputError, WrongModelServed


def deployment(engine="fake", args=None, url=None, model="demo", **changes):
    values = {
        "arm": "arm", "engine": engine, "model_name": model, "weights": "", "tokenizer": "", "chat_template": None,
        "args": args or {}, "env": {}, "url": url, "device": "cpu", "weights_digest": None, "tokenizer_digest": None,
        "template_digest": None, "max_answer_wait_s": 5.0,
    }  # fmt: skip
    return Deployment(**(values | changes))


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    yield
    close_launchers(idle_only=False)


@pytest.fixture
def engine(tmp_path):
    with serve(deployment(), run_log_dir=tmp_path) as served:
        yield served


def test_a_living_engine_passes_and_is_measured(engine):
    check_alive(engine)
    assert (memory_bytes(engine) or 0) > 1 << 20
    assert reset_prefix_cache(engine) is True
    assert [kind for kind, _ in scrape(engine).values() if kind not in ("counter", "gauge")] == []


def test_a_frozen_engine_is_hung_and_a_thawed_one_alive(engine):
    freeze(engine)
    assert {fields[0] for fields in processes_of(engine.pgid).values()} == {"T"}
    began = time.monotonic()
    with pytest.raises(Hung) as caught:
        check_alive(engine, timeout_s=0.4)
    assert time.monotonic() - began < 3
    assert caught.value.arm == "arm"
    thaw(engine)
    check_alive(engine)


def test_a_killed_engine_has_crashed(engine):
    os.killpg(engine.pgid, signal.SIGKILL)
    with pytest.raises(CrashedWhileServing):
        check_alive(engine)
    assert reset_prefix_cache(engine) is False
    assert scrape(engine) == {}


def test_attach_asks_and_never_stops(engine, tmp_path):
    theirs = deployment("attach", url=f"{engine.base_url}/v1/")
    with serve(theirs, run_log_dir=tmp_path) as attached:
        assert attached.base_url == engine.base_url
        assert attached.pgid is None
        assert attached.resolved["model"] == "demo"
        digest = attached.digest
        freeze(attached)
        check_alive(attached)
    with serve(theirs, run_log_dir=tmp_path) as again:
        assert again.digest == digest
    check_alive(engine)


def test_attach_to_another_model_or_to_nobody(engine, tmp_path):
    with (
        pytest.raises(WrongModelServed, match="serves demo, not other"),
        serve(deployment("attach", url=engine.base_url, model="other"), run_log_dir=tmp_path),
    ):
        pass
    with (
        pytest.raises(CrashedWhileServing, match="Nobody answers"),
        serve(deployment("attach", url="http://127.0.0.1:9"), run_log_dir=tmp_path),
    ):
        pass
    with pytest.raises(InputError), serve(deployment("attach"), run_log_dir=tmp_path):
        pass


def test_an_attached_engine_that_hangs_is_hung(engine, tmp_path):
    freeze(engine)
    theirs = deployment("attach", url=engine.base_url, max_answer_wait_s=0.4)
    with pytest.raises(Hung), serve(theirs, run_log_dir=tmp_path):
        pass
    thaw(engine)


def test_models_are_read(engine):
    assert [each["id"] for each in served_models(engine.base_url) or ()] == ["demo"]


def test_metrics_are_summed_over_labels_and_named_by_kind():
    text = """\
# HELP vllm:prompt_tokens_total Tokens.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="a b"} 3.0
vllm:prompt_tokens_total{engine="1",model_name="a b"} 4.0
vllm:prompt_tokens_created{engine="0"} 1.79e+09
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.25
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16"} 1.0
# TYPE vllm:ttft_seconds histogram
vllm:ttft_seconds_bucket{le="0.1"} 2.0
vllm:ttft_seconds_sum{engine="0"} 0.5
vllm:ttft_seconds_count{engine="0"} 2.0
# TYPE vllm:odd gauge
vllm:odd NaN
untyped 1.0
"""
    assert parse_metrics(text) == {
        "vllm:prompt_tokens_total": ("counter", 7.0),
        "vllm:kv_cache_usage_perc": ("gauge", 0.25),
        "vllm:ttft_seconds_sum": ("counter", 0.5),
        "vllm:ttft_seconds_count": ("counter", 2.0),
    }


@pytest.mark.parametrize("text", ["Not Found", "# TYPE x", "# TYPE \nx y z", "<html>404</html>", "a 1 2 3\n\x00"])
def test_a_page_that_is_no_metrics_holds_none(text):
    assert parse_metrics(text) == {}
    assert parse_metrics(f"{text}\n# TYPE a counter\na 2") == {"a": ("counter", 2.0)}


@pytest.mark.parametrize("choices", [None, [], [None], ["x"], 5, [{}], [{"finish_reason": 3}]])
def test_a_completion_without_choices_is_no_token(choices):
    answer = Answer(200, json.dumps({"choices": choices}).encode())
    assert not has_token(answer)
