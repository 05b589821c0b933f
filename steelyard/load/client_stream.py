"""Request records, and how a stored stream of events becomes one. Runs after the clock has stopped."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

OK = "ok"


class Piece(NamedTuple):
    """Body bytes of one read: when they arrived, seconds since the start, and by how much they may be earlier.

    A read that the client came late to may hold several arrivals; the kernel told the last one's moment only.
    `slack_s` bounds how much earlier the others were.
    """

    at: float
    data: bytes
    slack_s: float


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """What happened to one request. Moments are seconds since the start of the run; None means it never happened.

    In an open loop `scheduled_s` is the planned arrival; in a closed loop the moment its slot became free: the arrival
    of the previous answer's end, whenever the client saw it. `sent_s` is when its bytes went to the kernel.
    Latencies count from `origin_s`: when it was due in an open loop, so that waiting a late client or a full engine
    causes is never hidden (coordinated omission); when it was sent in a closed loop.
    `token_times_s` has one moment for every event that brought tokens: with speculation that is fewer than tokens.
    `first_token_slack_s` bounds how much earlier than stamped the first token may have come, through the client's own
    lateness; `merged_slack_s` has that bound for each event that shares a read, and so a stamp, with a later one.
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
    first_token_slack_s: float = 0.0
    merged_slack_s: list[float] = field(default_factory=list)

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


def read_stream(pieces: Sequence[Piece], record: RequestRecord) -> None:
    """Fill `record` from the stored stream. A stream that lacks finish reason, usage or [DONE] was cut.

    A `status` and `error` set before stand where the stream is not whole and does not itself say why.
    """
    done, last_empty = False, None
    tokens: list[tuple[float, float, int]] = []
    for number, piece, payload in _events(pieces):
        if payload == b"[DONE]":
            done = True
            continue
        try:
            event = json.loads(payload)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            _stamp(record, tokens)
            record.status, record.error = "broken_stream", f"no JSON object: {payload[:200]!r}"
            return
        if event.get("error"):
            _stamp(record, tokens)
            record.status, record.error = "broken_stream", f"engine: {json.dumps(event['error'])}"[:500]
            return
        if isinstance(usage := event.get("usage"), dict):
            record.input_tokens, record.output_tokens = (
                _count(usage, "prompt_tokens"),
                _count(usage, "completion_tokens"),
            )
        choices = event.get("choices") or ()
        if not _readable(choices):
            _stamp(record, tokens)
            record.status, record.error = "broken_stream", f"choices that are none: {payload[:200]!r}"
            return
        for choice in choices:
            reason = choice.get("finish_reason")
            record.finish_reason = reason or record.finish_reason
            # An empty text that ends nothing is a token all the same: half a character, or a special token.
            if choice.get("text") or not reason:
                tokens.append((piece.at, piece.slack_s, number))
            else:
                last_empty = (piece.at, piece.slack_s, number)
    if last_empty is not None and record.output_tokens is not None and record.output_tokens > len(tokens):
        tokens.append(last_empty)
    _stamp(record, tokens)
    if record.error is not None:
        return
    missing = (
        ("finish reason", record.finish_reason is None),
        ("usage", record.output_tokens is None),
        ("[DONE]", not done),
    )
    if lacks := [what for what, lacking in missing if lacking]:
        record.status, record.error = "broken_stream", f"the stream ended without {' or '.join(lacks)}"
    elif not tokens:
        record.status, record.error = "no_tokens", "the stream was whole but brought no token"
    else:
        record.status = OK


def _readable(choices: object) -> bool:
    """Whether these are choices: objects, each with a finish reason that is a text or missing."""
    return isinstance(choices, (list, tuple)) and all(
        isinstance(each, dict) and isinstance(each.get("finish_reason") or "", str) for each in choices
    )


def _count(usage: dict[str, object], key: str) -> int | None:
    value = usage.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _stamp(record: RequestRecord, tokens: Sequence[tuple[float, float, int]]) -> None:
    """Moments of the tokens, and which of them shared a read with a later one."""
    if not tokens:
        return
    record.token_times_s = [at for at, _, _ in tokens]
    record.first_token_s = record.token_times_s[0]
    shares = [(slack, mine == later) for (_, slack, mine), (_, _, later) in itertools.pairwise(tokens)]
    record.merged_slack_s = [slack for slack, shared in shares if shared]
    record.first_token_slack_s = shares[0][0] if shares and shares[0][1] else 0.0


def _events(pieces: Sequence[Piece]) -> Iterator[tuple[int, Piece, bytes]]:
    """`data:` payloads, each with the read that completed it."""
    rest = b""
    for number, piece in enumerate(pieces):
        lines = (rest + piece.data).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                yield number, piece, line[5:].strip()
    if rest.startswith(b"data:"):
        yield len(pieces) - 1, pieces[-1], rest[5:].strip()
