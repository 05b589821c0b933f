"""HTTP/1.1 answers, as far as a load client needs them: where they end, and what their body says.

Only the framing (RFC 9112) is read while the clock runs; the events of the body are read after the run.
"""

from __future__ import annotations

from collections.abc import Mapping

MAX_HEAD = 256 * 1024


class BadAnswer(ValueError):
    """What came is not an HTTP/1.1 answer."""


class Answer:
    """One answer as it comes in: `feed` bytes, get the body's bytes; `done` when it is complete."""

    __slots__ = ("_buffer", "_chunk", "_left", "done", "headers", "keep", "status")

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.done = False
        self.keep = True
        self._buffer = b""
        # Of a chunked body: "size", "data" or "trailer". None while the body is framed by length or by its end.
        self._chunk: str | None = None
        # Bytes still to come of the body or of this chunk; None if only the end of the connection tells.
        self._left: int | None = None

    @property
    def begun(self) -> bool:
        """Whether any byte came."""
        return self.status is not None or bool(self._buffer)

    def feed(self, data: bytes) -> bytes:
        """Body bytes in `data`. Raises BadAnswer."""
        if self.status is None:
            self._buffer += data
            data = self._head()
            if self.status is None:
                return b""
        if self._chunk is not None:
            return self._chunked(data)
        if self._left is None:
            return data
        body = data[: self._left]
        self._left -= len(body)
        self.done = self._left == 0
        return body

    def end(self) -> bool:
        """The connection ended. Whether the answer may end like that."""
        self.keep = False
        complete = self.status is not None and self._chunk is None and not self._left
        self.done = self.done or complete
        return complete

    def _head(self) -> bytes:
        """Read the head if it is complete, and return what follows it. Interim answers (1xx) are passed over."""
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                if len(self._buffer) > MAX_HEAD or not b"HTTP/".startswith(self._buffer[:5]):
                    raise BadAnswer(f"no HTTP answer: {self._buffer[:80]!r}")
                return b""
            first, *lines = head.decode("latin-1").split("\r\n")
            version, _, said = first.partition(" ")
            if not version.startswith("HTTP/1.") or not said[:3].isdigit():
                raise BadAnswer(f"no HTTP answer: {first[:80]!r}")
            status = int(said[:3])
            if not 100 <= status < 200:
                break
            self._buffer = rest
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.status, self.headers, self._buffer = status, headers, b""
        connection = headers.get("connection", "").lower()
        self.keep = "keep-alive" in connection if version == "HTTP/1.0" else "close" not in connection
        if "chunked" in headers.get("transfer-encoding", "").lower():
            self._chunk = "size"
        elif "content-length" in headers:
            if not headers["content-length"].isdigit():
                raise BadAnswer(f"Content-Length is {headers['content-length'][:40]!r}")
            self._left = int(headers["content-length"])
            self.done = self._left == 0
        elif status in (204, 304):
            self.done = True
        else:
            self.keep = False
        return rest

    def _chunked(self, data: bytes) -> bytes:
        buffer = self._buffer + data if self._buffer else data
        at, body = 0, []
        while not self.done:
            if self._chunk == "data":
                assert self._left is not None
                body.append(buffer[at : at + self._left])
                at += len(body[-1])
                self._left -= len(body[-1])
                if self._left:
                    break
                self._chunk = "end"
            line_end = buffer.find(b"\r\n", at)
            if line_end < 0:
                break
            line = buffer[at:line_end]
            at = line_end + 2
            if self._chunk == "end":
                if line:
                    raise BadAnswer(f"a chunk is longer than it says: {line[:40]!r}")
                self._chunk = "size"
            elif self._chunk == "size":
                try:
                    self._left = int(line.split(b";", 1)[0], 16)
                except ValueError:
                    raise BadAnswer(f"no chunk size: {line[:40]!r}") from None
                self._chunk = "data" if self._left else "trailer"
            elif not line:
                self.done = True
        self._buffer = buffer[at:]
        if self.done and self._buffer:
            # Bytes nobody asked for: the next answer on this connection could not be told from them.
            self.keep = False
        return body[0] if len(body) == 1 else b"".join(body)
