"""A server whose timings are known: it streams tokens at fixed times and remembers when it really sent them.

    python -m benchmarks.client_truth_parts.server --ttft 0.05 --itl 0.02

One process, one epoll, answers made beforehand. Time to first token counts from the kernel's stamp of the request's
last segment, so that a request which waits in a queue of this very server is charged to it and not to the client.
`GET /truth` tells what was done since `POST /forget`. The first line of standard output is the port.
"""

from __future__ import annotations

import argparse
import heapq
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from steelyard.load.client_wire import SO_TIMESTAMPNS

MODEL = "demo"
TEXT = " a"
BACKLOG = 4096
READ_BYTES = 65536


@dataclass(slots=True, eq=False)
class Peer:
    """One connection and what is left of its bytes in both directions."""

    sock: socket.socket
    coming: bytes = b""
    going: bytes = b""
    stuck: bool = False
    open: bool = True


@dataclass(slots=True, eq=False)
class Stream:
    """One streamed answer: moments are perf_counter seconds. `sent` is taken just before the kernel got the token."""

    peer: Peer
    arrived: float
    tokens: int
    chat: bool
    usage: bool
    prompt_tokens: int
    close: bool
    due: float = 0.0
    sent: list[float] = field(default_factory=list)
    late: float = 0.0


