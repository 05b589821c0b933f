from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import socketserver
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from steelyard.digest import text_digest
from steelyard.engines.probe import scrape
from steelyard.load.client import Dialect, drive, run_requests
from steelyard.load.workloads import PlannedRequest
from steelyard.study import Load


def planned(count: int, output_tokens: int = 8, gap_s: float = 0.0) -> list[PlannedRequest]:
    prompts = [f"prompt number {index} of this test" for index in range(count)]
    return [
        PlannedRequest(
            index=index, prompt=prompt, prompt_hash=text_digest(prompt), prompt_tokens=6,
            output_tokens=output_tokens, scheduled_s=index * gap_s,
        )
        for index, prompt in enumerate(prompts)
    ]  # fmt: skip


def closed(concurrency: int) -> Load:
    return Load(concurrency=concurrency)


def test_times_are_true(serve):
    engine = serve(ttft_s=0.08, itl_s=0.02)
    records = run_requests(engine.base_url, "demo", planned(24, 11), load=closed(4), timeout_s=10)
    assert [record.status for record in records] == ["ok"] * 24
    # A busy machine makes single requests late, never early: the best of them must be true, and so must the mean
    # against the engine's own clock, which sees the same machine.
    assert min(record.ttft_s for record in records) == pytest.approx(0.08, abs=0.006)
    assert min(record.itl_s for record in records) == pytest.approx(0.02, abs=0.001)
    own = scrape(engine)
    name = "vllm:time_to_first_token_seconds"
    mean = own[f"{name}_sum"][1] / own[f"{name}_count"][1]
    assert statistics.mean(record.ttft_s for record in records) == pytest.approx(mean, abs=0.02)
    for record in records:
        assert record.output_tokens == len(record.token_times_s) == 11
        assert record.first_token_s == record.token_times_s[0]
        assert record.scheduled_s <= record.sent_s < record.first_token_s < record.end_s
        assert record.token_times_s == sorted(record.token_times_s)
        assert record.finish_reason == "length"
        assert record.input_tokens is not None
        assert record.input_tokens > 6


def test_closed_loop_keeps_so_many_in_flight(serve):
    engine = serve(ttft_s=0.02, itl_s=0.002)
    records = run_requests(engine.base_url, "demo", planned(12), load=closed(3), timeout_s=10)
    moments = sorted(moment for record in records for moment in ((record.sent_s, 1), (record.end_s, -1)))
    flying = most = 0
    for _, step in moments:
        flying += step
        most = max(most, flying)
    assert most == 3


def test_open_loop_counts_from_the_schedule(serve):
    # One seat and 100 ms of work each, arrivals every 20 ms: the queue is real and must be in the latency.
    engine = serve(ttft_s=0.1, itl_s=0.0, max_num_seqs=1)
    records = run_requests(engine.base_url, "demo", planned(5, 2, gap_s=0.02), load=Load(rate=50.0), timeout_s=10)
    assert [record.scheduled_s for record in records] == pytest.approx([0.0, 0.02, 0.04, 0.06, 0.08])
    assert all(0 <= record.sent_s - record.scheduled_s < 0.02 for record in records)
    assert records[4].ttft_s == pytest.approx(0.5 - 0.08, abs=0.06)
    assert all(record.origin_s == record.scheduled_s for record in records)


def test_several_tokens_in_a_chunk_do_not_flatter_the_itl(serve):
    engine = serve(ttft_s=0.02, itl_s=0.01, tokens_per_chunk=4)
    (record, *_) = run_requests(engine.base_url, "demo", planned(2, 21), load=closed(1), timeout_s=10)
    assert record.output_tokens == 21
    assert len(record.token_times_s) == 6
    assert record.itl_s == pytest.approx(0.01, abs=0.003)


def test_http_errors_are_kept_apart(serve):
    engine = serve(fail_every=3)
    records = run_requests(engine.base_url, "demo", planned(6), load=closed(1), timeout_s=10)
    assert [record.status for record in records] == ["ok", "ok", "http_error"] * 2
    assert records[2].error.startswith("HTTP 500")
    assert records[2].first_token_s is None
    assert records[2].end_s is not None


def test_broken_streams_are_seen(serve):
    engine = serve(break_stream_every=2, itl_s=0.002)
    records = run_requests(engine.base_url, "demo", planned(4, 10), load=closed(1), timeout_s=10)
    assert [record.status for record in records] == ["ok", "broken_stream"] * 2
    assert 0 < len(records[1].token_times_s) < 10
    assert records[1].output_tokens is None


def test_refused_connections():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    records = run_requests(f"http://127.0.0.1:{port}", "demo", planned(6), load=closed(2), timeout_s=5)
    assert {record.status for record in records[:3]} == {"refused"}
    # After so many the rest is not even sent.
    assert records[-1].sent_s is None
    assert records[-1].status == "timeout"
    assert "not sent" in records[-1].error


def test_a_hung_engine_costs_one_timeout_not_one_a_request(serve):
    engine = serve(hang_after=2)
    started = time.perf_counter()
    records = run_requests(engine.base_url, "demo", planned(40), load=closed(4), timeout_s=0.5)
    assert time.perf_counter() - started < 3
    assert [record.status for record in records[:2]] == ["ok", "ok"]
    assert all(record.status == "timeout" for record in records[2:])
    assert records[3].error == "silent for 0.5 s"


