"""The streaming client: sends planned requests and says when each token came.

A client that is late or busy measures itself. This one takes its moments from the kernel, which stamps data on
arrival, opens its connections before the clock starts, and reads what the answers say after the run; what it still
cannot know - how late it sent, and which tokens came together because it looked late - it counts, and the trial
judges. Times are `time.perf_counter` seconds since the start of the run.
"""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from steelyard.collector import no_collector
from steelyard.load.client_loop import Loop
from steelyard.load.client_stream import OK, RequestRecord
from steelyard.load.client_wire import Target
from steelyard.load.workloads import PlannedRequest
from steelyard.study import Load
from steelyard.wall_time import WALL_TIME

__all__ = ["OK", "Dialect", "RequestRecord", "Run", "drive", "run_requests"]


@dataclass(slots=True)
class Dialect:
    """What an engine has refused before: kept between runs so that it is asked only once."""

    takes_ignore_eos: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run: its records by index, when it started (UTC), and what it cost the client.

    `cpu_s` is the CPU time of the whole process between the first request and the last answer. `lags_s` has, for each
    piece of an answer, how long after its arrival it was read. `kernel_stamps` is False where the kernel did not stamp
    most arrivals: a lag is then in every moment, where it is otherwise in none.
    """

    records: list[RequestRecord]
    started_at: datetime
    wall_s: float
    cpu_s: float
    lags_s: Sequence[float] = field(default_factory=lambda: array("d"))
    kernel_stamps: bool = True


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
    """`run_requests`, with the client's own CPU and wall time, seconds, and how late it was."""
    dialect = dialect or Dialect()
    target = Target.of(base_url.rstrip("/") + "/v1/completions")
    # Encoded beforehand: a long prompt costs a millisecond that would otherwise be somebody's latency.
    head = _head(target, api_key)
    posts = [_Post.of(head, each, model, ignore_eos, extra_body or {}) for each in requests]
    records = [RequestRecord(index=each.index, scheduled_s=each.scheduled_s) for each in requests]

    def refuses(status: int, text: str) -> bool:
        if not (ignore_eos and status in (400, 422) and "ignore_eos" in text):
            return False
        dialect.takes_ignore_eos = False
        return True

    loop = Loop(
        target, records, concurrency=load.concurrency, timeout_s=timeout_s,
        data_of=lambda at, full: posts[at].full if full else posts[at].plain,
        full=lambda: dialect.takes_ignore_eos, refuses=refuses,
    )  # fmt: skip
    with WALL_TIME.engines("answering"), no_collector():
        cpu = time.process_time()
        loop.run()
        wall_s, cpu_s = time.perf_counter() - loop.zero, time.process_time() - cpu
        # Of the moment that is zero in the records, which is after the connections were opened.
        started_at = datetime.now(UTC) - timedelta(seconds=wall_s)
        loop.read()
    return Run(
        records=records, started_at=started_at, wall_s=wall_s, cpu_s=cpu_s, lags_s=loop.lags,
        kernel_stamps=2 * loop.unstamped <= len(loop.lags),
    )  # fmt: skip


def _head(target: Target, api_key: str | None) -> str:
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.authority}",
        "User-Agent: steelyard",
        "Accept: text/event-stream",
        "Content-Type: application/json",
    ]
    if api_key:
        lines.append(f"Authorization: Bearer {api_key}")
    return "\r\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Post:
    """A request with and without vLLM's extra, as bytes."""

    full: bytes
    plain: bytes

    @classmethod
    def of(cls, head: str, request: PlannedRequest, model: str, ignore_eos: bool, extra: Mapping[str, Any]) -> _Post:
        plain = {
            "model": model,
            "prompt": request.prompt,
            "max_tokens": request.output_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **extra,
        }

        def post(body: Mapping[str, Any]) -> bytes:
            data = json.dumps(body).encode()
            return f"{head}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data

        sent_plain = post(plain)
        return cls(post({**plain, "ignore_eos": True}) if ignore_eos else sent_plain, sent_plain)
