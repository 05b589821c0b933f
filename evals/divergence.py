"""Divergence of an arm from the baseline, through the served engine: a screen that may reject and never promotes.

Two questions, because neither sees what the other does:

- **Teacher forcing** (`kl_nats`, `top1_agreement`): the baseline's own answers are read by the arm as prompts, token id
  for token id, and both sides' next-token distributions are compared at every position of the answer. The prompt's ids
  are the baseline's too, so another chat template or a client that shortens prompts changes nothing here: this is the
  model alone, its weights, activations and arithmetic. It is one prefill: vLLM then neither reads the prefix cache
  (`skip_reading_prefix_cache` for prompt log-probabilities), nor speculates, nor decodes, and a backend that attends to
  fresh keys and values in prefill does not show what a compressed KV cache loses.
- **Generation** (`same_answer`, `first_divergent_token`): the arm answers the same messages greedily by its own chat
  route: with its own template, cache, speculation and decoding. That is what shows a wrong template. Greedy answers
  part for good at the first near-tie, so even the identity control may differ; it is the floor. Answers are compared by
  token ids; where something on the way to the engine tells none (an answer cache does not), by their text.

An arm is teacher-forced before it generates, so that its prompts stand in its prefix cache (if it has one) and the
generation reads them from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.divergence_kl import Tops, first_difference, over_answer
from evals.divergence_prompts import Prompt
from evals.transport import Question, Reply, Transport
from steelyard.digest import digest
from steelyard.engines.base import Engine
from steelyard.records_quality import DivergenceRow

MAX_LOGPROBS = 20
"""vLLM's default of `max_logprobs`: how many tokens one may ask for at a position."""
PROMPTS_PER_REQUEST = 8
ERROR_CHARACTERS = 500
ID = "token_id:"
NO_IDS = (
    "the engine returned no token ids of its answer; vLLM does (return_token_ids of /v1/chat/completions), and nothing "
    "else can be teacher-forced"
)
NO_TOPS = (
    "the engine returned no log-probabilities by token id; vLLM does (/v1/completions with echo, logprobs and "
    "return_tokens_as_token_ids)"
)
OTHER_TOKENS = "the engine echoed other tokens than it was sent: something on the way cut or changed the prompt"
NO_NUMBER = "the engine returned a log-probability that is no number: its arithmetic overflows"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the baseline said to one prompt, and how sure it was: ids, text, and the likeliest tokens at each position.

    `error` is why nothing can be compared with it; ids and tops are then empty.
    """

    prompt: Prompt
    prompt_ids: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    tops: tuple[Tops, ...] = ()
    text: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """The baseline's answers to all prompts, in their order, and how it was asked."""

    digest: str
    tokenizer_digest: str | None
    top_k: int
    max_tokens: int
    seed: int
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class _Said:
    """A greedy answer by token ids, or why there is none. A cache on the way may tell the text alone."""

    prompt_ids: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    text: str | None = None
    error: str | None = None


def reference(
    engine: Engine, prompts: Sequence[Prompt], *, top_k: int, max_tokens: int, seed: int = 0, concurrency: int = 16,
    timeout_s: float = 300.0,
) -> Reference:  # fmt: skip
    """Ask the baseline every prompt greedily, `max_tokens` at most, then teacher-force it on its own answers.

    Keeps the log-probabilities of its `top_k` likeliest tokens at every position of every answer. A prompt that cannot
    be asked, or that with its answer does not fit the engine, is an `Answer` with an error; nothing is cut.
    `timeout_s` bounds one request, in seconds. Raises EngineError if the engine is dead or hung. Not for use inside a
    running event loop.
    """
    transport = Transport(engine, concurrency=concurrency, timeout_s=timeout_s)
    said = _generate(transport, prompts, max_tokens, seed)
    forced = _force(transport, [(each.prompt_ids, each.ids) for each in said], top_k)
    answers = []
    for prompt, mine, tops in zip(prompts, said, forced, strict=True):
        error = mine.error or (tops if isinstance(tops, str) else None)
        known = () if isinstance(tops, str) else tuple(tops)
        answers.append(
            Answer(prompt, error=error)
            if error is not None
            else Answer(prompt, mine.prompt_ids, mine.ids, known, text=mine.text)
        )
    return Reference(
        digest=engine.digest, tokenizer_digest=engine.deployment.tokenizer_digest, top_k=top_k, max_tokens=max_tokens,
        seed=seed, answers=tuple(answers),
    )  # fmt: skip


