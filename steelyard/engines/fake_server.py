"""The HTTP side of the fake engine, in its own process. Tests only; see `steelyard.engines.fake`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from steelyard.engines.fake import VERSION, Behaviour
from steelyard.engines.fake_answers import Answers, Tokens, filler, logprobs_by_id, share

HISTOGRAMS = (
    "request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
    "time_to_first_token_seconds", "e2e_request_latency_seconds",
)  # fmt: skip
COUNTERS = (
    "prompt_tokens", "generation_tokens", "prefix_cache_queries", "prefix_cache_hits", "request_success",
)  # fmt: skip


@dataclass(slots=True)
class Asked:
    """One request as understood: what is said of it, and how many tokens it costs."""

    prompt: str
    tokens: list[Any]
    words: list[str]
    finish: str
    created: float


class FakeEngine:
    """State and behaviour of one fake: its queue, its prefix cache, its counters."""

    def __init__(self, behaviour: Behaviour, model: str, tokenizer: Path | None) -> None:
        self.behaviour = behaviour
        self.model = model if not behaviour.wrong_model else f"not-{model}"
        self.tokens = Tokens(tokenizer)
        self.answers = Answers(behaviour)
        self.seats = asyncio.Semaphore(behaviour.max_num_seqs)
        self.random = random.Random(behaviour.jitter_seed)
        self.weather = float(Path(behaviour.weather).read_text()) if behaviour.weather else 1.0
        self.cached: set[int] = set()
        self.counted = 0
        self.running = self.waiting = 0
        self.counters = dict.fromkeys(COUNTERS, 0.0)
        self.sums = dict.fromkeys(HISTOGRAMS, 0.0)
        self.counts = dict.fromkeys(HISTOGRAMS, 0)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20)
        app.add_routes([
            web.get("/health", self.health), web.get("/version", self.version), web.get("/metrics", self.metrics),
            web.get("/server_info", self.server_info), web.get("/v1/models", self.models),
            web.post("/reset_prefix_cache", self.reset), web.post("/v1/completions", self.completions),
            web.post("/v1/chat/completions", self.chat),
        ])  # fmt: skip
        return app

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

    async def server_info(self, _: web.Request) -> web.Response:
        return web.json_response({"engine": "fake", "behaviour": asdict(self.behaviour)})

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.model, "object": "model"}]})

    async def reset(self, _: web.Request) -> web.Response:
        self.cached.clear()
        return web.Response()

    async def metrics(self, _: web.Request) -> web.Response:
        label = f'{{engine="0",model_name="{self.model}"}}'
        lines = []
        for name, value in self.counters.items():
            lines += [f"# TYPE vllm:{name}_total counter", f"vllm:{name}_total{label} {value}"]
        for name in HISTOGRAMS:
            lines += [f"# TYPE vllm:{name} histogram", f'vllm:{name}_bucket{{le="+Inf"}} {self.counts[name]}']
            lines += [f"vllm:{name}_sum{label} {self.sums[name]}", f"vllm:{name}_count{label} {self.counts[name]}"]
        for name, gauge in (("num_requests_running", self.running), ("num_requests_waiting", self.waiting)):
            lines += [f"# TYPE vllm:{name} gauge", f"vllm:{name}{label} {gauge}"]
        return web.Response(text="\n".join(lines) + "\n", content_type="text/plain")

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = body.get("prompt")
        many = isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list))
        prompts = prompt if many else [prompt]
        return await self._serve(request, body, prompts, chat=False)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        texts = []
        for message in body.get("messages") or []:
            content = message.get("content") or ""
            parts = content if isinstance(content, list) else [{"text": content}]
            texts.append("".join(str(part.get("text", "")) for part in parts))
        if "max_completion_tokens" in body:
            body["max_tokens"] = body["max_completion_tokens"]
        return await self._serve(request, body, ["\n".join(texts)], chat=True)

    async def _serve(
        self, request: web.Request, body: dict[str, Any], prompts: Sequence[Any], *, chat: bool
    ) -> web.StreamResponse:
        asks = self.behaviour
        if body.get("model") != self.model:
            return _error(404, f"The model `{body.get('model')}` does not exist.")
        if asks.refuse_ignore_eos and "ignore_eos" in body:
            return _error(400, "Unrecognized request argument supplied: ignore_eos")
        limit = 16 if body.get("max_tokens") is None else int(body["max_tokens"])
        self.counted += limit > 1
        if asks.crash_after is not None and self.counted > asks.crash_after:
            sys.stderr.write("fake: crash_after reached, ending\n")
            sys.stderr.flush()
            os._exit(1)
        if asks.hang_after is not None and self.counted > asks.hang_after:
            await asyncio.Event().wait()
        if limit > 1 and asks.fail_every and self.counted % asks.fail_every == 0:
            return _error(500, "fail_every")
        breaks = limit > 1 and bool(asks.break_stream_every) and self.counted % asks.break_stream_every == 0
        asked = [self._understand(prompt, body, limit) for prompt in prompts]
        if body.get("stream"):
            return await self._stream(request, body, asked[0], chat=chat, breaks=breaks)
        await asyncio.gather(*(self._generate(each, None) for each in asked))
        choices = [self._choice(at, each, prompts[at], body, chat=chat) for at, each in enumerate(asked)]
        told = {"prompt_token_ids": self.tokens.ids(asked[0].prompt)} if chat and body.get("return_token_ids") else {}
        return web.json_response({**self._envelope(chat, ""), **told, "choices": choices, "usage": self._usage(asked)})

    def _understand(self, prompt: Any, body: dict[str, Any], limit: int) -> Asked:
        text = self.tokens.text(prompt)
        answer = self.answers.answer(text)
        words = filler(text, limit) if answer is None else [" " + word for word in answer.split()]
        if answer is not None and body.get("ignore_eos"):
            words += filler(text, max(0, limit - len(words)))
        ends = answer is not None and not body.get("ignore_eos") and len(words) <= limit
        finish = "stop" if ends else "length"
        words = words[:limit]
        stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        whole = "".join(words)
        cut = min((at for at in (whole.find(stop) for stop in stops if stop) if at >= 0), default=None)
        if cut is not None:
            words, finish = [" " + word for word in whole[:cut].split()], "stop"
        return Asked(text, self.tokens.encode(prompt), words, finish, time.perf_counter())

    async def _generate(self, asked: Asked, emit: Any) -> None:
        """Hold a seat and let tokens come when they are due, calling `emit(place, words)` for each chunk."""
        asks, loop = self.behaviour, time.perf_counter
        self.waiting += 1
        async with self.seats:
            self.waiting -= 1
            self.running += 1
            try:
                begun = loop()
                cached = self._look_up(asked.tokens)
                new_share = 1 - cached / max(1, len(asked.tokens))
                prefill = asks.ttft_s + asks.prefill_s_per_token * len(asked.tokens)
                due = begun + self._jittered(prefill * new_share)
                first = None
                for place in range(0, len(asked.words), asks.tokens_per_chunk):
                    if place:
                        due += self._jittered(asks.itl_s * asks.tokens_per_chunk)
                    await asyncio.sleep(due - loop())
                    first = first or loop()
                    chunk = asked.words[place : place + asks.tokens_per_chunk]
                    self.counters["generation_tokens"] += len(chunk)
                    if emit is not None:
                        await emit(place, "".join(chunk))
                self._observe(asked, begun, first or loop())
            finally:
                self.running -= 1

    def _jittered(self, seconds: float) -> float:
        return max(0.0, seconds * self.weather * (1 + self.behaviour.jitter * self.random.gauss(0, 1)))

    def _look_up(self, tokens: list[Any]) -> int:
        """Tokens of the prompt found in the cache, in whole blocks; the prompt is cached afterwards."""
        self.counters["prompt_tokens"] += len(tokens)
        size, hits, missed, key = self.behaviour.block_size, 0, False, 0
        if self.behaviour.prefix_cache or self.behaviour.cache_everything:
            self.counters["prefix_cache_queries"] += len(tokens)
            for end in range(size, len(tokens) + 1, size):
                key = hash((key, *tokens[end - size : end]))
                missed = missed or key not in self.cached
                hits += 0 if missed else size
                self.cached.add(key)
        if self.behaviour.cache_everything:
            hits = len(tokens)
        # The last token is always computed, as in real engines: something must predict the next one.
        hits = min(hits, len(tokens) - 1)
        self.counters["prefix_cache_hits"] += max(0, hits)
        return max(0, hits)

    def _observe(self, asked: Asked, begun: float, first: float) -> None:
        now = time.perf_counter()
        moments = (begun - asked.created, first - begun, now - first, first - asked.created, now - asked.created)
        for name, value in zip(HISTOGRAMS, moments, strict=True):
            self.sums[name] += value
            self.counts[name] += 1
        self.counters["request_success"] += 1
        self.counters["generation_tokens"] -= self.behaviour.uncounted_tokens

    async def _stream(
        self, request: web.Request, body: dict[str, Any], asked: Asked, *, chat: bool, breaks: bool
    ) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        envelope = self._envelope(chat, ".chunk")

        async def send(choices: list[dict[str, Any]], usage: Any = None) -> None:
            event = {**envelope, "choices": choices, **({"usage": usage} if usage else {})}
            await answer.write(b"data: " + json.dumps(event).encode() + b"\n\n")

        def choice(text: str, reason: str | None) -> dict[str, Any]:
            said: dict[str, Any] = {"delta": {"content": text}} if chat else {"text": text}
            return {"index": 0, **said, "finish_reason": reason}

        async def emit(place: int, text: str) -> None:
            if breaks and place >= len(asked.words) // 2 and request.transport is not None:
                request.transport.abort()
                raise ConnectionResetError("break_stream_every")
            last = place + self.behaviour.tokens_per_chunk >= len(asked.words)
            await send([choice(text, asked.finish if last else None)])

        if chat:
            await send([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        try:
            await self._generate(asked, emit)
            if not asked.words:
                await send([choice("", asked.finish)])
            if (body.get("stream_options") or {}).get("include_usage"):
                await send([], self._usage([asked]))
            await answer.write(b"data: [DONE]\n\n")
        except ConnectionError:
            return answer
        return answer

    def _choice(self, at: int, asked: Asked, prompt: Any, body: dict[str, Any], *, chat: bool) -> dict[str, Any]:
        said = "".join(asked.words).strip() if chat else "".join(asked.words)
        if chat:
            told = {"token_ids": self.tokens.ids(said)} if body.get("return_token_ids") else {}
            message = {"role": "assistant", "content": said}
            return {"index": at, "message": message, "finish_reason": asked.finish, **told}
        choice = {"index": at, "text": said, "finish_reason": asked.finish, "logprobs": None}
        if body.get("echo"):
            choice["text"] = asked.prompt + said
        if body.get("logprobs") is not None:
            by_id = body.get("echo") and body.get("return_tokens_as_token_ids") and not isinstance(prompt, str)
            choice["logprobs"] = (
                logprobs_by_id(self.tokens, self.answers, list(prompt), int(body["logprobs"]))
                if by_id and self.tokens.ids("") is not None
                else self._logprobs(asked, prompt, echo=bool(body.get("echo")))
            )
        return choice

    def _logprobs(self, asked: Asked, prompt: Any, *, echo: bool) -> dict[str, Any]:
        """The legacy OpenAI lists: with echo the prompt's tokens first, of which the very first has none."""
        pieces = self.tokens.pieces(prompt) if echo else []
        values: list[float | None] = [*self.answers.log_probabilities(asked.prompt, pieces)]
        if values:
            values[0] = None
        everything = [*pieces, *asked.words]
        values += [-0.1 - share(word) for word in asked.words]
        top = [
            None if value is None else {piece: value} if value > -1 else {piece: value, "<other>": -0.2}
            for piece, value in zip(everything, values, strict=True)
        ]
        offsets, offset = [], 0
        for piece in everything:
            offsets.append(offset)
            offset += len(piece)
        return {"tokens": everything, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets}

    def _usage(self, asked: Sequence[Asked]) -> dict[str, int]:
        prompt = sum(len(each.tokens) for each in asked) + self.behaviour.extra_prompt_tokens
        generated = sum(len(each.words) for each in asked)
        return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}

    def _envelope(self, chat: bool, suffix: str) -> dict[str, Any]:
        kind = f"chat.completion{suffix}" if chat else "text_completion"
        return {"id": "fake", "object": kind, "created": int(time.time()), "model": self.model}


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status)


def serve_forever(behaviour: Behaviour, *, model: str, port: int, tokenizer: Path | None = None) -> int:
    """Serve on 127.0.0.1 until SIGTERM; the exit status."""
    if behaviour.refuse_start:
        sys.stderr.write("fake: refuse_start, as asked\n")
        return 1
    return asyncio.run(_serve(behaviour, model, port, tokenizer))


async def _serve(behaviour: Behaviour, model: str, port: int, tokenizer: Path | None) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        # At once, with requests in flight: what a fleet does to a replica, and what tests need.
        asyncio.get_running_loop().add_signal_handler(number, os._exit, 0)
    await asyncio.sleep(behaviour.start_delay_s)
    runner = web.AppRunner(FakeEngine(behaviour, model, tokenizer).app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    except OSError as error:
        sys.stderr.write(f"fake: {error}\n")
        return 1
    sys.stderr.write(f"fake: serving {model} on port {port}\n")
    sys.stderr.flush()
    await asyncio.Event().wait()
    return 0
