"""Suites against engines of known truth: scores, routes, draws, hashes, and every way a sample can go missing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evals.runner import SuiteResult, extended, run_suite
from steelyard.engines.base import Engine
from steelyard.engines.fake import serve_fake
from steelyard.errors import CrashedWhileServing, InputError
from steelyard.study import Suite
from tests.evals.conftest import ROOT, Scripted, deployment

COLORS = {"sky": "blue", "fire": "red", "grass": "green"}
# Ids of the tokenizer in conftest.
RED, BLUE, GREEN, SKY, FIRE, GRASS = 6, 7, 8, 10, 11, 12
RIGHT = {SKY: BLUE, FIRE: RED, GRASS: GREEN}


def suite(task: str, **changes: Any) -> Suite:
    return Suite.model_validate({"name": "s", "task": task, "category": "accuracy", "path": "tasks", **changes})


def run(engine: Engine, asked: Suite, study: Path, tokenizer: Path, seed: int = 1, **settings: Any) -> SuiteResult:
    return run_suite(engine, asked, run_id="r", seed=seed, study_root=study, tokenizer=str(tokenizer), **settings)


def said(text: str | None, reason: str = "stop", prompt_tokens: int = 10) -> tuple[int, Any]:
    message = {"role": "assistant", "content": text}
    return 200, {
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": prompt_tokens},
    }


def thing(body: dict[str, Any]) -> str:
    return body["messages"][-1]["content"].split()[4]


def right(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    if path == "/v1/chat/completions":
        return said(COLORS[thing(body)])
    choices = []
    for index, ids in enumerate(body["prompt"]):
        value = -0.1 if ids[-1] == RIGHT[ids[-3]] else -4.0
        # The prompt's tokens, then one generated token, whose value must not count.
        values = [None, *[-9.0] * (len(ids) - 2), value, -77.0]
        tops = [None if each is None else {"t": max(each, -0.5)} for each in values]
        choices.append({"index": index, "text": "", "logprobs": {"token_logprobs": values, "top_logprobs": tops}})
    # Engines may finish them in any order.
    return 200, {"choices": choices[::-1]}


def test_generation_goes_through_the_chat_route(scripted: Scripted, suites: Path, tokenizer: Path) -> None:
    def script(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return said(COLORS[thing(body)] if thing(body) != "fire" else "green")

    scripted.script = script
    row, samples = run(scripted.engine, suite("spoken"), suites, tokenizer)
    assert (row.route, row.documents, row.answered, row.task_version) == ("chat", 30, 30, "2.0")
    assert row.mean_score == pytest.approx(2 / 3)
    assert {(each.subgroup, each.score) for each in samples} == {("sky", 1.0), ("fire", 0.0), ("grass", 1.0)}
    one = next(each for each in samples if each.subgroup == "fire")
    assert (one.target, one.answer, one.finish_reason, one.error) == ("red", "green", "stop", None)
    assert one.prompt.startswith("what is ")
    assert one.prompt.endswith("a fire ?")
    path, body = scripted.asked[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": body["messages"][0]["content"]}]
    assert (body["stop"], body["max_tokens"], body["temperature"]) == (["\n", "stop"], 8, 0.0)
    assert "do_sample" not in body
    assert "until" not in body


def test_choices_go_through_completions_and_the_likeliest_is_the_answer(
    scripted: Scripted, suites: Path, tokenizer: Path
) -> None:
    scripted.script = right
    row, samples = run(scripted.engine, suite("chosen", metric="acc"), suites, tokenizer)
    assert (row.route, row.mean_score, row.documents) == ("loglikelihood", 1.0, 3)
    assert [each.answer for each in samples] == [each.target for each in samples]
    assert {each.answer for each in samples} == {"blue", "red", "green"}
    assert {each.finish_reason for each in samples} == {None}
    assert len(scripted.asked) == 3
    path, body = scripted.asked[0]
    assert path == "/v1/completions"
    assert len(body["prompt"]) == 3
    assert (body["echo"], body["logprobs"]) == (True, 1)


def test_a_group_is_split_by_route_and_is_one_suite(scripted: Scripted, suites: Path, tokenizer: Path) -> None:
    scripted.script = right
    row, samples = run(scripted.engine, suite("both"), suites, tokenizer)
    assert (row.route, row.documents, row.mean_score) == ("mixed", 33, 1.0)
    assert {each.subgroup for each in samples} == {"sky", "fire", "grass", "chosen_scored"}
    limited, _ = run(scripted.engine, suite("both", limit=2), suites, tokenizer)
    assert limited.documents == 2


def test_a_limit_draws_by_seed_the_same_documents_in_every_arm(
    scripted: Scripted, suites: Path, tokenizer: Path, tmp_path: Path
) -> None:
    scripted.script = right
    first, samples = run(scripted.engine, suite("spoken", limit=7), suites, tokenizer)
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"question": "what", "answer": "mud"}\n')
    with serve_fake(
        deployment("fake", "other", tokenizer, args={"answers_file": str(answers)}),
        run_log_dir=tmp_path / "log",
        start_timeout_s=20,
    ) as fake:
        second, others = run(fake, suite("spoken", limit=7), suites, tokenizer)
    assert first.documents == 7
    assert first.documents_digest == second.documents_digest
    assert {(each.doc_hash, each.prompt_hash) for each in samples} == {
        (each.doc_hash, each.prompt_hash) for each in others
    }
    assert (first.mean_score, second.mean_score) == (1.0, 0.0)
    elsewhere, _ = run(scripted.engine, suite("spoken", limit=7), suites, tokenizer, seed=2)
    assert elsewhere.documents_digest != first.documents_digest


def test_a_window_asks_that_part_of_the_order_and_nothing_else(
    scripted: Scripted, suites: Path, tokenizer: Path
) -> None:
    scripted.script = right
    whole = run(scripted.engine, suite("both"), suites, tokenizer)
    assert whole.suite.declared == 33
    parts = [run(scripted.engine, suite("both"), suites, tokenizer, first=f, last=t) for f, t in ((0, 10), (10, 33))]
    assert [len(part.samples) for part in parts] == [10, 23]
    rows = {sample.position: sample for part in parts for sample in part.samples}
    assert sorted(rows) == list(range(33))
    assert {sample.position: sample.doc_hash for sample in whole.samples} == {
        place: sample.doc_hash for place, sample in rows.items()
    }
    assert {part.suite.declared for part in parts} == {33}


def test_a_document_under_two_tasks_is_two_samples_whatever_the_windows(
    scripted: Scripted, suites: Path, tokenizer: Path
) -> None:
    tasks = suites / "tasks"
    (tasks / "again.yaml").write_text((tasks / "spoken.yaml").read_text().replace("task: spoken", "task: again"))
    (tasks / "twins.yaml").write_text("group: twins\ntask:\n  - spoken\n  - again\n")
    scripted.script = right
    whole = run(scripted.engine, suite("twins"), suites, tokenizer)
    assert (whole.suite.documents, whole.suite.duplicates) == (60, 0)
    spans = ((0, 25), (25, 40), (40, 60))
    parts = [run(scripted.engine, suite("twins"), suites, tokenizer, first=f, last=t) for f, t in spans]
    together = extended(extended(*parts[0], parts[1])[0], extended(*parts[0], parts[1])[1], parts[2])
    keys = [{(each.doc_hash, each.prompt_hash) for each in found.samples} for found in (whole, together)]
    assert keys[0] == keys[1]
    assert (together.suite.documents, together.suite.duplicates) == (60, 0)


def test_documents_about_the_same_are_asked_together(scripted: Scripted, suites: Path, tokenizer: Path) -> None:
    scripted.script = right
    clustered = suite("spoken", cluster=("subgroup",), limit=25)
    row, samples = run(scripted.engine, clustered, suites, tokenizer)
    # Ten documents each on the sky, fire and grass: 25 hold two whole ones.
    assert (row.documents, row.declared) == (20, 20)
    ordered = [sample.cluster for sample in sorted(samples, key=lambda sample: sample.position or 0)]
    assert len({*ordered[:10]}) == len({*ordered[10:]}) == 1
    assert {sample.cluster == sample.subgroup for sample in samples} == {True}
    with pytest.raises(InputError, match="no field planet"):
        run(scripted.engine, suite("spoken", cluster=("planet",)), suites, tokenizer)


def test_hashes_are_those_of_another_process(scripted: Scripted, suites: Path, tokenizer: Path) -> None:
    scripted.script = right
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from datetime import UTC, datetime
from pathlib import Path
from evals.runner import run_suite
from steelyard.engines.base import Deployment, Engine
from steelyard.study import Suite
engine = Engine(deployment=Deployment(arm="x", engine="attach", model_name="demo", weights="", tokenizer="",
    chat_template=None, args={{}}, env={{}}, url=None, device="cpu", weights_digest=None, tokenizer_digest=None,
    template_digest=None), base_url={scripted.engine.base_url!r}, version=None, resolved={{}}, digest="d",
    started_at=datetime.now(UTC), start_s=0.0)
suite = Suite(name="s", task="both", category="accuracy", path="tasks", limit=9)
result = run_suite(engine, suite, run_id="r", seed=1, study_root=Path({str(suites)!r}), tokenizer={str(tokenizer)!r})
print(result.suite.documents_digest, *sorted(each.doc_hash + each.prompt_hash for each in result.samples))
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "STEELYARD_HOME": str(suites / "home")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    row, samples = run(scripted.engine, suite("both", limit=9), suites, tokenizer)
    mine = " ".join([row.documents_digest, *sorted(each.doc_hash + each.prompt_hash for each in samples)])
    assert outputs == {mine + "\n"}


def test_global_random_state_is_left_alone(scripted: Scripted, suites: Path, tokenizer: Path) -> None:
    scripted.script = right
    random.seed(5)
    before = random.getstate()
    run(scripted.engine, suite("spoken", limit=2), suites, tokenizer)
    assert random.getstate() == before


def test_failures_make_samples_missing_and_nothing_else(scripted: Scripted, suites: Path, tokenizer: Path) -> None:
    def script(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if thing(body) == "fire":
            return 400, {"error": {"message": "this prompt is refused"}}
        if thing(body) == "grass":
            return 500, {"error": {"message": "internal"}}
        return said("blue")

    scripted.script = script
    row, samples = run(scripted.engine, suite("spoken", limit=12), suites, tokenizer)
    failed = [each for each in samples if each.subgroup != "sky"]
    assert (row.documents, row.answered, row.mean_score) == (12, 12 - len(failed), 1.0)
    assert failed
    assert {(each.score, each.answer, each.finish_reason) for each in failed} == {(None, None, "error")}
    errors = {each.subgroup: each.error for each in failed}
    assert errors == {"fire": "HTTP 400: this prompt is refused", "grass": "HTTP 500: internal"}
    # A refused question is not asked again; one that broke the server is, twice.
    asked = [thing(body) for _, body in scripted.asked]
    assert asked.count("fire") == sum(each.subgroup == "fire" for each in failed)
    assert asked.count("grass") == 3 * sum(each.subgroup == "grass" for each in failed)


def test_a_question_that_failed_once_is_answered(scripted: Scripted, suites: Path, tokenizer: Path) -> None:
    seen: set[str] = set()

    def script(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        key = json.dumps(body["messages"])
        first = key not in seen
        seen.add(key)
        return (503, {}) if first else right(path, body)

    scripted.script = script
    row, _ = run(scripted.engine, suite("spoken", limit=3), suites, tokenizer)
    assert (row.answered, row.mean_score) == (3, 1.0)


def test_no_text_is_an_answer_and_is_scored(scripted: Scripted, suites: Path, tokenizer: Path) -> None:
    scripted.script = lambda path, body: said(None, "length")
    row, samples = run(scripted.engine, suite("spoken", limit=4), suites, tokenizer)
    assert (row.answered, row.mean_score) == (4, 0.0)
    assert {(each.answer, each.finish_reason, each.error) for each in samples} == {("", "length", None)}


def test_stop_strings_hold_even_where_the_engine_ignores_them(
    scripted: Scripted, suites: Path, tokenizer: Path
) -> None:
    scripted.script = lambda path, body: said(f"{COLORS[thing(body)]}\nwhat is")
    for concurrency in (1, 8):
        row, samples = run(scripted.engine, suite("spoken", limit=6), suites, tokenizer, concurrency=concurrency)
        assert row.mean_score == 1.0
        assert "what is" not in "".join(each.answer or "" for each in samples)
    assert {json.dumps(body["stop"]) for _, body in scripted.asked} == {'["\\n", "stop"]'}


def test_missing_log_probabilities_are_named(scripted: Scripted, suites: Path, tokenizer: Path) -> None:
    def without(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"choices": [{"index": n, "text": "", "logprobs": None} for n in range(len(body["prompt"]))]}

    def only_generated(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        lists = {"token_logprobs": [-0.1], "top_logprobs": [{"x": -0.1}]}
        return 200, {"choices": [{"index": n, "logprobs": lists} for n in range(len(body["prompt"]))]}

    for script in (without, only_generated):
        scripted.script = script
        row, samples = run(scripted.engine, suite("chosen", metric="acc"), suites, tokenizer)
        assert (row.answered, row.mean_score) == (0, None)
        assert all("echo and logprobs" in (each.error or "") for each in samples)


def test_a_prompt_that_does_not_fit_is_an_error_not_cut(scripted: Scripted, suites: Path, tokenizer: Path) -> None:
    scripted.script, scripted.max_model_len = right, 6
    row, samples = run(scripted.engine, suite("both", limit=None), suites, tokenizer)
    assert (row.answered, scripted.asked) == (0, [])
    assert all("does not fit the engine's 6" in (each.error or "") for each in samples)
    scripted.max_model_len = 64
    assert run(scripted.engine, suite("both"), suites, tokenizer).suite.answered == 33


def test_an_engine_that_cuts_prompts_in_silence_is_caught(scripted: Scripted, suites: Path, tokenizer: Path) -> None:
    words = "long " * 60
    (suites / "tasks" / "lengthy.jsonl").write_text(json.dumps({"question": words, "answer": "a"}) + "\n")
    (suites / "tasks" / "lengthy.yaml").write_text(
        "include: spoken.yaml\ntask: lengthy\ndataset_kwargs: {data_files: {test: lengthy.jsonl}}\n"
    )
    scripted.script = lambda path, body: said("a", prompt_tokens=32)
    _, samples = run(scripted.engine, suite("lengthy"), suites, tokenizer)
    assert "read 32 tokens of a prompt of at least 60" in (samples[0].error or "")


def test_a_dead_engine_raises(suites: Path, tokenizer: Path, tmp_path: Path) -> None:
    with (
        serve_fake(
            deployment("fake", "mortal", tokenizer, args={"crash_after": 5}),
            run_log_dir=tmp_path / "log",
            start_timeout_s=20,
        ) as fake,
        pytest.raises(CrashedWhileServing, match="mortal"),
    ):
        run(fake, suite("spoken"), suites, tokenizer, concurrency=4)


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("scor", "Did you mean score"),
        ("leak", "lower is better"),
        ("length", "goes to 3"),
    ],
)
def test_metrics_that_cannot_be_used(scripted: Scripted, suites: Path, tokenizer: Path, metric: str, says: str) -> None:
    scripted.script = lambda path, body: said("red")
    with pytest.raises(InputError, match=says):
        run(scripted.engine, suite("spoken", metric=metric), suites, tokenizer)


def test_a_metric_the_scorer_gives_without_declaring_it_counts(
    scripted: Scripted, suites: Path, tokenizer: Path
) -> None:
    scripted.script = right
    assert run(scripted.engine, suite("spoken", metric="undeclared"), suites, tokenizer).suite.mean_score == 0.5


def test_an_unusable_metric_is_refused_before_anything_is_asked(
    scripted: Scripted, suites: Path, tokenizer: Path
) -> None:
    with pytest.raises(InputError, match="score"):
        run(scripted.engine, suite("chosen", metric="score"), suites, tokenizer)
    assert scripted.asked == []
