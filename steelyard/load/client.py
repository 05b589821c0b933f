"""The streaming client: sends planned requests and stamps what comes back.

One process, one event loop, SSE parsed by hand: a client that is late or busy measures itself. It therefore stamps
when each request was due and when it went out, and the trial judges both. Times are `time.perf_counter` seconds
since the start of the run.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from steelyard.load.workloads import PlannedRequest
from steelyard.study import Load

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp

OK = "ok"
# Servers close idle connections after 5 s (uvicorn's default); reusing one at that moment would look like a failure.
KEEPALIVE_S = 2.0
GIVE_UP_AFTER = 3


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """What happened to one request. Moments are seconds since the start of the run; None means it never happened.

    In an open loop `scheduled_s` is the planned arrival; in a closed loop the moment its slot became free.
    Latencies count from `origin_s`: when it was due in an open loop, so that waiting a late client or a full engine
    causes is never hidden (coordinated omission); when it was sent in a closed loop.
    `token_times_s` has one moment for every chunk that brought tokens: with speculation that is fewer than tokens.
    """

    index: int
    scheduled_s: float
    sent_s: float | None = None
    origin_s: float | None = None
    first_token_s: float | None = None
    token_times_s: list[float] = field(default_factory=list)
    end_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    status: str = "timeout"
    finish_reason: str | None = None
    error: str | None = None

    @property
    def ttft_s(self) -> float | None:
        """Time to first token, seconds."""
        return _since(self.origin_s, self.first_token_s)

    @property
    def e2e_s(self) -> float | None:
        """End-to-end latency, seconds."""
        return _since(self.origin_s, self.end_s)

    @property
    def itl_s(self) -> float | None:
        """Mean inter-token latency: first to last token over tokens less one. None with fewer than two tokens."""
        if not self.token_times_s or self.output_tokens is None or self.output_tokens < 2:
            return None
        return (self.token_times_s[-1] - self.token_times_s[0]) / (self.output_tokens - 1)


def _since(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start


@dataclass(slots=True)
class Dialect:
    """What an engine has refused before: kept between runs so that it is asked only once."""

    takes_ignore_eos: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run: its records by index, when it started (UTC), and what it cost the client."""

    records: list[RequestRecord]
    started_at: datetime
    wall_s: float
    cpu_s: float


def run_requests(
    base_url: str,
    model: str,
    requests: Sequence[PlannedRequest],
    *,
    load: Load,
    timeout_s: float,
    api_key: str | None = None,
    ignore_eos: bool = True,
    extra_body: Mapping[str, Any] | None = None,
    dialect: Dialect | None = None,
) -> list[RequestRecord]:
    """Send the requests under `load` and return one record each, by index. Never raises for what an engine does.

    `base_url` is without `/v1`. `timeout_s` is the longest silence allowed: before the first token and between
    two. When an engine has stopped answering altogether, the requests left are recorded as never sent.
    """
    return drive(
        base_url, model, requests, load=load, timeout_s=timeout_s, api_key=api_key, ignore_eos=ignore_eos,
        extra_body=extra_body, dialect=dialect,
    ).records  # fmt: skip


def drive(
    base_url: str,
    model: str,
    requests: Sequence[PlannedRequest],
    *,
    load: Load,
    timeout_s: float,
    api_key: str | None = None,
    ignore_eos: bool = True,
    extra_body: Mapping[str, Any] | None = None,
    dialect: Dialect | None = None,
) -> Run:
    """`run_requests`, with the client's own CPU and wall time, seconds."""
    dialect = dialect or Dialect()
    # Encoded beforehand: a long prompt costs a millisecond that would otherwise be somebody's latency.
    bodies = [_Body.of(each, model, ignore_eos, extra_body or {}) for each in requests]
    sender = _Sender(base_url.rstrip("/") + "/v1/completions", bodies, load, timeout_s, api_key, dialect)
    with _no_collector():
        started_at = datetime.now(UTC)
        cpu, wall = time.process_time(), time.perf_counter()
        records = asyncio.run(sender.run(requests))
        return Run(
            records=records,
            started_at=started_at,
            wall_s=time.perf_counter() - wall,
            cpu_s=time.process_time() - cpu,
        )


@contextmanager
def _no_collector() -> Iterator[None]:
    # A full collection in a process that has loaded an orchestrator stops the loop for a tenth of a second.
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@dataclass(frozen=True, slots=True)
class _Body:
    """A request body with and without vLLM's extra, as bytes."""

    full: bytes
    plain: bytes

    @classmethod
    def of(cls, request: PlannedRequest, model: str, ignore_eos: bool, extra: Mapping[str, Any]) -> _Body:
        plain = {
            "model": model,
            "prompt": request.prompt,
            "max_tokens": request.output_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **extra,
        }
        full = {**plain, "ignore_eos": True} if ignore_eos else plain
        return cls(json.dumps(full).encode(), json.dumps(plain).encode())


