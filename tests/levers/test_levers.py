"""What the engine's own answer makes of a lever; and what the installed engine answers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from steelyard.cli_levers import show, written
from steelyard.errors import InputError
from steelyard.levers.available import available, differences, judge, tried
from steelyard.levers.catalogue import CATALOGUE, Entry

PLAIN = {"cache_config": {"block_size": 16, "cache_dtype": "auto"}, "speculative_config": None, "optimization_level": 2}
LEVER = Entry(name="kv", kind="cache", changes="c", risk="approximation", args={"kv_cache_dtype": "fp8"})
WEIGHTS = Path(__file__).parents[2] / "reference_model" / "weights"


def test_fields_that_differ_are_named_with_both_values() -> None:
    other = {"cache_config": {"block_size": 16, "cache_dtype": "fp8"}, "speculative_config": {"method": "ngram"}}
    assert differences(PLAIN, other) == {
        "cache.cache_dtype": ("auto", "fp8"), "speculative": (None, {"method": "ngram"}),
        "optimization_level": (2, None),
    }  # fmt: skip
    assert differences(PLAIN, PLAIN) == {}


def test_what_changes_nothing_is_no_lever_here() -> None:
    with_it = {**PLAIN, "cache_config": {"block_size": 16, "cache_dtype": "fp8"}}
    found = judge(LEVER, "cpu", {"resolved": with_it}, PLAIN)
    assert (found.state, found.changed) == ("accepted", {"cache.cache_dtype": ("auto", "fp8")})
    ignored = judge(LEVER, "cpu", {"resolved": PLAIN}, PLAIN)
    assert (ignored.state, ignored.here) == ("overruled", False)
    assert "stays with kv_cache_dtype auto" in str(ignored.why)
    blocks = Entry(name="b", kind="cache", changes="c", risk="none", args={"block_size": 16})
    assert judge(blocks, "cpu", {"resolved": PLAIN}, PLAIN).state == "already"
    refused = judge(LEVER, "cpu", {"refused": "no such dtype"}, PLAIN)
    assert (refused.state, refused.why) == ("refused", "no such dtype")
    assert judge(LEVER, "cpu", None, PLAIN).state == "refused"


def test_what_no_argument_brings_can_only_be_tried() -> None:
    other = Entry(name="o", kind="engine", changes="c", risk="rounding", engine="attach", needs="the server")
    assert (judge(other, "cpu", None, PLAIN).state, judge(other, "cpu", None, PLAIN).why) == ("unknown", "the server")
    ours = Entry(name="w", kind="quantization", changes="c", risk="approximation", weights={"method": "int8_w8a8"})
    assert judge(ours, "cuda", None, PLAIN).state == "accepted"
    threads = Entry(name="t", kind="engine", changes="c", risk="none", env={"OMP_NUM_THREADS": "2"}, devices=("cpu",))
    assert (judge(threads, "cuda", None, PLAIN).why, judge(threads, "cpu", None, PLAIN).here) == ("for cpu only", True)
    assert judge(threads, "cuda", None, PLAIN).state == "elsewhere"


def test_the_catalogue_names_each_lever_once_and_says_what_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    assert len({each.name for each in CATALOGUE}) == len(CATALOGUE)
    assert all(each.args or each.env or each.weights or each.engine != "vllm" or each.needs for each in CATALOGUE)
    found = [judge(each, "cpu", {"refused": "not today"}, PLAIN) for each in CATALOGUE]
    assert show(found, as_json=False) == 0
    text = capsys.readouterr().out
    assert all(each.name in text for each in CATALOGUE)
    assert 'args: {"max_num_seqs": 64}' in text
    assert show(found, as_json=True) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == [each.name for each in CATALOGUE]
    assert written(found[-2]) == "engine: transformers"


def test_a_model_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        available("cpu", tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_installed_engine_tells_its_levers(tmp_path: Path) -> None:
    """Of a CPU it is known: batching and caching are there, FlashInfer and asynchronous scheduling are not."""
    found = {each.entry.name: each for each in available("cpu", WEIGHTS)}
    for name in ("more-sequences", "ngram-speculation", "kv-fp8", "compile"):
        assert found[name].state == "accepted", found[name]
    assert found["more-sequences"].changed["scheduler.max_num_seqs"][1] == 64
    # The reference model is stored so.
    assert found["bfloat16"].state == "already"
    assert found["async-scheduling"].state == "overruled"
    assert found["expert-parallel"].state == "refused", "the model has no experts"
    few = [found[name] for name in ("more-sequences", "flashinfer", "kv-fp8", "int8-w8a8")]
    states = {each.entry.name: each.state for each in tried(few, "cpu", WEIGHTS, tmp_path, lambda _: None)}
    assert (states["more-sequences"], states["kv-fp8"], states["int8-w8a8"]) == ("serves", "serves", "accepted")
    assert states["flashinfer"] in ("overruled", "fails"), "there are no such kernels on a CPU"
