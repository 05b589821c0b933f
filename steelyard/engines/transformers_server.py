"""The OpenAI-compatible server around `transformers_batch`; a program of its own, started by `transformers.py`.

Serves /v1/models, /v1/completions (with echo and logprobs for log-likelihoods), /v1/chat/completions, streams of one
chunk a token, /version, /server_info, /health and /metrics. Metric names are vLLM's without the `vllm:` prefix.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from steelyard.engines.transformers_batch import Batcher, Job


class Refused(Exception):
    """The request cannot be served as asked; its text goes into a 400."""


class Server:
    """One model behind HTTP."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name = spec["model_name"]
        self.tokenizer = AutoTokenizer.from_pretrained(spec["tokenizer"] or spec["weights"])
        if spec["chat_template"]:
            self.tokenizer.chat_template = Path(spec["chat_template"]).read_text()
        model = AutoModelForCausalLM.from_pretrained(spec["weights"], dtype=spec["dtype"]).to(spec["device"]).eval()
        limit = int(getattr(model.config, "max_position_embeddings", 0) or 2048)
        self.max_model_len = min(spec["max_model_len"] or limit, limit)
        self.batcher = Batcher(model, self.tokenizer, spec["max_batch_size"])
        self.info = {
            "dtype": str(model.dtype).removeprefix("torch."), "max_batch_size": spec["max_batch_size"],
            "max_model_len": self.max_model_len, "attention": model.config._attn_implementation,
            "device": spec["device"], "torch": torch.__version__, "threads": torch.get_num_threads(),
        }  # fmt: skip

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/health", self.health)
        app.router.add_get("/version", self.version)
        app.router.add_get("/server_info", self.server_info)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/v1/chat/completions", self.chat)
        return app

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def version(self, _: web.Request) -> web.Response:
        import transformers

        return web.json_response({"version": transformers.__version__})

    async def server_info(self, _: web.Request) -> web.Response:
        return web.json_response(self.info)

    async def models(self, _: web.Request) -> web.Response:
        entry = {"id": self.name, "object": "model", "owned_by": "steelyard", "max_model_len": self.max_model_len}
        return web.json_response({"object": "list", "data": [entry]})

    async def metrics(self, _: web.Request) -> web.Response:
        counters = self.batcher.counters
        lines = []
        for name, kind, value in (
            ("prompt_tokens_total", "counter", counters.prompt_tokens),
            ("generation_tokens_total", "counter", counters.generation_tokens),
            ("request_success_total", "counter", counters.requests),
            ("batches_total", "counter", counters.batches),
            ("num_requests_running", "gauge", counters.running),
            ("num_requests_waiting", "gauge", self.batcher.queue.qsize() + len(self.batcher.waiting)),
        ):
            lines += [f"# TYPE {name} {kind}", f"{name} {value}"]
        return web.Response(text="\n".join(lines) + "\n")

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=False)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=True)

    async def _answer(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        try:
            body = await request.json()
            if body.get("model") != self.name:
                return _error(404, f"The model {body.get('model')} does not exist; there is {self.name}.")
            jobs, events = self._jobs(body, chat)
        except (Refused, ValueError, TypeError, KeyError) as error:
            return _error(400, str(error) or type(error).__name__)
        for job in jobs:
            self.batcher.queue.put(job)
        try:
            if body.get("stream"):
                return await self._stream(request, body, jobs[0], events[0], chat)
            return await self._whole(body, jobs, events, chat)
        finally:
            for job in jobs:
                job.done = True

    def _jobs(self, body: Mapping[str, Any], chat: bool) -> tuple[list[Job], list[asyncio.Queue[dict[str, Any]]]]:
        prompts = [self._chat_prompt(body)] if chat else self._prompts(body["prompt"])
        score = bool(body.get("echo")) and body.get("logprobs") is not None and not chat
        if body.get("n", 1) != 1 or (body.get("stream") and (len(prompts) > 1 or score)):
            raise Refused("n, and streams of several prompts or of log-probabilities, are not supported")
        if not score and body.get("logprobs"):
            raise Refused("logprobs are given together with echo only")
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        stop = body.get("stop") or ()
        loop = asyncio.get_running_loop()
        jobs, events = [], []
        for prompt in prompts:
            room = self.max_model_len - len(prompt)
            # OpenAI's own defaults: 16 for completions, what there is room for in a chat.
            tokens = asked if asked is not None else room if chat else 16
            if score and tokens > 1:
                raise Refused("echo with logprobs is for log-likelihoods: max_tokens must be 0 or 1")
            if not prompt or tokens > room or (tokens < 1 and not score):
                raise Refused(
                    f"{len(prompt)} prompt and {tokens} output tokens do not fit: there must be at least one of each, "
                    f"and the maximum is {self.max_model_len} together"
                )
            mailbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

            def emit(event: dict[str, Any], mailbox: asyncio.Queue[dict[str, Any]] = mailbox) -> None:
                loop.call_soon_threadsafe(mailbox.put_nowait, event)

            temperature = body.get("temperature")
            jobs.append(
                Job(
                    prompt=prompt, max_tokens=tokens, temperature=1.0 if temperature is None else float(temperature),
                    top_p=float(body.get("top_p") or 1.0), seed=body.get("seed"), score=score, emit=emit,
                    stop=(stop,) if isinstance(stop, str) else tuple(stop), ignore_eos=bool(body.get("ignore_eos")),
                )
            )  # fmt: skip
            events.append(mailbox)
        return jobs, events

    def _prompts(self, prompt: Any) -> list[list[int]]:
        if isinstance(prompt, str):
            return [self.tokenizer(prompt).input_ids]
        if isinstance(prompt, list) and prompt and all(isinstance(each, int) for each in prompt):
            return [prompt]
        if isinstance(prompt, list) and prompt:
            return [ids for each in prompt for ids in self._prompts(each)]
        raise Refused("prompt must be a text, a list of token ids, or a list of these")

    def _chat_prompt(self, body: Mapping[str, Any]) -> list[int]:
        text = self.tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        return self.tokenizer(text, add_special_tokens=False).input_ids

    async def _whole(
        self, body: Mapping[str, Any], jobs: list[Job], events: list[asyncio.Queue[dict[str, Any]]], chat: bool
    ) -> web.Response:
        choices: list[dict[str, Any]] = []
        completion = 0
        for index, (job, mailbox) in enumerate(zip(jobs, events, strict=True)):
            text, event = "", await mailbox.get()
            while "error" not in event and event["finish_reason"] is None:
                text += event["text"]
                event = await mailbox.get()
            if "error" in event:
                return _error(500, event["error"])
            choice: dict[str, Any] = {"index": index, "finish_reason": event["finish_reason"], "logprobs": None}
            if job.score:
                choice |= self._scored(event)
                completion += len(event["tokens"]) - len(job.prompt)
            else:
                text += event["text"]
                completion += len(job.tokens)
                if body.get("echo") and not chat:
                    text = self.tokenizer.decode(job.prompt, skip_special_tokens=True) + text
                choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choices.append(choice)
        return web.json_response(
            {**self._head(chat, stream=False), "choices": choices, "usage": _usage(jobs, completion)}
        )

    def _scored(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """A choice in the legacy format: tokens as text, and where each starts in the text."""
        tokens = [self._text(token) for token in event["tokens"]]
        offsets = [0]
        for token in tokens[:-1]:
            offsets.append(offsets[-1] + len(token))
        top = []
        for place in event["top"]:
            # Two ids may read alike; the better one keeps the key, as the greedy choice is looked up by it.
            texts: dict[str, float] = {}
            for token, value in (place or {}).items():
                text = self._text(token)
                texts[text] = max(value, texts.get(text, value))
            top.append(texts if place is not None else None)
        logprobs = {
            "tokens": tokens, "token_logprobs": event["logprobs"], "top_logprobs": top, "text_offset": offsets,
        }  # fmt: skip
        return {"text": "".join(tokens), "logprobs": logprobs}

    def _text(self, token: int) -> str:
        return str(self.tokenizer.decode([token]))

    async def _stream(
        self,
        request: web.Request,
        body: Mapping[str, Any],
        job: Job,
        mailbox: asyncio.Queue[dict[str, Any]],
        chat: bool,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        head = self._head(chat, stream=True)
        finish = None
        while finish is None:
            event = await mailbox.get()
            if "error" in event:
                await _send(response, {"error": {"message": event["error"], "code": 500}})
                break
            finish = event["finish_reason"]
            said = {"delta": {"content": event["text"]}} if chat else {"text": event["text"]}
            await _send(response, {**head, "choices": [{"index": 0, "finish_reason": finish, **said}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            await _send(response, {**head, "choices": [], "usage": _usage([job], len(job.tokens))})
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _head(self, chat: bool, *, stream: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if stream else "chat.completion") if chat else "text_completion"
        return {"id": f"cmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": self.name}


async def _send(response: web.StreamResponse, chunk: Mapping[str, Any]) -> None:
    await response.write(f"data: {json.dumps(chunk)}\n\n".encode())


def _usage(jobs: list[Job], completion: int) -> dict[str, int]:
    prompt = sum(len(job.prompt) for job in jobs)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "invalid_request", "code": status}}, status=status)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    web.run_app(Server(asked).app(), host=asked["host"], port=asked["port"], print=None, access_log=None)
