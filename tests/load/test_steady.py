"""A trial that slows down, or whose queue only grows, is marked; one that is merely noisy is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from steelyard.load.client import RequestRecord
from steelyard.load.steady import drifts, steady_figures
from steelyard.study import Load

CLOSED, OPEN = Load(concurrency=4, rate=None), Load(concurrency=None, rate=10.0)
TOKENS = 11


def record(index: int, start: float, itl: float, *, wait: float = 0.01) -> RequestRecord:
    first = start + wait
    times = [first + itl * at for at in range(TOKENS)]
    return RequestRecord(
        index=index, scheduled_s=start, sent_s=start, origin_s=start, first_token_s=first, token_times_s=times,
        end_s=times[-1], input_tokens=8, output_tokens=TOKENS, status="ok", finish_reason="length", error=None,
    )  # fmt: skip


def closed(paces: Sequence[float]) -> list[RequestRecord]:
    """Four streams, each sending its next request when the last one ended."""
    free = [0.0] * 4
    found = []
    for index, pace in enumerate(paces):
        stream = min(range(4), key=lambda at: free[at])
        found.append(record(index, free[stream], pace))
        free[stream] = found[-1].end_s or 0.0
    return found


def noise(index: int) -> float:
    return 1 + 0.05 * ((index * 7919 % 13) / 6 - 1)


def test_an_engine_that_slows_down_is_marked() -> None:
    found = steady_figures(closed([0.02 * (1 + at / 40) * noise(at) for at in range(40)]), CLOSED)
    assert drifts(found["itl_drift"], found["itl_drift_p"])
    assert 0.2 < found["itl_drift"] < 0.9
    assert found["saturated"] is None


def test_noise_is_not() -> None:
    found = steady_figures(closed([0.02 * noise(at) for at in range(40)]), CLOSED)
    assert not drifts(found["itl_drift"], found["itl_drift_p"])


def test_the_emptying_at_the_end_of_a_closed_loop_is_no_drift() -> None:
    paces = [0.02 * noise(at) for at in range(36)] + [0.005] * 4
    found = steady_figures(closed(paces), CLOSED)
    assert not drifts(found["itl_drift"], found["itl_drift_p"])


def test_a_small_drift_is_of_no_consequence_however_sure() -> None:
    assert not drifts(0.05, 1e-9)
    assert not drifts(0.5, 0.2)
    assert not drifts(None, None)
    assert drifts(-0.2, 1e-4)


@pytest.mark.parametrize(("service_s", "grew"), [(0.05, False), (0.3, True)])
def test_a_queue_that_only_grows_is_saturation(service_s: float, grew: bool) -> None:
    """One server, an arrival every 0.1 s."""
    free, found = 0.0, []
    for index in range(40):
        due = index * 0.1
        begin = max(due, free)
        free = begin + service_s
        found.append(record(index, due, service_s / TOKENS, wait=begin - due))
    assert steady_figures(found, OPEN)["saturated"] is grew


def test_requests_that_never_end_stay_in_the_queue() -> None:
    hung = [
        dataclasses.replace(record(index, index * 0.1, 0.001), end_s=None, status="timeout", token_times_s=[])
        for index in range(30)
    ]
    assert steady_figures(hung, OPEN)["saturated"] is True


def test_few_requests_say_nothing() -> None:
    few = [record(index, index * 0.1, 0.001) for index in range(5)]
    assert steady_figures(few, OPEN) == {"itl_drift": None, "itl_drift_p": None, "saturated": None}
