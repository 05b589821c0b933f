"""Many small questions to one engine: one session, so many in flight, few and short retries, no silent loss."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from steelyard.engines.base import Engine
from steelyard.errors import EngineError, InfrastructureError
from steelyard.surrogates import ESCAPED, whole
from steelyard.wall_time import WALL_TIME

RETRY_AFTER_S = (0.2, 0.6)
"""Pauses between attempts: three attempts in all."""
ALIVE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Question:
    """One POST: path below the base URL, and its JSON body."""

    path: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """The JSON that came back, or why there is none. Exactly one is None."""

    data: dict[str, Any] | None
    error: str | None


class Client:
    """Asks one OpenAI-compatible server. A failed question is a `Reply` with an error."""

    def __init__(
        self, base_url: str, *, concurrency: int, timeout_s: float, key: str | None = None, proxied: bool = True
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.concurrency = concurrency
        self.timeout_s = timeout_s
        self._key = key
        # A proxy of the environment leads to servers elsewhere, never to loopback ones.
        self._proxied = proxied

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """Replies in the order of the questions. Not for use inside a running event loop."""
        with WALL_TIME.engines("answering"):
            return asyncio.run(self._ask_all(questions))

    def _session(self) -> aiohttp.ClientSession:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            headers=headers,
            trust_env=self._proxied,
        )

    async def _ask_all(self, questions: Sequence[Question]) -> list[Reply]:
        replies: dict[int, Reply] = {}
        rest = iter(enumerate(questions))
        checking = asyncio.Lock()
        async with self._session() as session:
            workers = [
                asyncio.create_task(self._work(session, rest, replies, checking))
                for _ in range(min(self.concurrency, len(questions)))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        return [replies[index] for index in range(len(questions))]

    async def _work(
        self,
        session: aiohttp.ClientSession,
        rest: Iterator[tuple[int, Question]],
        replies: dict[int, Reply],
        checking: asyncio.Lock,
    ) -> None:
        for index, question in rest:
            replies[index] = await self._ask(session, question, checking)

    async def _ask(self, session: aiohttp.ClientSession, question: Question, checking: asyncio.Lock) -> Reply:
        url = self.base_url + question.path
        payload = json.dumps(question.body).encode()
        error = ""
        for pause in (*RETRY_AFTER_S, None):
            try:
                async with session.post(url, data=payload) as response:
                    raw = await response.read()
                if response.status == 200:
                    reply = _parsed(raw)
                    if reply.data is None or not _says_error(reply.data):
                        return reply
                error = f"HTTP {response.status}: {_message(raw)}"
                if response.status != 200 and response.status < 500 and response.status not in (408, 425, 429):
                    return Reply(None, error)
            except TimeoutError:
                # A second wait as long as the first would hold the whole suite up.
                error = f"no answer within {self.timeout_s:g} s"
                break
            except (aiohttp.ClientError, OSError) as failure:
                error = f"{type(failure).__name__}: {failure}"
            if pause is not None:
                await asyncio.sleep(pause)
        await self._must_live(checking)
        return Reply(None, error)

    async def _must_live(self, checking: asyncio.Lock) -> None:
        """Called after a question failed for good; may raise what makes every further question pointless."""


class Transport(Client):
    """Asks one engine; a dead engine is an EngineError, raised by `ask` too."""

    def __init__(self, engine: Engine, *, concurrency: int, timeout_s: float) -> None:
        attached = engine.deployment.engine == "attach"
        super().__init__(
            engine.base_url,
            concurrency=concurrency,
            timeout_s=timeout_s,
            key=os.environ.get("STEELYARD_API_KEY") if attached else None,
            proxied=attached,
        )
        self.engine = engine
        self._alive_at = float("-inf")

    def max_model_len(self) -> int | None:
        """Longest sequence, in tokens, that the engine says it serves; None if it does not say."""
        with WALL_TIME.engines("answering"):
            return asyncio.run(self._max_model_len())

    async def _max_model_len(self) -> int | None:
        try:
            async with self._session() as session, session.get(f"{self.base_url}/v1/models") as response:
                models = json.loads(await response.read())["data"]
            told = {model.get("id"): model.get("max_model_len") for model in models}
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError, AttributeError):
            # Not every OpenAI-compatible engine has the route, and a dead one shows at the first question.
            return None
        length = told.get(self.engine.model_name)
        return length if isinstance(length, int) and length > 0 else None

    async def _must_live(self, checking: asyncio.Lock) -> None:
        """Raise the EngineError that says how the engine died, if it did."""
        from steelyard.engines.probe import check_alive

        async with checking:
            if time.monotonic() - self._alive_at < ALIVE_EVERY_S:
                return
            try:
                await asyncio.to_thread(check_alive, self.engine)
            except InfrastructureError as error:
                if isinstance(error, EngineError) and error.arm is None:
                    error.arm = self.engine.arm
                raise
            self._alive_at = time.monotonic()


def _parsed(raw: bytes) -> Reply:
    try:
        data = json.loads(raw)
    except ValueError:
        return Reply(None, "the answer is not JSON")
    if b"\\u" in raw and ESCAPED.search(raw.decode("ascii", "replace")):
        data = whole(data)
    return Reply(data, None) if isinstance(data, dict) else Reply(None, "the answer is not a JSON object")


def _says_error(data: dict[str, Any]) -> bool:
    """Whether a body is an error under status 200, as gateways send it."""
    return bool(data.get("error")) and not data.get("choices")


def _message(raw: bytes) -> str:
    """What an error body says, in one line."""
    text = raw.decode("utf-8", "replace")
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if isinstance(data, dict):
        inner = data.get("error", data)
        text = str(inner.get("message", text)) if isinstance(inner, dict) else str(inner)
    return " ".join(text.split())[:300] or "no text"
