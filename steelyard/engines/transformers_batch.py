"""Static batching around transformers' `generate`, in one thread: a batch runs until its longest request is done."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

BATCH_WAIT_S = 0.002


@dataclass(slots=True, kw_only=True)
class Job:
    """One prompt. `emit` is called from the batching thread with events; the last has a `finish_reason`.

    `score` asks for the log-probabilities of the prompt (and of one more token if `max_tokens` is 1) instead of text.
    """

    prompt: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    ignore_eos: bool
    score: bool
    emit: Callable[[dict[str, Any]], None]
    tokens: list[int] = field(default_factory=list)
    sent: str = ""
    done: bool = False

    @property
    def kind(self) -> tuple[Any, ...]:
        """Jobs of one kind can share a batch."""
        return (self.score, self.temperature, self.top_p, self.seed)


@dataclass(slots=True)
class Counters:
    """What `/metrics` tells. Counts since the start."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    requests: int = 0
    batches: int = 0
    running: int = 0


class Batcher:
    """Takes jobs from a queue, up to `max_batch_size` of one kind, and runs them together."""

    def __init__(self, model: Any, tokenizer: Any, max_batch_size: int) -> None:
        self.model, self.tokenizer, self.max_batch_size = model, tokenizer, max_batch_size
        eos = model.generation_config.eos_token_id
        self.eos = {eos} if isinstance(eos, int) else set(eos or ())
        # `generate` fills what a call leaves out from here, and would end batches at a token we were told to ignore.
        model.generation_config.eos_token_id = None
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self.queue: queue.Queue[Job] = queue.Queue()
        self.waiting: list[Job] = []
        self.counters = Counters()
        threading.Thread(target=self._work, name="batcher", daemon=True).start()

    def _work(self) -> None:
        while True:
            batch = self._next_batch()
            self.counters.running = len(batch)
            self.counters.batches += 1
            try:
                if batch[0].score:
                    self._score(batch)
                else:
                    self._generate(batch)
            except Exception as error:  # noqa: BLE001 - one bad batch must not end the engine
                for job in batch:
                    job.emit({"error": f"{type(error).__name__}: {error}"})
                    job.done = True
            for job in batch:
                if not job.done:
                    job.emit({"error": "generation ended before the request was done"})
            self.counters.running = 0

    def _next_batch(self) -> list[Job]:
        if not self.waiting:
            self.waiting.append(self.queue.get())
        while True:
            try:
                self.waiting.append(self.queue.get(timeout=BATCH_WAIT_S))
            except queue.Empty:
                break
        kind = self.waiting[0].kind
        batch = [job for job in self.waiting if job.kind == kind][: self.max_batch_size]
        self.waiting = [job for job in self.waiting if job not in batch]
        return batch

    def _padded(self, jobs: Sequence[Job], *, left: bool) -> tuple[Any, Any]:
        import torch

        width = max(len(job.prompt) for job in jobs)
        ids = torch.full((len(jobs), width), self.pad, dtype=torch.long)
        mask = torch.zeros((len(jobs), width), dtype=torch.long)
        for row, job in enumerate(jobs):
            where = slice(width - len(job.prompt), width) if left else slice(0, len(job.prompt))
            ids[row, where] = torch.tensor(job.prompt)
            mask[row, where] = 1
        return ids.to(self.model.device), mask.to(self.model.device)

    def _generate(self, jobs: list[Job]) -> None:
        import torch
        from transformers import GenerationConfig, StoppingCriteriaList

        ids, mask = self._padded(jobs, left=True)
        sampling: dict[str, Any] = {"do_sample": False}
        if jobs[0].temperature > 0:
            sampling = {"do_sample": True, "temperature": jobs[0].temperature, "top_p": jobs[0].top_p, "top_k": 0}
            if jobs[0].seed is not None:
                torch.manual_seed(jobs[0].seed)
        config = GenerationConfig(
            max_new_tokens=max(job.max_tokens for job in jobs), pad_token_id=self.pad, eos_token_id=None, **sampling
        )
        with torch.inference_mode():
            self.model.generate(
                input_ids=ids, attention_mask=mask, generation_config=config, streamer=_Streamer(self, jobs),
                stopping_criteria=StoppingCriteriaList([_Done(jobs)]),
            )  # fmt: skip

    def token(self, job: Job, token: int) -> None:
        """A request got a token: tell what text it adds, and whether it is the last."""
        job.tokens.append(token)
        self.counters.generation_tokens += 1
        at_end = token in self.eos and not job.ignore_eos
        text = self.tokenizer.decode(job.tokens[:-1] if at_end else job.tokens, skip_special_tokens=True)
        stops = [found for found in (text.find(stop) for stop in job.stop if stop) if found >= 0]
        finish = "stop" if at_end or stops else "length" if len(job.tokens) >= job.max_tokens else None
        if stops:
            text = text[: min(stops)]
        # Half a character, and what may become a stop string, wait for the next token.
        keep = 0 if finish else max(_overlap(text, job.stop), 1 if text.endswith("�") else 0)
        added = text[len(job.sent) : len(text) - keep]
        job.sent += added
        job.done = finish is not None
        if finish:
            self.counters.requests += 1
            self.counters.prompt_tokens += len(job.prompt)
        job.emit({"text": added, "token": token, "finish_reason": finish})

    def _score(self, jobs: list[Job]) -> None:
        import torch

        ids, mask = self._padded(jobs, left=False)
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=mask).logits
            for row, job in enumerate(jobs):
                table = torch.log_softmax(logits[row, : len(job.prompt)].float(), dim=-1)
                best, best_ids = table.max(dim=-1)
                given = table[:-1].gather(1, torch.tensor(job.prompt[1:]).unsqueeze(1).to(table.device)).squeeze(1)
                top: list[dict[int, float] | None] = [None]
                for place, token in enumerate(job.prompt[1:]):
                    top.append({int(best_ids[place]): float(best[place]), token: float(given[place])})
                logprobs: list[float | None] = [None, *given.tolist()]
                tokens = list(job.prompt)
                if job.max_tokens:
                    tokens.append(int(best_ids[-1]))
                    logprobs.append(float(best[-1]))
                    top.append({int(best_ids[-1]): float(best[-1])})
                    self.counters.generation_tokens += 1
                self.counters.requests += 1
                self.counters.prompt_tokens += len(job.prompt)
                job.done = True
                job.emit({"tokens": tokens, "logprobs": logprobs, "top": top, "finish_reason": "length"})


def _overlap(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins a stop string."""
    lengths = [size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])]
    return max(lengths, default=0)


class _Streamer:
    """`generate` puts the prompts first, then one token a row and step."""

    def __init__(self, batcher: Batcher, jobs: list[Job]) -> None:
        self.batcher, self.jobs, self.prompts_seen = batcher, jobs, False

    def put(self, value: Any) -> None:
        if not self.prompts_seen:
            self.prompts_seen = True
            return
        for job, token in zip(self.jobs, value.tolist(), strict=True):
            if not job.done:
                self.batcher.token(job, token)

    def end(self) -> None:
        """Nothing is held back."""


class _Done:
    """Stops `generate` once every row is done; rows done earlier are computed on, as static batches are."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs

    def __call__(self, input_ids: Any, *_: Any, **__: Any) -> Any:
        import torch

        return torch.tensor([job.done for job in self.jobs], device=input_ids.device)
