"""The player decides who is in a step as the engine's scheduler does."""

from __future__ import annotations

import pytest

from steelyard.profiling.drafts import draft, replay
from steelyard.profiling.play import Asked, Scheduler, play
from steelyard.profiling.step_model import Batch

MANY = Scheduler(max_sequences=64, max_tokens=2048)


def asked(count: int, prompt: int = 8, output: int = 4, shared: int = 0) -> list[Asked]:
    return [
        Asked(
            prompt=tuple([-1] * shared + [1000 * index + place for place in range(prompt - shared)]),
            output_tokens=output,
        )
        for index in range(count)
    ]


def unit(batch: Batch) -> float:
    return 1.0


def test_one_request_reads_once_and_decodes_the_rest() -> None:
    found = play(asked(1), MANY, unit, concurrency=1)
    assert [(each.context_tokens, each.generation_tokens) for each in found.batches] == [(8, 0), (0, 1), (0, 1), (0, 1)]
    assert found.batches[0].context_pairs == 36
    assert [each.generation_pairs for each in found.batches[1:]] == [9, 10, 11]
    assert found.duration_s == 4.0


def test_seats_limit_who_runs() -> None:
    few = play(asked(8), Scheduler(max_sequences=2, max_tokens=2048), unit, concurrency=8)
    many = play(asked(8), MANY, unit, concurrency=8)
    assert len(few.batches) == 16
    assert len(many.batches) == 4
    assert max(each.requests for each in few.batches) == 2
    assert few.duration_s == 4 * many.duration_s


def test_a_budget_cuts_prompts_or_keeps_them_waiting() -> None:
    cut = play(asked(2, prompt=12), Scheduler(max_sequences=8, max_tokens=8), unit, concurrency=2)
    assert [each.context_tokens for each in cut.batches][:3] == [8, 8, 7]
    assert all(each.tokens <= 8 for each in cut.batches)
    whole = play(asked(2, prompt=6), Scheduler(max_sequences=8, max_tokens=8, chunked=False), unit, concurrency=2)
    assert [each.context_tokens for each in whole.batches][:2] == [6, 6]
    with pytest.raises(ValueError, match="longer than a step"):
        play(asked(1, prompt=9), Scheduler(max_sequences=8, max_tokens=8, chunked=False), unit, concurrency=1)


def test_a_known_beginning_is_not_computed_again() -> None:
    cached = Scheduler(max_sequences=1, max_tokens=2048, block_size=4)
    found = play(asked(3, prompt=12, shared=8), cached, unit, concurrency=1)
    assert found.cached_tokens == 16
    assert [each.context_tokens for each in found.batches if each.context_tokens] == [12, 4, 4]
    # The last token of a prompt is computed even if all of it is known.
    same = [Asked(prompt=tuple(range(8)), output_tokens=1)] * 2
    assert play(same, cached, unit, concurrency=1).cached_tokens == 4
    assert play(asked(3, prompt=12, shared=8), MANY, unit, concurrency=1).cached_tokens == 0


def test_arrivals_wait_for_nobody() -> None:
    late = [Asked(prompt=(1, 2), output_tokens=2, due_s=due) for due in (0.0, 10.0)]
    found = play(late, MANY, unit, concurrency=None)
    assert found.duration_s == 12.0


def test_drafts_emit_several_tokens_a_step() -> None:
    spoken = Asked(prompt=(1, 2, 3), output_tokens=7, drafts=((4, 3), (0, 1)))
    found = play([spoken], MANY, unit, concurrency=1)
    assert [each.generation_tokens for each in found.batches] == [0, 5, 1, 5]
    assert sum(each.generation_requests for each in found.batches) == 3


def test_nothing_to_play_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to play"):
        play([], MANY, unit, concurrency=1)


def test_drafts_follow_the_longest_ngram_that_occurred_before() -> None:
    assert draft([5, 6, 7, 8, 5, 6], 2, 2, 3) == [7, 8]
    assert draft([1, 2, 9, 1, 3, 2, 9], 3, 1, 2) == [1, 3, 2]
    assert draft([1, 2, 3], 4, 2, 4) == []
    assert draft([1], 4, 1, 4) == []


def test_an_answer_that_repeats_is_drafted_and_accepted() -> None:
    steps = replay((1, 2, 3, 4), (1, 2, 3, 4, 1, 2, 3, 4), count=3, least=1, most=3)
    assert sum(emitted for _, emitted in steps) == 7
    assert steps[0] == (3, 4)
    alone = replay((1, 2, 3), (9, 8, 7), count=3, least=2, most=3)
    assert alone == ((0, 1), (0, 1))
    assert replay((1, 2), (3,), count=2, least=1, most=2) == ()
