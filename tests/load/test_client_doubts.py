from __future__ import annotations

import threading
from typing import Any

import pytest

from steelyard.load import client_wire
from steelyard.load.client import OK, RequestRecord, drive
from steelyard.load.client_doubts import client_doubts
from steelyard.load.workloads import PlannedRequest
from steelyard.study import Load


def planned(count: int, output_tokens: int) -> list[PlannedRequest]:
    return [
        PlannedRequest(
            index=index, prompt=f"prompt {index}", prompt_hash="h", prompt_tokens=2, output_tokens=output_tokens,
            scheduled_s=0.0,
        )
        for index in range(count)
    ]  # fmt: skip


def record(ttft_s: float = 0.1, itl_s: float = 0.02, tokens: int = 11, **more: Any) -> RequestRecord:
    times = [ttft_s + at * itl_s for at in range(tokens)]
    return RequestRecord(
        index=0, scheduled_s=0.0, sent_s=0.0, origin_s=0.0, first_token_s=times[0], token_times_s=times, status=OK,
        end_s=times[-1], output_tokens=tokens, **more,
    )  # fmt: skip


def doubts(*records: RequestRecord, lags: Any = (), kernel_stamps: bool = True) -> list[str]:
    return client_doubts(records, lags_s=lags, kernel_stamps=kernel_stamps)


@pytest.mark.parametrize(
    ("slack_s", "itl_s", "tokens", "doubted"),
    [
        (0.0049, 0.02, 11, False),
        (0.0051, 0.02, 11, True),
        # First to last token take 80 ms, less than the TTFT: 4 ms are allowed of them.
        (0.0041, 0.008, 11, True),
        (0.0039, 0.008, 11, False),
        # Never finer than the client looks.
        (0.0029, 0.0001, 11, False),
        (0.0031, 0.0001, 11, True),
        (0.0049, 0.02, 1, False),
    ],
)
def test_first_tokens_without_a_moment_of_their_own(slack_s, itl_s, tokens, doubted):
    reasons = doubts(*[record(itl_s=itl_s, tokens=tokens, first_token_slack_s=slack_s)] * 20)
    assert bool(reasons) == doubted
    assert all("first tokens together with later ones" in each for each in reasons)


def test_one_late_look_in_many_is_tolerated():
    assert doubts(*[record()] * 39, record(first_token_slack_s=0.5)) == []
    assert doubts(*[record()] * 9, record(first_token_slack_s=0.5)) != []


def test_tokens_found_together_by_a_late_client_and_not_by_one_in_time():
    assert doubts(*[record(merged_slack_s=[0.009] * 5)] * 4) == [], "sent together by the engine"
    (reason,) = doubts(*[record(merged_slack_s=[0.011] * 5)] * 4)
    assert "45% of the tokens" in reason


def test_without_kernel_stamps_every_lag_is_an_error():
    assert doubts(record(), lags=[0.0049] * 20, kernel_stamps=False) == []
    (reason,) = doubts(record(), lags=[0.0051] * 20, kernel_stamps=False)
    assert "no kernel stamped" in reason
    assert doubts(record(), lags=[0.0051] * 20) == []
    assert doubts(kernel_stamps=False) == []


@pytest.fixture
def hog():
    """Something in this process that holds the interpreter for tens of milliseconds at a time."""
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(3_000_000))

    thread = threading.Thread(target=burn)
    yield thread.start
    stop.set()
    thread.join()


def test_a_hog_on_the_clients_loop_is_seen_and_its_engine_is_not_blamed(serve, hog):
    engine = serve(ttft_s=0.1, itl_s=0.01)
    hog()
    run = drive(engine.base_url, "demo", planned(8, 24), load=Load(concurrency=8), timeout_s=30)
    assert [each.status for each in run.records] == [OK] * 8
    assert run.kernel_stamps
    reasons = client_doubts(run.records, lags_s=run.lags_s, kernel_stamps=True)
    assert any("together" in each for each in reasons)
    assert all(each.token_times_s == sorted(each.token_times_s) for each in run.records)


def test_a_hog_is_seen_without_kernel_stamps_too(serve, hog, monkeypatch):
    monkeypatch.setattr(client_wire, "try_to_stamp", lambda sock: False)
    engine = serve(ttft_s=0.1, itl_s=0.01)
    hog()
    run = drive(engine.base_url, "demo", planned(8, 24), load=Load(concurrency=8), timeout_s=30)
    assert not run.kernel_stamps
    assert client_doubts(run.records, lags_s=run.lags_s, kernel_stamps=run.kernel_stamps)