def diverge(
    engine: Engine, reference: Reference, *, run_id: str, concurrency: int = 16, timeout_s: float = 300.0
) -> list[DivergenceRow]:
    """A row for every prompt of the reference: how far `engine` is from the baseline there.

    The arm is asked for twice as many tokens as the baseline where its `max_logprobs` admits that (vLLM's default is
    20), so that few of the baseline's are missing; those that are, are bounded (`divergence_kl.kl_at_least`). What
    cannot be measured is None with a reason in `error`, never a number: engines without token ids or log-probabilities
    of the prompt, prompts that do not fit, another tokenizer, a baseline that has no answer itself. Errors and other
    arguments as in `reference`.
    """
    transport = Transport(engine, concurrency=concurrency, timeout_s=timeout_s)
    answers = reference.answers
    mine, theirs = engine.deployment.tokenizer_digest, reference.tokenizer_digest
    alien = None
    if mine is not None and theirs is not None and mine != theirs:
        alien = "the arm has another tokenizer than the baseline: its token ids mean other texts"
    asked = [answer.error is None and alien is None for answer in answers]
    k = most_logprobs(engine, reference.top_k)
    forced = iter(_force(transport, _only(asked, [(each.prompt_ids, each.ids) for each in answers]), k))
    prompts = _only(asked, [answer.prompt for answer in answers])
    said = iter(_generate(transport, prompts, reference.max_tokens, reference.seed))
    rows = []
    for answer, was_asked in zip(answers, asked, strict=True):
        if was_asked:
            rows.append(_row(run_id, engine, reference, answer, k, next(forced), next(said)))
        else:
            why = alien if answer.error is None else f"the baseline: {answer.error}"
            rows.append(_row(run_id, engine, reference, answer, k, why or "", _Said(error=why)))
    return rows


def most_logprobs(engine: Engine, top_k: int) -> int:
    """How many tokens to ask an arm for: twice the baseline's, within what the deployment admits; never fewer."""
    limit = engine.deployment.args.get("max_logprobs", MAX_LOGPROBS)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        return 2 * top_k
    return max(top_k, min(2 * top_k, limit))


def _only(wanted: Sequence[bool], items: Sequence[Any]) -> list[Any]:
    return [item for item, keep in zip(items, wanted, strict=True) if keep]


def _generate(transport: Transport, prompts: Sequence[Prompt], max_tokens: int, seed: int) -> list[_Said]:
    """Greedy answers by the chat route, as token ids."""
    questions = [
        Question("/v1/chat/completions", _chat(transport.engine.model_name, prompt, max_tokens, seed))
        for prompt in prompts
    ]
    return [_said(reply) for reply in transport.ask(questions)] if questions else []


def _chat(model: str, prompt: Prompt, max_tokens: int, seed: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model, "messages": list(prompt.messages), "max_tokens": max_tokens, "temperature": 0, "seed": seed,
        "return_token_ids": True,
    }  # fmt: skip
    if prompt.messages[-1]["role"] == "assistant":
        # The task gives the beginning of the answer: it is to be continued, not answered.
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    return body


def _said(reply: Reply) -> _Said:
    if reply.data is None:
        return _Said(error=reply.error or "no answer")
    try:
        choice = reply.data["choices"][0]
        prompt_ids, ids = reply.data.get("prompt_token_ids"), choice.get("token_ids")
    except (KeyError, IndexError, TypeError, AttributeError):
        return _Said(error="the answer has no choices")
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    text = content if isinstance(content, str) else None
    if not _are_ids(prompt_ids) or not prompt_ids or not _are_ids(ids):
        return _Said(text=text, error=NO_IDS)
    return _Said(tuple(prompt_ids), tuple(ids), text)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in value)


def _force(
    transport: Transport, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], k: int
) -> list[Sequence[Tops] | str]:
    """The `k` likeliest tokens at each position of each answer after its prompt, or why they are unknown.

    A pair without an answer has no positions, and is not asked.
    """
    limit = transport.max_model_len() if any(ids for _, ids in pairs) else None
    found: dict[int, Sequence[Tops] | str] = {}
    fitting = []
    for n, (prompt_ids, ids) in enumerate(pairs):
        # One token must be generated for the prompt to be echoed.
        tokens = len(prompt_ids) + len(ids) + 1
        if not ids:
            found[n] = ()
        elif limit is not None and tokens > limit:
            found[n] = f"prompt and answer of {tokens - 1} tokens do not fit the engine's {limit}; nothing was cut"
        else:
            fitting.append(n)
    batches = [fitting[start : start + PROMPTS_PER_REQUEST] for start in range(0, len(fitting), PROMPTS_PER_REQUEST)]
    questions = [
        _echo(transport.engine.model_name, [[*pairs[n][0], *pairs[n][1]] for n in batch], k) for batch in batches
    ]
    for batch, reply in zip(batches, transport.ask(questions) if questions else [], strict=True):
        found |= zip(batch, _tops(reply, [pairs[n] for n in batch]), strict=True)
    return [found[n] for n in range(len(pairs))]


