from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steelyard.load import client_loop, client_wire
from steelyard.load.client import drive, run_requests
from steelyard.load.client_http import Answer, BadAnswer
from steelyard.load.workloads import PlannedRequest
from steelyard.study import Load

EVENTS = [
    {"choices": [{"index": 0, "text": " a", "finish_reason": None}]},
    {"choices": [{"index": 0, "text": " b", "finish_reason": "length"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
]
BODY = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in EVENTS) + b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def chunked(body: bytes, size: int = 7, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(f"{len(piece):X}".encode() + extension + b"\r\n" + piece + b"\r\n" for piece in pieces)
    return framed + b"0\r\n" + trailer + b"\r\n"


ANSWERS = {
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY),
    "chunked, extensions and trailer": HEAD
    + b"transfer-encoding:Chunked\r\n\r\n"
    + chunked(BODY, 50, b";x=y", b"Server-Timing: 1\r\n"),
    "by length": HEAD + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY,
    "interim first": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    + chunked(BODY),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("size", [1, 2, 13, 100_000])
def test_answers_survive_any_cutting(name, size):
    answer, data = Answer(), ANSWERS[name]
    body = b"".join(answer.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert (body, answer.done, answer.keep, answer.status) == (BODY, True, True, 200)


def test_an_answer_that_ends_with_its_connection():
    answer = Answer()
    assert answer.feed(HEAD + b"\r\n" + BODY) == BODY
    assert not answer.done
    assert (answer.end(), answer.done, answer.keep) == (True, True, False)


@pytest.mark.parametrize("name", ["chunked", "by length"])
def test_a_cut_answer_is_not_complete(name):
    answer = Answer()
    answer.feed(ANSWERS[name][:-20])
    assert not answer.end()
    assert not Answer().end()


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/2 200\r\n\r\n", HEAD + b"Content-Length: -4\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(data):
    with pytest.raises(BadAnswer):
        Answer().feed(data)


Reply = Callable[[socket.socket, int], None]


@contextlib.contextmanager
def serving(reply: Reply, tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[Any]]]:
    """Calls `reply(connection, number of its request)` for each request; yields port and what was asked by whom."""
    asked: list[Any] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            sock = self.request
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):
                if tls is not None:
                    sock = tls.wrap_socket(sock, server_side=True)
                file = sock.makefile("rb")
                for number in range(1000):
                    lines = []
                    while line := file.readline().strip():
                        lines.append(line.decode())
                    if not lines:
                        break
                    headers = dict(each.split(": ", 1) for each in lines[1:])
                    asked.append(
                        (self.client_address[1], headers, json.loads(file.read(int(headers["Content-Length"]))))
                    )
                    reply(sock, number)
                    if headers.get("X-End"):
                        break
                file.close()
                sock.close()

    class Threads(socketserver.ThreadingTCPServer):
        daemon_threads = False
        block_on_close = True
        request_queue_size = 64

    with Threads(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()


def planned(count: int, gap_s: float = 0.0, prompt: str = "p") -> list[PlannedRequest]:
    return [
        PlannedRequest(
            index=index, prompt=prompt, prompt_hash="h", prompt_tokens=1, output_tokens=2, scheduled_s=index * gap_s
        )
        for index in range(count)
    ]


def whole(sock: Any, number: int) -> None:
    sock.sendall(ANSWERS["chunked"])


def test_connections_are_kept_and_made_before_the_clock():
    with serving(whole) as (port, asked):
        records = run_requests(f"http://127.0.0.1:{port}", "demo", planned(12), load=Load(concurrency=3), timeout_s=5)
    assert {each.status for each in records} == {"ok"}
    assert len({peer for peer, _, _ in asked}) == 3


def test_a_server_that_ends_its_connections_is_asked_on_new_ones():
    def reply(sock: Any, number: int) -> None:
        sock.sendall(HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(BODY))
        sock.shutdown(socket.SHUT_RDWR)

    with serving(reply) as (port, asked):
        records = run_requests(f"http://127.0.0.1:{port}", "demo", planned(6), load=Load(concurrency=2), timeout_s=5)
    assert {each.status for each in records} == {"ok"}
    assert len({peer for peer, _, _ in asked}) == 6


def test_an_idle_connection_that_the_server_ended_is_not_used():
    def reply(sock: Any, number: int) -> None:
        sock.sendall(ANSWERS["chunked"])
        sock.shutdown(socket.SHUT_RDWR)

    with serving(reply) as (port, _):
        records = run_requests(f"http://127.0.0.1:{port}", "demo", planned(4, 0.4), load=Load(rate=2.5), timeout_s=5)
    assert {each.status for each in records} == {"ok"}


def test_a_long_prompt_is_sent_whole():
    with serving(whole) as (port, asked):
        prompt = "word " * 2_000_000
        (record,) = run_requests(
            f"http://127.0.0.1:{port}", "demo", planned(1, prompt=prompt), load=Load(concurrency=1), timeout_s=20,
            api_key="secret",
        )  # fmt: skip
    assert record.status == "ok"
    ((_, headers, body),) = asked
    assert body["prompt"] == prompt
    assert headers["Authorization"] == "Bearer secret"


def test_garbage_instead_of_http():
    with serving(lambda sock, number: sock.sendall(b"220 smtp ready\r\n\r\n")) as (port, _):
        (record,) = run_requests(f"http://127.0.0.1:{port}", "demo", planned(1), load=Load(concurrency=1), timeout_s=5)
    assert record.status == "broken_stream"
    assert "no HTTP answer" in record.error


def test_a_moved_engine_is_an_error_that_says_where_to():
    moved = (
        b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://elsewhere/v1/completions\r\nContent-Length: 0\r\n\r\n"
    )
    with serving(lambda sock, number: sock.sendall(moved)) as (port, _):
        (record,) = run_requests(f"http://127.0.0.1:{port}", "demo", planned(1), load=Load(concurrency=1), timeout_s=5)
    assert record.status == "http_error"
    assert "moved to https://elsewhere" in record.error


def test_a_name_that_nobody_knows():
    (record, *_) = run_requests("http://nobody.invalid", "demo", planned(2), load=Load(concurrency=1), timeout_s=5)
    assert record.status == "refused"
    assert "nobody.invalid" in record.error


def test_answers_past_the_bound_are_read_on_the_way(monkeypatch):
    monkeypatch.setattr(client_loop, "HELD_BYTES", 500)
    with serving(whole) as (port, _):
        records = run_requests(f"http://127.0.0.1:{port}", "demo", planned(9), load=Load(concurrency=3), timeout_s=5)
    assert [(each.status, each.output_tokens) for each in records] == [("ok", 2)] * 9


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder / "key.pem", "-out",
         folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


def test_tls_is_measured_with_kernel_stamps_as_well(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serving(whole, context) as (port, asked):
        run = drive(f"https://127.0.0.1:{port}", "demo", planned(9), load=Load(concurrency=3), timeout_s=5)
    assert [each.error for each in run.records] == [None] * 9
    assert run.kernel_stamps
    assert len({peer for peer, _, _ in asked}) == 3


def test_a_certificate_that_is_not_trusted_is_refused(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serving(whole, context) as (port, _):
        (record,) = run_requests(f"https://127.0.0.1:{port}", "demo", planned(1), load=Load(concurrency=1), timeout_s=5)
    assert record.status == "refused"
    assert "certificate" in record.error.lower()


def test_a_late_reader_knows_when_data_came():
    """The point of it all: data waits 150 ms to be read, and its moment is that of its arrival."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = client_wire.Target.of(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        connection = client_wire.Connection(target)
        peer, _ = listener.accept()
        connection.proceed()
        # The kernel starts to stamp a moment after the first socket asks for it.
        time.sleep(0.05)
        before = time.perf_counter()
        peer.sendall(b"x")
        after = time.perf_counter()
        time.sleep(0.15)
        arrival = connection.receive()
        assert arrival.stamped
        assert before - 0.001 <= arrival.at <= after + 0.001
        assert arrival.read_at - arrival.at > 0.1
        peer.close()
        connection.close()