def test_a_frozen_engine_times_out_in_the_middle_of_a_stream(serve):
    engine = serve(itl_s=0.05)

    def freeze() -> None:
        while scrape(engine)["vllm:generation_tokens_total"][1] < 5:
            time.sleep(0.02)
        os.killpg(engine.pgid, signal.SIGSTOP)

    freezer = threading.Thread(target=freeze)
    freezer.start()
    records = run_requests(engine.base_url, "demo", planned(1, 400), load=closed(1), timeout_s=1.0)
    freezer.join()
    os.killpg(engine.pgid, signal.SIGCONT)
    assert records[0].status == "timeout"
    assert records[0].token_times_s


def test_a_crash_in_flight(serve):
    engine = serve(crash_after=3)
    records = run_requests(engine.base_url, "demo", planned(8), load=closed(1), timeout_s=5)
    assert [record.status for record in records[:4]] == ["ok", "ok", "ok", "broken_stream"]
    # The kernel may still take one connection of a process that is ending.
    assert {record.status for record in records[5:7]} == {"refused"}


def test_ignore_eos_is_dropped_once_and_remembered(serve):
    engine = serve(refuse_ignore_eos=True)
    dialect = Dialect()
    records = run_requests(engine.base_url, "demo", planned(3), load=closed(1), timeout_s=5, dialect=dialect)
    assert [record.status for record in records] == ["ok"] * 3
    assert dialect.takes_ignore_eos is False
    again = run_requests(engine.base_url, "demo", planned(3), load=closed(1), timeout_s=5, dialect=dialect)
    assert [record.status for record in again] == ["ok"] * 3


def test_the_client_is_light(serve):
    engine = serve(ttft_s=0.02, itl_s=0.01)
    run = drive(engine.base_url, "demo", planned(40, 32), load=closed(8), timeout_s=10)
    # 1280 chunks in about 1.7 s; the share is far below the 0.9 at which a trial would be invalid.
    assert run.cpu_s / run.wall_s < 0.6
    assert run.wall_s == pytest.approx(5 * (0.02 + 31 * 0.01), rel=0.5)


EVENT = {"choices": [{"index": 0, "text": " a", "finish_reason": None}]}
LAST = {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def sse(*events: Any) -> bytes:
    return b"".join(
        b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n" for event in events
    )


@contextlib.contextmanager
def scripted(body: bytes, pieces: int = 1) -> Iterator[str]:
    """A server that answers every request with these very bytes, cut into so many pieces."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            size = -(-len(body) // pieces) or 1
            for start in range(0, len(body), size):
                self.wfile.write(body[start : start + size])
                time.sleep(0.001)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def ask(url: str) -> Any:
    return run_requests(url, "demo", planned(1, 2), load=closed(1), timeout_s=2)[0]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (sse(EVENT, EVENT, LAST, USAGE, b"[DONE]"), "ok", None),
        (sse(EVENT, LAST, USAGE), "broken_stream", "without [DONE]"),
        (sse(EVENT, LAST, b"[DONE]"), "broken_stream", "without usage"),
        (sse(EVENT, USAGE, b"[DONE]"), "broken_stream", "without finish reason"),
        (sse(LAST, {"usage": {"completion_tokens": 0, "prompt_tokens": 3}}, b"[DONE]"), "no_tokens", "no token"),
        (sse(EVENT, {"error": {"message": "EngineDeadError"}}, b"[DONE]"), "broken_stream", "EngineDeadError"),
        (sse(EVENT, b"{broken"), "broken_stream", "no JSON"),
        (sse(EVENT, {"choices": [None]}, USAGE, b"[DONE]"), "broken_stream", "choices that are none"),
        (sse(EVENT, {"choices": ["x"]}, USAGE, b"[DONE]"), "broken_stream", "choices that are none"),
        (sse(EVENT, {"choices": 5}, USAGE, b"[DONE]"), "broken_stream", "choices that are none"),
        (sse(EVENT, {"choices": [{"finish_reason": 3}]}, b"[DONE]"), "broken_stream", "choices that are none"),
        (sse(EVENT, LAST, {"usage": {"completion_tokens": -1}}, b"[DONE]"), "broken_stream", "without usage"),
        (sse(EVENT, LAST, {"usage": {"completion_tokens": True}}, b"[DONE]"), "broken_stream", "without usage"),
        (b"", "broken_stream", "finish reason or usage or [DONE]"),
    ],
)
def test_a_stream_is_whole_or_broken(body, status, error):
    with scripted(body) as url:
        record = ask(url)
    assert record.status == status
    assert (record.error is None) if error is None else (error in record.error)


@pytest.mark.parametrize("pieces", [1, 3, 40, 10_000])
def test_events_survive_any_cutting_and_line_ending(pieces):
    body = sse(EVENT, EVENT, LAST, USAGE, b"[DONE]").replace(b"\n", b"\r\n")
    with scripted(b": a comment\r\n\r\n" + body, pieces) as url:
        record = ask(url)
    assert (record.status, record.output_tokens, len(record.token_times_s)) == ("ok", 2, 2)


def test_half_characters_count_as_tokens():
    half = {"choices": [{"index": 0, "text": "", "finish_reason": None}]}
    with scripted(sse(half, LAST, USAGE, b"[DONE]")) as url:
        record = ask(url)
    # The last token came with the finish reason and no text: usage says there were two.
    assert record.status == "ok"
    assert len(record.token_times_s) == 2


def test_many_at_once_stay_on_time(serve):
    engine = serve(ttft_s=0.05, itl_s=0.01)
    records = run_requests(engine.base_url, "demo", planned(60, 8, gap_s=0.01), load=Load(rate=100.0), timeout_s=10)
    lateness = sorted(record.sent_s - record.scheduled_s for record in records)
    assert lateness[int(0.95 * len(lateness))] < 0.02
