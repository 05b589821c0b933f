"""The reviewer's desk over real rows: every link leads to rows, and only a reader on this machine is answered."""

from __future__ import annotations

import html
import http.client
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin

import pytest

from pipelines import desk
from steelyard.records import ROWS
from warehouse.example import example, example_run
from warehouse.publish import publish

COMPARED = {
    "output_tokens_per_s": "chat%40c8", "usd_per_million_output_tokens": "chat%40c8", "score": "facts",
    "kl_nats": "prompts",
}  # fmt: skip
LINK = re.compile(r'href="([^"#][^"]*)"')


@pytest.fixture(scope="module")
def run_id(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, example() as store:
        patch.setenv("STEELYARD_HOME", str(tmp_path_factory.mktemp("home")))
        publish(store)
        yield example_run(store)


def links(path: str) -> list[str]:
    return [urljoin(path, html.unescape(each)) for each in LINK.findall(desk.page(path))]


def test_runs_lead_to_a_run_and_a_run_to_its_tables(run_id: str) -> None:
    assert f"/runs/{run_id}" in links("/")
    tables = [each for each in links(f"/runs/{run_id}") if each.count("/") == 3 and "?" not in each]
    assert f"/runs/{run_id}/samples" in tables
    for each in tables:
        assert "No such row" not in desk.page(each)


@pytest.mark.parametrize("table", [each.TABLE for each in ROWS] + ["sample_pairs", "verdict_evidence"])
def test_every_row_has_a_page_and_what_it_rests_on_is_there(run_id: str, table: str) -> None:
    of_table = f"/runs/{run_id}/{table}"
    rows = [each for each in links(of_table) if each.startswith(f"{of_table}?") and "at=" not in each]
    for row in rows[:: max(1, len(rows) // 3)]:
        page = desk.page(row)
        assert "One row." in page
        for rest in [each for each in links(row) if each.startswith(f"/runs/{run_id}/") and not each.endswith(table)]:
            assert "No such row" not in desk.page(rest), (row, rest)


def test_from_a_verdict_one_comes_down_to_requests_answers_and_weights(run_id: str) -> None:
    seen, ahead = Counter[str](), [f"/runs/{run_id}/verdicts?arm=batching"]
    # A gate of each kind leads to one of these.
    compared = f"/runs/{run_id}/comparisons?arm=batching"
    ahead += [f"{compared}&metric={each}&scope={scope}" for each, scope in COMPARED.items()]
    known = set[str]()
    for path in ahead:
        if path in known:
            continue
        known.add(path)
        table = path.rpartition("/")[2].partition("?")[0]
        # Tables are wide: some rows of each show every way down.
        if path.startswith(f"/runs/{run_id}/") and seen[table] < 12:
            seen[table] += 1
            found = links(path)
            ahead += found if len(found) < 20 else [*found[:20], *found[20::3]]
    assert set(seen) >= {
        "verdicts", "gate_results", "comparisons", "trials", "requests", "samples", "suites", "arms", "studies",
        "unit_costs", "prices", "engine_metrics", "divergences", "sample_pairs",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/runs/nowhere", "Run nowhere is not published."),
        ("/runs/{run}/no_such_table", "There is no table no_such_table."),
        ("/runs/{run}/trials?no_such=1", "trials has no column no_such."),
        ("/runs/{run}/trials?block=one", "is no BIGINT, which trials.block is."),
        ("/runs/{run}/trials?at=-1", "is no place to begin at."),
        ("/runs/{run}/packet", "There is no packet of run"),
        ("/runs/{run}/trials?at=99999999999999999999", "is no place to begin at."),
        ("/elsewhere", "There is no page /elsewhere."),
        ("/runs/{run}/trials?arm=%27%20OR%20true%20--", "No such row."),
    ],
)
def test_what_leads_nowhere_says_so(run_id: str, path: str, said: str) -> None:
    with Serving() as port:
        status, page = asked(port, path.format(run=run_id))
    assert said in html.unescape(page)
    assert status == (200 if said == "No such row." else 404)


def test_another_host_and_other_methods_are_refused(run_id: str) -> None:
    with Serving() as port:
        assert asked(port, "/", host="rebound.example.org")[0] == 421
        assert asked(port, "/", host="[")[0] == 421
        assert asked(port, "/", host=f"localhost:{port}")[0] == 200
        assert asked(port, "/", method="POST")[0] == 501
        assert asked(port, "/", method="HEAD") == (200, "")


def test_texts_of_models_are_shown_and_not_run(run_id: str) -> None:
    assert "<script" not in desk.page(f"/runs/{run_id}/samples")
    assert "default-src 'none'" in desk.page(f"/runs/{run_id}/samples")


def test_beside_another_program_it_ends_with_it(tmp_path: Path) -> None:
    code = "import os, sys; from pipelines import desk; desk.beside(0); os.execvp('sleep', ['sleep', '60'])"
    started = subprocess.Popen([sys.executable, "-c", code])
    try:
        child = waited_for(lambda: children(started.pid))
    finally:
        started.kill()
        started.wait()
    waited_for(
        lambda: not Path(f"/proc/{child[0]}").exists() or "zombie" in Path(f"/proc/{child[0]}/status").read_text()
    )


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def waited_for(what):  # type: ignore[no-untyped-def]
    end = time.monotonic() + 30
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


class Serving:
    """The desk on a free port."""

    def __enter__(self) -> int:
        self._server = ThreadingHTTPServer((desk.LOOPBACK, 0), desk.Desk)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return int(self._server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def asked(port: int, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(desk.LOOPBACK, port, timeout=30)
    try:
        connection.request(method, path, headers={"Host": host or f"{desk.LOOPBACK}:{port}", "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
