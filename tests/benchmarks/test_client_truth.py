from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import client_truth
from benchmarks.client_truth_parts import report
from benchmarks.client_truth_parts.cell import Cell, Result, Said, errors_of, truth_of
from benchmarks.client_truth_parts.clients import CLIENTS, Client, run
from benchmarks.client_truth_parts.rivals import Unavailable
from benchmarks.client_truth_parts.search import LAST_RATE, Step, highest_rate
from steelyard.errors import InputError

CELL = Cell(requests=2, tokens=3, streams=2)


def told(*streams: tuple[float, list[float]], wanted: int = 3) -> dict[str, Any]:
    return {
        "unstamped": 0,
        "streams": [{"arrived": at, "sent": sent, "wanted": wanted, "late": 0.001} for at, sent in streams],
    }


def test_truth_is_what_the_server_did_without_probes():
    truth = truth_of(told((0.0, [9.0, 9.1, 9.2]), (1.0, [1.05, 1.07, 1.09]), (2.0, [2.06, 2.09, 2.12])), CELL)
    assert truth.ttfts == pytest.approx([0.05, 0.06])
    assert truth.itls == pytest.approx([0.02, 0.03])
    assert truth.gaps == pytest.approx([0.02, 0.02, 0.03, 0.03])
    assert truth_of(told((1.0, [1.05, 1.07])), CELL).ttfts == [], "not finished"
    assert truth_of(told((1.0, [1.05]), wanted=1), CELL).ttfts == [], "a probe"


def test_errors_are_signed_fractions():
    truth = truth_of(told((1.0, [1.05, 1.07, 1.09]), (2.0, [2.05, 2.07, 2.09])), CELL)
    errors = errors_of(Said(ttfts=[0.06, 0.06], itls=[0.019, 0.019]), truth)
    assert errors["ttft_p50_err"] == pytest.approx(0.2)
    assert errors["itl_p99_err"] == pytest.approx(-0.05)
    assert "gap_p50_err" not in errors


@pytest.mark.parametrize(
    ("limit", "expected", "capped"), [(30, None, False), (50, 50.0, False), (480, 475.7, False), (1e9, LAST_RATE, True)]
)
def test_the_search_finds_the_last_honest_rate(limit, expected, capped):
    search = highest_rate(lambda rate, attempt: Step(rate=rate, error=0.01 if rate <= limit else 0.2))
    assert search.rate == (None if expected is None else pytest.approx(expected, abs=0.1))
    assert search.capped == capped


def test_one_unlucky_run_does_not_end_the_search():
    search = highest_rate(lambda rate, attempt: Step(rate=rate, error=0.9 if attempt == 0 else 0.0))
    assert search.rate == LAST_RATE
    failing = highest_rate(lambda rate, attempt: Step(rate=rate, error=None, problem="it broke"))
    assert (failing.rate, len(failing.steps)) == (None, 2)


def result(client: str, error: float, streams: int = 20) -> Result:
    errors = dict.fromkeys(("ttft_p50_err", "ttft_p99_err", "itl_p50_err", "itl_p99_err"), error)
    return Result(
        client=client, cell=Cell(requests=2, tokens=3, streams=streams), round=0, errors=errors, requests=2,
        true_ttft_p50_s=0.05, said_ttft_p50_s=0.05 * (1 + error), cpu_s=1.0, wall_s=1.0,
    )  # fmt: skip


def test_a_truer_rival_is_named():
    ours, worse, better = result("steelyard", 0.05), result("worse", -0.5), result("better", -0.01)
    assert report.summary([ours, worse], {}, {}, wall_s=1.0)["ours_is_truest"] is True
    said = report.summary([ours, worse, better], {}, {}, wall_s=1.0)
    assert said["ours_is_truest"] is False
    assert "better 20 ttft_p50_err" in said["truer_than_ours"]
    assert report.summary([ours], {}, {}, wall_s=1.0)["ours_is_truest"] is False, "nothing to compare with"


def test_a_client_that_fails_says_why(tmp_path):
    broken = Client(
        "broken", lambda *_: ["sh", "-c", "echo the reason; exit 3"], lambda folder: Said(ttfts=[], itls=[])
    )
    with pytest.raises(Unavailable, match=r"status 3.*the reason"):
        run(broken, "http://127.0.0.1:1", CELL, tmp_path, 0)
    silent = Client("silent", lambda *_: ["true"], CLIENTS[0].read)
    with pytest.raises(Unavailable, match="wrote nothing usable"):
        run(silent, "http://127.0.0.1:1", CELL, tmp_path, 0)


def test_an_unknown_client_is_refused():
    with pytest.raises(InputError, match="no client curl"):
        client_truth.run(client_truth._options(["--clients", "curl"]))


def test_our_client_and_a_plain_one_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(client_truth, "STREAMS", (4, 8))
    monkeypatch.setattr(client_truth, "REQUESTS_PER_STREAM", {4: 2, 8: 2})
    monkeypatch.setattr(client_truth, "RATE_S", 0.2)
    status = client_truth.main(["--quick", "--clients", "steelyard,aiohttp", "--out", str(tmp_path / "out")])
    assert status == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["bench"] == "client_truth"
    assert said["problems"] == {}
    for client in ("steelyard", "aiohttp"):
        for count in ("4", "8"):
            figures = said["clients"][client][count]
            assert {"ttft_p50_err", "ttft_p99_err", "itl_p50_err", "itl_p99_err", "cpu_s"} <= figures.keys()
    # However busy the machine, stamps of arrival are within a fraction of a millisecond of what the server did.
    assert abs(said["clients"]["steelyard"]["8"]["ttft_p50_err"]) < 0.05
    page = (tmp_path / "out" / report.PAGE).read_text()
    assert "### 8 streams" in page
    assert (tmp_path / "out" / "client-truth.svg").read_text().startswith("<svg")