def _echo(model: str, prompts: list[list[int]], k: int) -> Question:
    return Question(
        "/v1/completions",
        {
            "model": model, "prompt": prompts, "max_tokens": 1, "temperature": 0, "logprobs": k, "echo": True,
            "return_tokens_as_token_ids": True,
        },
    )  # fmt: skip


def _tops(reply: Reply, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[Sequence[Tops] | str]:
    if reply.data is None:
        return [reply.error or "no answer"] * len(pairs)
    choices = reply.data.get("choices")
    if not isinstance(choices, list) or len(choices) != len(pairs):
        return [f"{len(pairs)} prompts in one request got {len(choices or [])} choices"] * len(pairs)
    by_index = {choice.get("index"): choice for choice in choices if isinstance(choice, dict)}
    if set(by_index) != set(range(len(pairs))):
        return [f"{len(pairs)} prompts in one request got choices that do not say whose they are"] * len(pairs)
    return [_of_choice(by_index[n], *pair) for n, pair in enumerate(pairs)]


def _of_choice(choice: Mapping[str, Any], prompt_ids: tuple[int, ...], ids: tuple[int, ...]) -> Sequence[Tops] | str:
    """The tops over the answer's positions, once the echoed tokens are seen to be the very ones sent."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return NO_TOPS
    tokens, tops = logprobs.get("tokens") or [], logprobs.get("top_logprobs") or []
    if not tokens or not all(isinstance(each, str) and each.startswith(ID) for each in tokens):
        return NO_TOPS
    sent = [f"{ID}{token}" for token in (*prompt_ids, *ids)]
    # After the prompt's tokens comes the one that had to be generated; some engines leave it out.
    if tokens[: len(sent)] != sent or len(tokens) > len(sent) + 1:
        return OTHER_TOKENS
    mine = tops[len(prompt_ids) : len(sent)]
    if len(mine) != len(ids) or not all(isinstance(top, dict) and top for top in mine):
        return NO_TOPS
    found = []
    for top in mine:
        values: dict[int, float] = {}
        for key, value in top.items():
            number = key.removeprefix(ID)
            if number == key or not number.isdigit() or isinstance(value, bool) or not isinstance(value, (int, float)):
                return NO_TOPS
            values[int(number)] = float(value)
        if any(not math.isfinite(value) or value > 1e-3 for value in values.values()):
            return NO_NUMBER
        found.append(values)
    return found


def _row(
    run_id: str, engine: Engine, reference: Reference, answer: Answer, k: int, tops: Sequence[Tops] | str, said: _Said
) -> DivergenceRow:
    known = answer.error is None
    result = None if isinstance(tops, str) or not known else over_answer(answer.tops, tops, k)
    reasons = [tops] if isinstance(tops, str) else []
    if known and not answer.ids:
        reasons.append("the baseline answered no token, so there is no position to compare")
    spoke = known and said.error is None
    # Without token ids there is no first differing token, but other words are another answer all the same.
    by_text = None if said.text is None or answer.text is None else said.text == answer.text
    if said.error is not None and said.error not in reasons and by_text is None:
        reasons.append(said.error)
    return DivergenceRow(
        run_id=run_id, arm=engine.arm, suite=answer.prompt.suite, doc_hash=answer.prompt.doc_hash,
        prompt_hash=answer.prompt.prompt_hash, deployment_digest=engine.digest, baseline_digest=reference.digest,
        answer_hash=digest([answer.prompt_ids, answer.ids]) if known else None,
        tokens=len(answer.ids) if known else None, top_k=reference.top_k,
        covered=result.covered if result else None, bounded=result.bounded if result else None,
        kl_nats=result.kl_nats if result else None, kl_nats_max=result.kl_nats_max if result else None,
        top1_agreement=result.top1_agreement if result else None,
        same_answer=said.ids == answer.ids if spoke else by_text,
        first_divergent_token=first_difference(answer.ids, said.ids) if spoke else None,
        error="; ".join(reasons)[:ERROR_CHARACTERS] or None,
    )  # fmt: skip