class Server:
    """Serves until it is ended. Times are seconds."""

    def __init__(self, ttft_s: float, itl_s: float) -> None:
        self.ttft_s, self.itl_s = ttft_s, itl_s
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        # Inherited by what it accepts, so that bytes which arrive before the accept are stamped too.
        self.listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.listener.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listener, select.EPOLLIN)
        self.peers: dict[int, Peer] = {}
        self.queue: list[tuple[float, int, Stream]] = []
        self.asked = 0
        self.unstamped = 0
        self.streams: list[Stream] = []
        self.events = {chat: (_event(chat, last=False), _event(chat, last=True)) for chat in (False, True)}
        self.routes: dict[str, Callable[[], bytes]] = {
            "GET /health": lambda: _json({}),
            "GET /ping": lambda: _json({}),
            "GET /": lambda: _json({}),
            "GET /version": lambda: _json({"version": "client-truth"}),
            "GET /v1/models": lambda: _json(
                {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "steelyard"}]}
            ),
            "GET /truth": lambda: _json(self.truth()),
            "POST /forget": self.forget,
        }

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def truth(self) -> dict[str, Any]:
        """Each finished or running stream since `forget`, in the order of arrival."""
        return {
            "unstamped": self.unstamped,
            "streams": [
                {"arrived": each.arrived, "wanted": each.tokens, "sent": each.sent, "late": each.late}
                for each in self.streams
            ],
        }

    def forget(self) -> bytes:
        self.streams, self.unstamped = [], 0
        return _json({})

    def serve(self) -> None:
        while True:
            wait = self.queue[0][0] - time.perf_counter() if self.queue else 1.0
            # epoll waits in whole milliseconds, rounded up: the rest is slept.
            events = self.epoll.poll(max(0.0, wait // 0.001 * 0.001 - 0.0005))
            if not events and self.queue and 0 < (left := self.queue[0][0] - time.perf_counter()) < 0.001:
                time.sleep(left)
            for number, mask in events:
                if number == self.listener.fileno():
                    self._accept()
                elif (peer := self.peers.get(number)) is not None:
                    self._serve(peer, mask)
                self._send_due()
            self._send_due()

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peers[sock.fileno()] = Peer(sock)
            self.epoll.register(sock, select.EPOLLIN)

    def _serve(self, peer: Peer, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._send(peer, b"")
        if not mask & ~select.EPOLLOUT:
            return
        try:
            data, extra, _, _ = peer.sock.recvmsg(READ_BYTES, socket.CMSG_SPACE(16))
        except BlockingIOError:
            return
        except OSError:
            data, extra = b"", []
        if not data:
            self._close(peer)
            return
        arrived = time.perf_counter()
        if extra:
            stamp = extra[0][2]
            nanoseconds = int.from_bytes(stamp[:8], sys.byteorder) * 10**9 + int.from_bytes(stamp[8:], sys.byteorder)
            arrived -= (time.time_ns() - nanoseconds) * 1e-9
        else:
            self.unstamped += 1
        peer.coming += data
        while peer.open and (end := peer.coming.find(b"\r\n\r\n")) >= 0:
            lines = peer.coming[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            size = int(headers.get("content-length", "0"))
            if len(peer.coming) < end + 4 + size:
                if headers.get("expect", "").lower() == "100-continue" and len(peer.coming) == end + 4:
                    self._send(peer, b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body = peer.coming[end + 4 : end + 4 + size]
            peer.coming = peer.coming[end + 4 + size :]
            self._answer(peer, lines[0], headers, body, arrived)

    def _answer(self, peer: Peer, first: str, headers: dict[str, str], body: bytes, arrived: float) -> None:
        method, target, *_ = (*first.split(" "), "", "")
        path = target.partition("?")[0]
        if (route := self.routes.get(f"{method} {path}")) is not None:
            self._send(peer, route())
            return
        if method != "POST" or path not in ("/v1/completions", "/v1/chat/completions"):
            self._send(peer, _json({"error": {"message": f"no {method} {path}"}}, "404 Not Found"))
            return
        asked = json.loads(body)
        chat = "chat" in path
        tokens = int(asked.get("max_completion_tokens") or asked.get("max_tokens") or 16)
        prompt = asked.get("prompt") or asked.get("messages")
        prompt_tokens = len(prompt) if isinstance(prompt, list) and not chat else len(json.dumps(prompt).split())
        if not asked.get("stream"):
            self._send(peer, _json(_whole(chat, tokens, prompt_tokens)))
            return
        wants_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        closes = headers.get("connection", "").lower() == "close"
        stream = Stream(peer, arrived, tokens, chat, wants_usage, prompt_tokens, closes, due=arrived + self.ttft_s)
        self.streams.append(stream)
        # The head goes out with the first token, so that nothing but a token ever tells a client that one came.
        self._plan(stream)

    def _plan(self, stream: Stream) -> None:
        self.asked += 1
        heapq.heappush(self.queue, (stream.due, self.asked, stream))

    def _send_due(self) -> None:
        while self.queue and self.queue[0][0] <= (now := time.perf_counter()):
            _, _, stream = heapq.heappop(self.queue)
            if not stream.peer.open:
                continue
            number = len(stream.sent)
            data = self.events[stream.chat][number + 1 == stream.tokens]
            stream.late = max(stream.late, now - stream.due)
            stream.sent.append(now)
            self._send(stream.peer, _HEAD + data if number == 0 else data)
            if number + 1 < stream.tokens:
                stream.due += self.itl_s
                self._plan(stream)
                continue
            usage = _chunk(_usage_event(stream)) if stream.usage else b""
            self._send(stream.peer, usage + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
            if stream.close:
                self._close(stream.peer)

    def _send(self, peer: Peer, data: bytes) -> None:
        if not peer.open:
            return
        peer.going += data
        try:
            peer.going = peer.going[peer.sock.send(peer.going) :]
        except BlockingIOError:
            pass
        except OSError:
            self._close(peer)
            return
        if bool(peer.going) != peer.stuck:
            peer.stuck = bool(peer.going)
            self.epoll.modify(peer.sock, select.EPOLLIN | (select.EPOLLOUT if peer.stuck else 0))

    def _close(self, peer: Peer) -> None:
        if peer.open:
            peer.open = False
            del self.peers[peer.sock.fileno()]
            peer.sock.close()


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _envelope(chat: bool, suffix: str) -> dict[str, Any]:
    kind = f"chat.completion{suffix}" if chat else "text_completion"
    return {"id": "cmpl-0123456789abcdef0123456789abcdef", "object": kind, "created": 1, "model": MODEL}


def _event(chat: bool, *, last: bool) -> bytes:
    said: dict[str, Any] = {"delta": {"role": "assistant", "content": TEXT}} if chat else {"text": TEXT}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": "length" if last else None}
    return _chunk(b"data: " + json.dumps({**_envelope(chat, ".chunk"), "choices": [choice]}).encode() + b"\n\n")


def _counts(prompt: int, tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def _usage_event(stream: Stream) -> bytes:
    usage = _counts(stream.prompt_tokens, stream.tokens)
    event = {**_envelope(stream.chat, ".chunk"), "choices": [], "usage": usage}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _whole(chat: bool, tokens: int, prompt_tokens: int) -> dict[str, Any]:
    text = TEXT * tokens
    said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choices = [{"index": 0, **said, "finish_reason": "length"}]
    return {**_envelope(chat, ""), "choices": choices, "usage": _counts(prompt_tokens, tokens)}


def _json(value: Any, status: str = "200 OK") -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def main(arguments: list[str] | None = None) -> int:
    """Serve on a free port of loopback until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client_truth_parts.server", description=__doc__)
    parser.add_argument("--ttft", type=float, required=True, help="seconds from a request's arrival to its first token")
    parser.add_argument("--itl", type=float, required=True, help="seconds between tokens")
    options = parser.parse_args(arguments)
    server = Server(options.ttft, options.itl)
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