class _Sender:
    """One run: its session, its clock, and whether the engine has stopped answering."""

    def __init__(
        self, url: str, bodies: Sequence[_Body], load: Load, timeout_s: float, api_key: str | None, dialect: Dialect
    ) -> None:
        self.url, self.bodies, self.load, self.timeout_s, self.dialect = url, bodies, load, timeout_s, dialect
        self.headers = {"Content-Type": "application/json"}
        if api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"
        self.zero = 0.0
        self.dead_in_a_row = 0

    def now(self) -> float:
        return time.perf_counter() - self.zero

    async def run(self, requests: Sequence[PlannedRequest]) -> list[RequestRecord]:
        import aiohttp

        records = [RequestRecord(index=each.index, scheduled_s=each.scheduled_s) for each in requests]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.timeout_s, sock_read=self.timeout_s)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=self.headers, auto_decompress=False
        ) as session:
            self.zero = time.perf_counter()
            if self.load.concurrency is not None:
                queue = iter(range(len(records)))
                slots = min(self.load.concurrency, len(records))
                await asyncio.gather(*(self._slot(session, queue, records) for _ in range(slots)))
            else:
                await asyncio.gather(*(self._arrive(session, at, record) for at, record in enumerate(records)))
        return records

    async def _slot(
        self, session: aiohttp.ClientSession, queue: Iterator[int], records: Sequence[RequestRecord]
    ) -> None:
        for at in queue:
            records[at].scheduled_s = self.now()
            await self._send(session, at, records[at])

    async def _arrive(self, session: aiohttp.ClientSession, at: int, record: RequestRecord) -> None:
        await asyncio.sleep(record.scheduled_s - self.now())
        await self._send(session, at, record)

    async def _send(self, session: aiohttp.ClientSession, at: int, record: RequestRecord) -> None:
        if self.dead_in_a_row >= max(GIVE_UP_AFTER, self.load.concurrency or 0):
            record.error = "not sent: the engine had stopped answering"
            return
        await self._ask(session, self.bodies[at], record)
        record.end_s = self.now()
        self.dead_in_a_row = self.dead_in_a_row + 1 if record.status in ("timeout", "refused") else 0

    async def _ask(self, session: aiohttp.ClientSession, body: _Body, record: RequestRecord) -> None:
        import aiohttp

        extra = self.dialect.takes_ignore_eos
        record.sent_s = self.now()
        record.origin_s = record.sent_s if self.load.rate is None else record.scheduled_s
        try:
            async with session.post(self.url, data=body.full if extra else body.plain) as answer:
                if answer.status == 200:
                    await self._read(answer, record)
                    return
                text = (await answer.read()).decode(errors="replace")
                refuses_extra = answer.status in (400, 422) and extra and body.full != body.plain
                if not (refuses_extra and "ignore_eos" in text):
                    record.status, record.error = "http_error", f"HTTP {answer.status}: {text}"[:500]
                    return
        except TimeoutError:
            record.status, record.error = "timeout", f"silent for {self.timeout_s:g} s"
            return
        except aiohttp.ClientConnectorError as error:
            record.status, record.error = "refused", str(error)[:500]
            return
        except (aiohttp.ClientError, ConnectionError) as error:
            record.status, record.error = "broken_stream", f"{type(error).__name__}: {error}"[:500]
            return
        self.dialect.takes_ignore_eos = False
        await self._ask(session, body, record)

    async def _read(self, answer: aiohttp.ClientResponse, record: RequestRecord) -> None:
        """Read the stream to its end. A stream that lacks finish reason, usage or [DONE] was cut."""
        done, last_empty, times = False, None, record.token_times_s
        async for at, payload in self._events(answer):
            if payload == b"[DONE]":
                done = True
                continue
            try:
                event = json.loads(payload)
            except ValueError:
                record.status, record.error = "broken_stream", f"no JSON: {payload[:200]!r}"
                return
            if "error" in event:
                record.status, record.error = "broken_stream", f"engine: {json.dumps(event['error'])}"[:500]
                return
            if event.get("usage"):
                record.input_tokens = event["usage"].get("prompt_tokens")
                record.output_tokens = event["usage"].get("completion_tokens")
            for choice in event.get("choices") or ():
                reason = choice.get("finish_reason")
                record.finish_reason = reason or record.finish_reason
                # An empty text that ends nothing is a token all the same: half a character, or a special token.
                if choice.get("text") or not reason:
                    times.append(at)
                else:
                    last_empty = at
        if last_empty is not None and record.output_tokens is not None and record.output_tokens > len(times):
            times.append(last_empty)
        record.first_token_s = times[0] if times else None
        lacks = [
            what
            for what, there in (
                ("finish reason", record.finish_reason),
                ("usage", record.output_tokens is not None),
                ("[DONE]", done),
            )
            if not there
        ]
        if lacks:
            record.status, record.error = "broken_stream", f"the stream ended without {' or '.join(lacks)}"
        elif not times:
            record.status, record.error = "no_tokens", "the stream was whole but brought no token"
        else:
            record.status = OK

    async def _events(self, answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[float, bytes]]:
        """`data:` payloads with the moment their chunk was read."""
        rest = b""
        while chunk := await answer.content.readany():
            at = self.now()
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for line in lines:
                if line.startswith(b"data:"):
                    yield at, line[5:].strip()
        if rest.startswith(b"data:"):
            yield self.now(), rest[5:].strip()
