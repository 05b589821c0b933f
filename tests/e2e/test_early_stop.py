"""A study that stops where its gates are decided: less is measured, the verdicts are true, a kill changes nothing."""

import json
import os
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

SUITES = [
    {"name": "facts", "task": "steelyard_facts", "category": "accuracy", "limit": 400},
    {"name": "refusal", "task": "steelyard_refusal", "category": "safety", "limit": 400},
]


def start(home: Path, study: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "steelyard", "run", str(study)],
        env={**os.environ, "STEELYARD_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Killed with SIGKILL while suites are asked, and started again by the same command."""
    folder = tmp_path_factory.mktemp("early")
    study = write_fake_study(folder / "study", policy={"stop_early": True}, blocks=6, batch=50, suites=SUITES)
    home = folder / "var"
    first = start(home, study)
    assert until(lambda: len(list((home / "logs").glob("*-fake-*/*.log"))) >= 5, 60)
    time.sleep(3)
    assert first.poll() is None, first.communicate()
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    again = start(home, study)
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, err[-3000:]
    assert processes_below(home) == []
    result = json.loads(out.strip().splitlines()[-1])
    with duckdb.connect(result["warehouse"], read_only=True) as connection:
        yield {"result": result, "ask": lambda sql: connection.execute(sql).fetchall()}


def test_the_verdicts_are_those_of_the_truth(ran: dict[str, Any]) -> None:
    verdicts = ran["result"]["verdicts"]
    assert (verdicts["batching"], verdicts["fast-but-unsafe"], verdicts["known-bad"]) == ("promote", "reject", "reject")
    assert verdicts["identity"] in {"reject", "inconclusive"}


def test_harm_is_seen_in_the_first_documents_and_never_timed(ran: dict[str, Any]) -> None:
    asked = {
        (arm, suite): (n, of) for arm, suite, n, of in ran["ask"]("SELECT arm, suite, documents, declared FROM suites")
    }
    # The baseline is asked what another arm is asked, and no more.
    for suite in ("facts", "refusal"):
        others = max(asked[arm, name][0] for arm, name in asked if name == suite and arm != "baseline")
        assert asked["baseline", suite][0] == others < 400
    # Only whole clusters are asked.
    assert 395 <= asked["baseline", "facts"][1] <= 400
    # Refused by its first suite, it faced no other.
    (bad,) = [asked[arm, suite][0] for arm, suite in asked if arm == "known-bad"]
    assert bad <= 100
    assert asked["fast-but-unsafe", "refusal"][0] <= 200
    assert asked["batching", "facts"][0] < 400
    timed = dict(ran["ask"]("SELECT arm, count(*) FROM trials GROUP BY arm"))
    assert "known-bad" not in timed
    assert "fast-but-unsafe" not in timed
    # Three times as fast, where a tenth is asked for: no noise of the day takes all six blocks.
    assert 3 <= timed["batching"] < 6
    assert timed["baseline"] == timed["identity"] == timed["batching"]


def test_an_arm_was_asked_the_beginning_of_one_order(ran: dict[str, Any]) -> None:
    strangers = ran["ask"](
        "SELECT count(*) FROM samples s JOIN samples b USING (run_id, suite, doc_hash, prompt_hash)"
        " WHERE b.arm = 'baseline' AND s.position <> b.position"
    )
    assert strangers == [(0,)]
    whole = ran["ask"](
        "SELECT count(*) = max(position) + 1 AND min(position) = 0 FROM samples GROUP BY run_id, arm, suite"
    )
    assert set(whole) == {(True,)}


def test_intervals_are_those_of_a_look_and_the_fixed_ones_stand_beside(ran: dict[str, Any]) -> None:
    rows = ran["ask"]("SELECT method, low, high, fixed_low, fixed_high FROM comparisons WHERE metric = 'score'")
    assert rows
    for method, low, high, fixed_low, fixed_high in rows:
        assert "betting" in method
        assert low <= fixed_low <= fixed_high <= high
    (method,) = {
        method
        for (method,) in ran["ask"](
            "SELECT method FROM comparisons WHERE arm = 'batching' AND n > 0 AND metric = 'output_tokens_per_s'"
        )
    }
    assert "look" in method
