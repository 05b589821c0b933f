"""A connection that knows when data arrived: non-blocking sockets whose every read carries the kernel's own stamp.

A client that stamps what it reads measures itself as soon as it is busy. Linux stamps each segment on arrival
(`SO_TIMESTAMPNS`, socket(7)), so however late it is read, its moment is true. Segments that arrive before one read
share the stamp of the last: that is the only error left, and the run counts it. Where the kernel gives no stamp, the
moment of reading stands in and the answer says so.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

# Linux's asm-generic number, which Python does not export before 3.14.
SO_TIMESTAMPNS = 35
READ_BYTES = 16384
_STAMP = struct.Struct("ll")
_ROOM = socket.CMSG_SPACE(_STAMP.size)


class Arrival(NamedTuple):
    """One read: the bytes ("" at the end of the stream), when they arrived and when they were read (perf_counter, s).

    `stamped` says that the kernel gave the moment; otherwise both moments are the reading's.
    """

    data: bytes
    at: float
    read_at: float
    stamped: bool


@dataclass(slots=True)
class Target:
    """Where requests go. Resolved once: no name is looked up while a clock runs."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None
    addresses: list[tuple[socket.AddressFamily, tuple[str | int | bytes, ...]]] = field(default_factory=list)
    problem: str | None = None

    @classmethod
    def of(cls, url: str) -> Target:
        """From an http or https URL. A host that cannot be resolved is a `problem`, told by each request."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        port = parts.port or (443 if secure else 80)
        target = cls(parts.hostname or "", port, path or "/", ssl.create_default_context() if secure else None)
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            target.addresses = [(family, address) for family, _, _, _, address in found]
        except OSError as error:
            target.problem = f"cannot resolve {target.host}: {error}"
        return target

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.tls else 80
        return host if self.port == usual else f"{host}:{self.port}"


class ConnectFailed(OSError):
    """No address of the target took the connection, or TLS could not be agreed."""


class Connection:
    """One connection, driven by readiness: `proceed` until `ready`, then `send` and `receive`."""

    __slots__ = (
        "_addresses", "_out", "_tls", "_tls_in", "_tls_out", "attempt_changed", "open", "ready", "sock", "target",
        "used_at", "watched",
    )  # fmt: skip

    def __init__(self, target: Target) -> None:
        """Begin to connect. Raises ConnectFailed at once if no address can even be tried."""
        self.target, self.ready, self.open, self.used_at = target, False, True, 0.0
        # For whoever watches the socket: what it is watched for, and whether it became another one.
        self.watched, self.attempt_changed = 0, False
        self._addresses = list(target.addresses)
        self._out = b""
        self._tls: ssl.SSLObject | None = None
        self._tls_in, self._tls_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.sock = self._next_address(ConnectFailed(target.problem or f"{target.host} has no address"))

    def _next_address(self, error: OSError) -> socket.socket:
        while self._addresses:
            family, address = self._addresses.pop(0)
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try_to_stamp(sock)
                sock.connect(address)
            except BlockingIOError:
                pass
            except OSError as failed:
                sock.close()
                error = ConnectFailed(f"cannot connect to {self.target.host}:{self.target.port}: {failed}")
                continue
            return sock
        raise error

    def proceed(self) -> None:
        """Go on connecting. Raises ConnectFailed. The socket may be another one afterwards: the next address."""
        if self._tls is None:
            if number := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.sock.close()
                why = OSError(number, os.strerror(number))
                self.attempt_changed = True
                self.sock = self._next_address(
                    ConnectFailed(f"cannot connect to {self.target.host}:{self.target.port}: {why}")
                )
                return
            if self.target.tls is None:
                self.ready = True
                return
            self._tls = self.target.tls.wrap_bio(self._tls_in, self._tls_out, server_hostname=self.target.host)
        try:
            self._pull()
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
                self.ready = True
            self._push()
        except OSError as error:
            raise ConnectFailed(f"TLS with {self.target.host}:{self.target.port}: {error}") from error

    def send(self, data: bytes) -> None:
        """Give `data` to the kernel, keeping what it does not take for `flush`. Raises OSError."""
        if self._tls is not None:
            self._tls.write(data)
            self._push()
        else:
            self._out += data
            self.flush()

    def flush(self) -> None:
        """Send what was kept. Raises OSError."""
        if not self._out:
            return
        with contextlib.suppress(BlockingIOError):
            self._out = self._out[self.sock.send(self._out) :]

    @property
    def waits_to_write(self) -> bool:
        """Whether the socket must be watched for room: while connecting, and while bytes are kept."""
        return bool(self._out) or (not self.ready and self._tls is None)

    def receive(self) -> Arrival | None:
        """What has arrived. None if nothing is to be read yet. Raises OSError for a connection that broke."""
        try:
            data, extra, _, _ = self.sock.recvmsg(READ_BYTES, _ROOM)
        except BlockingIOError:
            return None
        read_at, wall = time.perf_counter(), time.time_ns()
        at, stamped = read_at, False
        if extra and data:
            seconds, nanoseconds = _STAMP.unpack(extra[0][2])
            late = (wall - seconds * 1_000_000_000 - nanoseconds) * 1e-9
            # Outside of this the machine's wall clock was set between arrival and reading.
            if 0 <= late < 3600:
                at, stamped = read_at - late, True
        if self._tls is not None and data:
            self._tls_in.write(data)
            data, ended = self._decrypt()
            if not data and not ended:
                return None
        return Arrival(data, at, read_at, stamped)

    def _decrypt(self) -> tuple[bytes, bool]:
        assert self._tls is not None
        pieces = []
        try:
            while piece := self._tls.read(READ_BYTES):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            return b"".join(pieces), False
        except ssl.SSLZeroReturnError:
            pass
        finally:
            self._push()
        return b"".join(pieces), True

    def _pull(self) -> None:
        try:
            while data := self.sock.recv(READ_BYTES):
                self._tls_in.write(data)
            self._tls_in.write_eof()
        except BlockingIOError:
            pass

    def _push(self) -> None:
        self._out += self._tls_out.read()
        self.flush()

    def close(self) -> None:
        """Close at once."""
        self.open = False
        self.sock.close()


def try_to_stamp(sock: socket.socket) -> bool:
    """Ask the kernel to stamp what arrives on `sock`; False where it cannot."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True
