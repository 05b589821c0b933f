"""A search on engines of known truth: it stacks what pays, leaves out what harms, and an ordinary run judges it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from fake_study import write_fake_study
from tests_support import processes_below, until

pytestmark = pytest.mark.e2e

CLAIM = {"workload": "chat", "load": "c16"}
CANDIDATES = [
    {"name": "batching", "lever": "batching", "claim": CLAIM, "args": {"max_num_seqs": 16}},
    {"name": "quick", "lever": "engine", "claim": CLAIM, "args": {"itl_s": 0.001}},
    {"name": "slow", "lever": "engine", "claim": CLAIM, "args": {"ttft_s": 0.03}},
    {"name": "unsafe", "lever": "quantization", "claim": CLAIM, "args": {"ttft_s": 0.005, "unsafe_share": 0.3}},
    {"name": "broken", "lever": "attention", "claim": CLAIM, "args": {"refuse_start": True}},
]
ASKED = ("--budget", "5m", "--number", "max_num_seqs=8,16", "--quiet")


def begin(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "steelyard", *arguments],
        env={**os.environ, "STEELYARD_HOME": str(home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def steelyard(home: Path, *arguments: str) -> tuple[int, str, str]:
    process = begin(home, *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_study(
        tmp_path_factory.mktemp("tune") / "study", candidates=CANDIDATES, batch=60,
        controls=[{"name": "identity", "kind": "identity"}],
    )  # fmt: skip


@pytest.fixture(scope="module")
def ran(study: Path) -> dict[str, Any]:
    """A search that was killed while it measured, and the same command again."""
    home = study.parent / "var"
    first = begin(home, "tune", str(study), *ASKED)
    assert until(lambda: len(list((home / "logs").glob("*-fake-search-*/*.log"))) >= 4, 60)
    time.sleep(2.0)
    assert first.poll() is None, first.communicate()
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    status, out, err = steelyard(home, "tune", str(study), *ASKED)
    assert status == 0, (out, err)
    return {"home": home, "out": out, "told": json.loads(out.strip().splitlines()[-1])}


def rows(ran: dict[str, Any], sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(ran["home"] / "published" / "steelyard.duckdb", read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_what_pays_is_stacked_and_judged_afresh(ran: dict[str, Any]) -> None:
    told = ran["told"]
    assert set(told["levers"]) == {"batching", "quick"}
    assert told["change"]["args"]["itl_s"] == 0.001
    assert told["gain"] > 2
    assert told["verdicts"]["tuned"] == "promote"
    assert "batching" in ran["out"]


def test_what_harms_breaks_or_slows_is_left_out_and_named(ran: dict[str, Any]) -> None:
    fates = dict(rows(ran, "SELECT arm, fate FROM stacks WHERE stage = 'screen'"))
    assert fates["unsafe"] == "harmful"
    assert fates["broken"] == "failed"
    assert fates["slow"] in ("slower", "no gain")
    ((reason,),) = rows(ran, "SELECT reason FROM stacks WHERE arm = 'broken' LIMIT 1")
    assert "before its first token" in reason


def test_a_killed_search_is_one_search_without_doubles(ran: dict[str, Any]) -> None:
    assert rows(ran, "SELECT count(*) FROM searches") == [(1,)]
    assert rows(ran, "SELECT status FROM studies WHERE study = 'fake-search'") == [("searched",)]
    ((trials, distinct),) = rows(
        ran, "SELECT count(*), count(DISTINCT (arm, load_point, block)) FROM trials WHERE run_id LIKE '%-fake-search-%'"
    )
    assert trials == distinct > 0
    ((spent,),) = rows(ran, "SELECT spent_s FROM searches")
    assert spent > 2
    assert processes_below(ran["home"]) == []


def test_the_judging_run_is_an_ordinary_one(ran: dict[str, Any]) -> None:
    confirmed = ran["told"]["confirmed_by"]
    assert rows(ran, f"SELECT study, status FROM studies WHERE run_id = '{confirmed}'") == [("fake-tuned", "complete")]
    # What a search measured is no attempt: nothing of it is used by the verdict.
    assert rows(ran, f"SELECT attempt FROM arms WHERE run_id = '{confirmed}' AND arm = 'tuned'") == [(1,)]
    status, out, err = steelyard(ran["home"], "recompute", confirmed)
    assert status == 0, (out, err)


def test_the_page_shows_the_front(ran: dict[str, Any]) -> None:
    page = (ran["home"] / "reports" / f"{ran['told']['run_id']}.html").read_text("utf-8")
    assert "<svg" in page
    assert "Judged afresh" in page
    ((pulled,),) = rows(ran, f"SELECT DISTINCT pulled FROM stacks WHERE arm = '{ran['told']['winner']}'")
    # A number may be set beside the levers, where noise made it look worth having.
    assert re.search(rf"{re.escape(' + '.join(pulled))}( \+ max_num_seqs \d+)?<small>what the search found best", page)
    assert len(rows(ran, "SELECT arm FROM pareto_front")) >= 2
    assert "http" not in page.replace("http-equiv", "")


def test_a_search_has_no_verdict_to_show(ran: dict[str, Any]) -> None:
    for command in ("report", "recompute"):
        status, _, err = steelyard(ran["home"], command, ran["told"]["run_id"])
        assert status == 2
        assert "is a search, which judges nobody" in err
    # The newest run that can be shown is the one that judged.
    status, out, _ = steelyard(ran["home"], "report")
    assert status == 0
    assert ran["told"]["confirmed_by"] in out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--budget", "soon"), "--budget: 'soon' is no time"),
        (("--budget", "1m", "--levers", "warp-drive"), "there is no lever warp-drive. There are batching"),
        (("--budget", "1m", "--start", "slow,unsafe"), "slow and unsafe exclude each other: both set ttft_s"),
        (("--budget", "1m", "--at", "chat@c99"), "there is no load point chat@c99"),
        (("--budget", "3s", "--number", "none"), "--budget is too small: one block of"),
    ],
)
def test_bad_input_is_one_sentence(study: Path, tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    status, _, err = steelyard(tmp_path, "tune", str(study), "--quiet", *flags)
    assert status == 2
    assert said in err
    assert "Traceback" not in err
    assert processes_below(tmp_path) == []
