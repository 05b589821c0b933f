"""The divergence screen against engines of known truth, and against those that cannot give what it needs."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from evals.divergence import NO_IDS, NO_TOPS, OTHER_TOKENS, Reference, diverge, most_logprobs, reference
from evals.divergence_kl import kl_at_least
from evals.divergence_prompts import Prompt, prompts_of, screen_problems, spread
from evals.runner import run_suite
from steelyard.engines.base import Engine
from steelyard.engines.fake import serve_fake
from steelyard.engines.fake_answers import likeliest
from steelyard.errors import InputError
from steelyard.records_quality import DivergenceRow
from steelyard.study import Suite
from tests.evals.conftest import Scripted, deployment

PROMPTS = [
    Prompt("spoken", f"{n:064x}", f"{n:064x}", ({"role": "user", "content": f"Question {n}?"},)) for n in range(12)
]
Serve = Callable[..., Engine]


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with one token a byte: any text survives ids and back."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("letters")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def serve(tmp_path: Path, letters: Path) -> Iterator[Serve]:
    lines = [{"question": f"Question {n}?", "answer": f"Answer {n}", "wrong": "Nobody"} for n in range(len(PROMPTS))]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with ExitStack() as engines:

        def start(arm: str = "baseline", tokenizer: Path = letters, **args: Any) -> Engine:
            wanted = deployment("fake", arm, tokenizer, args={"answers_file": str(answers), "ttft_s": 0.0, **args})
            return engines.enter_context(serve_fake(wanted, run_log_dir=tmp_path / "logs", start_timeout_s=30))

        yield start


def asked(engine: Engine, prompts: list[Prompt] = PROMPTS, **changes: Any) -> Reference:
    return reference(engine, prompts, **{"top_k": 5, "max_tokens": 16, **changes})


def rows(engine: Engine, known: Reference) -> list[DivergenceRow]:
    return diverge(engine, known, run_id="run-1")


def test_the_baseline_against_itself_is_the_floor(serve: Serve) -> None:
    baseline = serve()
    known = asked(baseline)
    assert [answer.error for answer in known.answers] == [None] * len(PROMPTS)
    found = rows(baseline, known)
    assert {row.kl_nats for row in found} == {0.0}
    assert {(row.top1_agreement, row.same_answer, row.first_divergent_token, row.error) for row in found} == {
        (1.0, True, None, None)
    }
    assert [row.tokens for row in found] == [len(f"Answer {n}") for n in range(len(PROMPTS))]
    assert all(row.covered == pytest.approx(0.9 + 0.1 * (1 - 0.5**4)) for row in found)


def test_an_arm_that_would_say_something_else_is_seen_where_it_would(serve: Serve) -> None:
    known = asked(serve())
    found = rows(serve("wrong", wrong_share=1.0), known)
    # "Nobody" for "Answer ...": they part at the first letter, and the arm then goes along with what it reads.
    base, arm = (dict(likeliest(ord(letter) - 33, k)) for letter, k in (("A", 5), ("N", 10)))
    expected = kl_at_least(base, {**arm, ord("A") - 33: -9.0}, 10)
    assert expected > 1
    for n, row in enumerate(found):
        tokens = len(f"Answer {n}")
        assert row.kl_nats_max == pytest.approx(expected, abs=1e-6)
        assert row.kl_nats == pytest.approx(expected / tokens, abs=1e-6)
        assert row.top1_agreement == pytest.approx(1 - 1 / tokens)
        assert (row.same_answer, row.first_divergent_token, row.bounded, row.error) == (False, 0, 4, None)
        assert (row.arm, row.top_k, row.baseline_digest) == ("wrong", 5, known.digest)


def test_a_wrong_share_shows_in_that_share_of_answers(serve: Serve) -> None:
    found = rows(serve("some", wrong_share=0.5), asked(serve()))
    changed = [row for row in found if not row.same_answer]
    assert 0 < len(changed) < len(found)
    assert all((row.kl_nats == 0) == bool(row.same_answer) for row in found)


def test_an_engine_without_token_ids_gives_no_figure(serve: Serve, tmp_path: Path) -> None:
    blind = serve("blind", tokenizer=tmp_path)
    for row in rows(blind, asked(serve())):
        assert (row.kl_nats, row.top1_agreement, row.first_divergent_token) == (None,) * 3
        # What it says can still be read.
        assert row.same_answer is True
        assert row.error == NO_TOPS
        assert row.tokens is not None
    unknown = asked(blind)
    assert {answer.error for answer in unknown.answers} == {NO_IDS}
    for row in rows(serve("arm"), unknown):
        assert (row.tokens, row.answer_hash, row.same_answer, row.kl_nats) == (None,) * 4
        assert row.error == f"the baseline: {NO_IDS}"


def test_another_tokenizer_is_not_compared(serve: Serve) -> None:
    known = dataclasses.replace(asked(serve()), tokenizer_digest="a")
    engine = serve("arm")
    other = dataclasses.replace(engine, deployment=dataclasses.replace(engine.deployment, tokenizer_digest="b"))
    (error,) = {row.error for row in rows(other, known)}
    assert error is not None
    assert "another tokenizer" in error


def test_the_arm_is_asked_for_more_tokens_where_it_admits_that(serve: Serve) -> None:
    engine = serve()

    def admits(**args: Any) -> Engine:
        return dataclasses.replace(engine, deployment=dataclasses.replace(engine.deployment, args=args))

    assert most_logprobs(engine, 5) == 10
    assert most_logprobs(engine, 20) == 20
    assert most_logprobs(admits(max_logprobs=100), 20) == 40
    assert most_logprobs(admits(max_logprobs=8), 5) == 8
    assert most_logprobs(admits(max_logprobs=-1), 20) == 40


def test_sixty_four_prompts_are_quick(serve: Serve) -> None:
    engine = serve()
    many = [dataclasses.replace(PROMPTS[n % 12], doc_hash=f"{n:064x}") for n in range(64)]
    started = time.perf_counter()
    assert len(rows(engine, asked(engine, many))) == 64
    assert time.perf_counter() - started < 15


# One prompt of ids 1, 2 and an answer of ids 3, 4, as a scripted engine tells it.
SAID = {"prompt_token_ids": [1, 2], "choices": [{"message": {"content": "x"}, "token_ids": [3, 4]}]}
TOPS = [None, *({f"token_id:{token}": -0.1, "token_id:7": -3.0} for token in (2, 3, 4, 9))]
ECHOED = {"tokens": [f"token_id:{token}" for token in (1, 2, 3, 4, 9)], "top_logprobs": TOPS}


def script(said: Any = SAID, logprobs: Any = ECHOED, **choice: Any) -> Callable[[str, dict[str, Any]], tuple[int, Any]]:
    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/chat/completions":
            return (200, said) if isinstance(said, dict) else said
        return 200, {"choices": [{"index": 0, "logprobs": logprobs, **choice}]}

    return answer


def one(scripted: Scripted, **changes: Any) -> DivergenceRow:
    """The single row of a sound reference against an engine that answers as `changes` say."""
    scripted.script = script()
    known = asked(scripted.engine, PROMPTS[:1])
    assert known.answers[0].error is None
    scripted.script = script(**changes)
    (row,) = rows(scripted.engine, known)
    return row


def test_it_asks_for_ids_and_teacher_forces_them(scripted: Scripted) -> None:
    row = one(scripted)
    assert (row.kl_nats, row.same_answer, row.error) == (0.0, True, None)
    chat, echo, again, own = scripted.asked
    assert chat[1]["return_token_ids"] is True
    assert chat[1]["temperature"] == 0
    assert "prompt" not in chat[1]
    assert echo[1]["prompt"] == again[1]["prompt"] == [[1, 2, 3, 4]]
    assert (echo[1]["logprobs"], again[1]["logprobs"]) == (5, 10)
    assert echo[1]["return_tokens_as_token_ids"] is True
    # The arm is forced first, then it generates: from its prefix cache, if it has one.
    assert own[0] == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"logprobs": None}, NO_TOPS),
        ({"logprobs": {**ECHOED, "tokens": ["a", "b", "c", "d"]}}, NO_TOPS),
        ({"logprobs": {**ECHOED, "tokens": ECHOED["tokens"][1:]}}, OTHER_TOKENS),
        ({"logprobs": {**ECHOED, "top_logprobs": TOPS[:3]}}, NO_TOPS),
        ({"logprobs": {**ECHOED, "top_logprobs": [None, *[{"the": -0.1}] * 4]}}, NO_TOPS),
        ({"logprobs": {**ECHOED, "top_logprobs": [None, *[{"token_id:3": math.nan}] * 4]}}, "no number"),
        ({"logprobs": {**ECHOED, "top_logprobs": [None, *[{"token_id:3": 2.0}] * 4]}}, "no number"),
        ({"index": 5}, "do not say whose they are"),
    ],
)
def test_log_probabilities_that_are_none_leave_the_generation(
    scripted: Scripted, changes: dict[str, Any], why: str
) -> None:
    row = one(scripted, **changes)
    assert why in (row.error or "")
    assert (row.kl_nats, row.kl_nats_max, row.top1_agreement, row.covered, row.bounded) == (None,) * 5
    assert (row.same_answer, row.tokens) == (True, 2)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"prompt_token_ids": None, "choices": [{"message": {"content": None}, "token_ids": [3]}]}, NO_IDS),
        ({"prompt_token_ids": [1], "choices": []}, "no choices"),
        ((400, {"error": {"message": "This model's maximum context length is 8"}}), "HTTP 400: This model's maximum"),
    ],
)
def test_a_generation_that_failed_leaves_the_divergence(scripted: Scripted, said: Any, why: str) -> None:
    row = one(scripted, said=said)
    assert why in (row.error or "")
    assert (row.same_answer, row.first_divergent_token) == (None, None)
    assert row.kl_nats == 0.0


@pytest.mark.parametrize(("text", "same"), [("x", True), ("somebody else's answer", False)])
def test_without_token_ids_answers_are_compared_by_their_text(scripted: Scripted, text: str, same: bool) -> None:
    cached = {"choices": [{"message": {"content": text}}]}
    row = one(scripted, said=cached)
    assert (row.kl_nats, row.same_answer, row.first_divergent_token, row.error) == (0.0, same, None, None)


def test_an_own_template_changes_the_answer_not_the_divergence(scripted: Scripted) -> None:
    other = {"prompt_token_ids": [8, 8, 8], "choices": [{"message": {"content": "y"}, "token_ids": [3, 5, 6]}]}
    row = one(scripted, said=other)
    assert (row.kl_nats, row.same_answer, row.first_divergent_token, row.error) == (0.0, False, 1, None)


def test_an_empty_answer_is_compared_as_an_answer_only(scripted: Scripted) -> None:
    empty = {"prompt_token_ids": [1, 2], "choices": [{"message": {"content": ""}, "token_ids": []}]}
    scripted.script = script(said=empty)
    known = asked(scripted.engine, PROMPTS[:1])
    assert known.answers[0].error is None
    (row,) = rows(scripted.engine, known)
    assert (row.tokens, row.kl_nats, row.same_answer, row.first_divergent_token) == (0, None, True, None)
    assert "answered no token" in (row.error or "")
    scripted.script = script()
    (row,) = rows(scripted.engine, known)
    assert (row.kl_nats, row.same_answer, row.first_divergent_token) == (None, False, 0)


def test_what_does_not_fit_is_named_and_not_cut(scripted: Scripted) -> None:
    scripted.script = script()
    known = asked(scripted.engine, PROMPTS[:1])
    scripted.max_model_len = 4
    (row,) = rows(scripted.engine, known)
    assert row.kl_nats is None
    assert "of 4 tokens do not fit the engine's 4" in (row.error or "")
    assert row.same_answer is True
    assert "do not fit" in str(asked(scripted.engine, PROMPTS[:1]).answers[0].error)


def suite(name: str, task: str, **more: Any) -> Suite:
    return Suite(name=name, task=task, category="accuracy", metric="score", path="tasks", **more)


def test_prompts_are_those_of_the_suites_spread_evenly(scripted: Scripted, suites: Path, tokenizer: Path) -> None:
    wanted = [suite("a", "spoken", limit=20), suite("b", "spoken"), suite("c", "chosen_scored")]
    found = prompts_of(wanted, 9, seed=3, study_root=suites)
    assert [sum(each.suite == name for each in found) for name in "abc"] == [5, 4, 0]
    assert found == prompts_of(wanted, 9, seed=3, study_root=suites)
    assert {each.doc_hash for each in found} != {
        each.doc_hash for each in prompts_of(wanted, 9, seed=4, study_root=suites)
    }
    scripted.script = lambda *_: (200, {"choices": [{"message": {"content": "red"}, "finish_reason": "stop"}]})
    _, samples = run_suite(
        scripted.engine, wanted[0], run_id="r", seed=3, study_root=suites, tokenizer=str(tokenizer)
    )  # fmt: skip
    known = {(each.doc_hash, each.prompt_hash): each.prompt for each in samples}
    mine = [each for each in found if each.suite == "a"]
    assert all(each.messages[-1]["content"] == known[each.doc_hash, each.prompt_hash] for each in mine)


def test_a_study_that_generates_nothing_has_no_prompts(suites: Path) -> None:
    with pytest.raises(InputError, match="no suite of the study generates"):
        prompts_of([suite("c", "chosen_scored")], 9, seed=3, study_root=suites)


def test_the_screen_is_checked_only_if_asked_for(suites: Path) -> None:
    class Asked:
        divergence: object = None
        suites = (suite("c", "chosen_scored"),)
        seed = 1

    study: Any = Asked()
    assert screen_problems(study, suites) == []
    study.divergence = object()
    (problem,) = screen_problems(study, suites)
    assert "no suite of the study generates" in problem


@pytest.mark.parametrize(
    ("count", "room", "shares"),
    [
        (9, {"a": 20, "b": 20}, {"a": 5, "b": 4}),
        (9, {"a": 2, "b": 20}, {"a": 2, "b": 7}),
        (9, {"a": 1, "b": 3}, {"a": 1, "b": 3}),
        (2, {"a": 9, "b": 9, "c": 9}, {"a": 1, "b": 1, "c": 0}),
    ],
)
def test_spread(count: int, room: dict[str, int], shares: dict[str, int]) -> None:
    assert spread(count, room) == shares
