"""A load point played through a model of the engine: which requests each step takes, and how long it takes for them.

The scheduler is vLLM's V1: requests that run come first, then waiting ones in order of arrival while there are seats
and tokens left; a prompt is cut where the budget of a step ends, unless chunked prefill is off; the step that reads the
last token of a prompt gives the first token of the answer. Memory is taken to suffice, and answering costs no time
beyond what the steps were measured to take.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from steelyard.profiling.step_model import Batch

MAX_STEPS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """What decides who is in a step. `block_size` is None without prefix caching."""

    max_sequences: int
    max_tokens: int
    chunked: bool = True
    block_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request: its prompt's token ids, tokens to generate, when it is due (0 in a closed loop), and, where drafts
    are verified, (drafted, emitted) tokens of each of its decoding steps.
    """

    prompt: tuple[int, ...]
    output_tokens: int
    due_s: float = 0.0
    drafts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What came out: seconds, the batch of each step, and the mean requests in one, weighted by time.

    `cached_tokens` were not computed because an earlier prompt began alike.
    """

    duration_s: float
    batches: tuple[Batch, ...]
    sequences: float
    cached_tokens: int
    prompt_tokens: int


@dataclass(slots=True)
class _Running:
    asked: Asked
    sent_s: float
    computed: int
    emitted: int = 0
    decodes: int = 0


@dataclass(slots=True)
class _Cache:
    block_size: int | None
    blocks: set[tuple[int, int]] = field(default_factory=set)

    def hits(self, prompt: tuple[int, ...]) -> int:
        """Tokens of the prompt's beginning that are known; the last token is always computed."""
        if self.block_size is None:
            return 0
        found = 0
        for end in range(self.block_size, len(prompt), self.block_size):
            if (end, hash(prompt[:end])) not in self.blocks:
                break
            found = end
        return found

    def learn(self, prompt: tuple[int, ...], before: int, computed: int) -> None:
        """Note blocks that a step completed: those between so many tokens computed before and after."""
        if self.block_size is not None:
            first = (before // self.block_size + 1) * self.block_size
            for end in range(first, min(computed, len(prompt)) + 1, self.block_size):
                self.blocks.add((end, hash(prompt[:end])))


def play(
    requests: Sequence[Asked], scheduler: Scheduler, cost: Callable[[Batch], float], *, concurrency: int | None
) -> Played:
    """Play the requests: `concurrency` at once, in order, or each when it is due. `cost` is a step's seconds.

    Raises ValueError if there are none, or if a prompt does not fit into a step that must take it whole.
    """
    if not requests:
        raise ValueError("there is nothing to play")
    if not scheduler.chunked and max(len(each.prompt) for each in requests) > scheduler.max_tokens:
        raise ValueError("a prompt is longer than a step may be")
    clock, busy, cached, weighted = 0.0, 0.0, 0, 0.0
    batches: list[Batch] = []
    cache = _Cache(scheduler.block_size)
    coming: list[tuple[float, int]] = []
    ahead = list(range(len(requests)))
    if concurrency is None:
        coming = [(each.due_s, index) for index, each in enumerate(requests)]
        heapq.heapify(coming)
        ahead = []
    else:
        coming = [(0.0, ahead.pop(0)) for _ in range(min(concurrency, len(requests)))]
    waiting: list[tuple[float, Asked]] = []
    running: list[_Running] = []
    while coming or waiting or running:
        if not running and not waiting and coming[0][0] > clock:
            clock = coming[0][0]
        while coming and coming[0][0] <= clock:
            at, index = heapq.heappop(coming)
            waiting.append((at, requests[index]))
        planned = _plan(scheduler, running)
        left = scheduler.max_tokens - sum(tokens for _, tokens in planned)
        while waiting and len(running) < scheduler.max_sequences and left > 0:
            sent_s, asked = waiting[0]
            known = cache.hits(asked.prompt)
            needed = len(asked.prompt) - known
            if needed > left and not scheduler.chunked:
                break
            waiting.pop(0)
            cached += known
            one, tokens = _Running(asked, sent_s, known), min(needed, left)
            # As the engine does: whoever is planned after it in the same step finds its blocks already.
            cache.learn(asked.prompt, known, known + tokens)
            running.append(one)
            planned.append((one, tokens))
            left -= tokens
        batch = _batch(planned)
        took = cost(batch)
        clock, busy, weighted = clock + took, busy + took, weighted + took * batch.requests
        batches.append(batch)
        for one, tokens in planned:
            _advance(one, tokens, cache)
            if one.emitted >= one.asked.output_tokens:
                running.remove(one)
                if ahead:
                    heapq.heappush(coming, (clock, ahead.pop(0)))
        if len(batches) > MAX_STEPS:
            raise ValueError(f"not played to its end in {MAX_STEPS} steps")
    return Played(
        duration_s=clock - min(each.due_s for each in requests), batches=tuple(batches),
        sequences=weighted / busy if busy else 0.0, cached_tokens=cached,
        prompt_tokens=sum(len(each.prompt) for each in requests),
    )  # fmt: skip


def _plan(scheduler: Scheduler, running: Sequence[_Running]) -> list[tuple[_Running, int]]:
    """Those that run, and how many tokens each computes; who finds no room waits for the next step."""
    left, planned = scheduler.max_tokens, []
    for one in running:
        missing = len(one.asked.prompt) - one.computed
        tokens = min(left, missing if missing > 0 else 1 + _draft(one)[0])
        if tokens > 0:
            planned.append((one, tokens))
            left -= tokens
    return planned


def _draft(one: _Running) -> tuple[int, int]:
    """(drafted, emitted) of a request's next decoding step."""
    drafts = one.asked.drafts
    return drafts[one.decodes % len(drafts)] if drafts else (0, 1)


def _batch(planned: Sequence[tuple[_Running, int]]) -> Batch:
    context = [(one, tokens) for one, tokens in planned if one.emitted == 0]
    generation = [(one, tokens) for one, tokens in planned if one.emitted]
    return Batch(
        context_requests=len(context),
        context_tokens=sum(tokens for _, tokens in context),
        context_pairs=sum(tokens * (one.computed + (tokens + 1) / 2) for one, tokens in context),
        generation_requests=len(generation),
        generation_tokens=sum(tokens for _, tokens in generation),
        generation_pairs=float(
            sum(tokens * (len(one.asked.prompt) + one.emitted) for one, tokens in generation)
        ),
    )  # fmt: skip


def _advance(one: _Running, tokens: int, cache: _Cache) -> None:
    if one.emitted:
        one.emitted += min(_draft(one)[1], tokens)
        one.decodes += 1
        return
    cache.learn(one.asked.prompt, one.computed, one.computed + tokens)
    one.computed += tokens
    if one.computed >= len(one.asked.prompt):
        one.emitted = 1
