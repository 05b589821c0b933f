"""A night as a whole on the fake engine: killed, resumed, stopped by its budget, and told of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from fake_study import SMALL, WIDE, write_fake_study
from tests_support import until

from benchmarks.nights_parts.webhook import Heard, webhook

pytestmark = pytest.mark.e2e


@pytest.fixture
def hook() -> Iterator[Heard]:
    with webhook() as heard:
        yield heard


def nightly(folder: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "steelyard", "nightly", *more],
        env={**os.environ, "STEELYARD_HOME": str(folder / "var"), "STEELYARD_STUDIES": str(folder / "studies")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, json.loads(out.strip().splitlines()[-1]) if out.strip() else {}, err


def test_a_night_is_killed_and_resumed_and_tells_what_matters(tmp_path: Path, hook: Heard) -> None:
    blind = [
        {"name": "identity", "kind": "identity"},
        {"name": "known-bad", "kind": "known_bad", "args": {"jitter_seed": 5}},
    ]
    # Two blocks more than are asked for: on a busy machine the client takes back a trial now and then.
    few = {"suites": SMALL, "blocks": 5, "divergence": None, "policy": WIDE}
    studies = tmp_path / "studies"
    claim = {"workload": "chat", "load": "c16"}
    wide = [{"name": "wide", "lever": "batching", "claim": claim, "args": {"max_num_seqs": 16}}]
    write_fake_study(studies / "a-good", study="good", candidates=wide, **few)
    write_fake_study(studies / "b-blind", study="blind", candidates=wide, controls=blind, **few)
    write_fake_study(studies / "c-broken", blokcs=3)
    (studies / "nightly.yaml").write_text(f"studies: [good, blind]\nnotify: {{webhook: {{url: '{hook.url}'}}}}\n")

    first = nightly(tmp_path)
    logs = tmp_path / "var" / "logs"
    assert until(lambda: len(list(logs.glob("*-good-*/*.log"))) >= 4, 60)
    other = nightly(tmp_path)
    status, _, err = finish(other)
    assert status == 4
    assert f"pid {first.pid}" in err
    time.sleep(2)
    first.send_signal(signal.SIGKILL)
    first.communicate()

    status, result, err = finish(nightly(tmp_path, "--resume"))
    # A study that cannot be loaded is a failure of the night, and so is the exit status.
    assert status == 4, err[-2000:]
    assert result["studies"] == {"good": "complete", "blind": "void"}
    assert "good: resume" in err
    told = hook.events
    kinds = [each["kind"] for each in told]
    assert sorted(kinds) == ["digest", "infrastructure failure", "promoted", "void"]
    assert kinds[-1] == "digest"
    [promoted] = [each for each in told if each["kind"] == "promoted"]
    assert (promoted["study"], promoted["arm"]) == ("good", "wide")
    assert "known-bad" in next(each["text"] for each in told if each["kind"] == "void")
    assert "blokcs" in next(each["text"] for each in told if each["kind"] == "infrastructure failure")
    assert "resumed, once" in told[-1]["text"]
    with duckdb.connect(tmp_path / "var" / "published" / "steelyard.duckdb", read_only=True) as connection:
        assert connection.sql("SELECT study, status FROM studies ORDER BY started_at").fetchall() == [
            ("good", "complete"), ("blind", "void"),
        ]  # fmt: skip
        assert connection.execute(
            "SELECT count(*), count(DISTINCT (arm, block)) FROM trials JOIN studies USING (run_id) WHERE study = 'good'"
        ).fetchone() == (20, 20)
    metrics = (tmp_path / "var" / "metrics" / "steelyard.prom").read_text()
    assert "steelyard_promotions_in_force 1.0" in metrics
    assert "steelyard_night_resumed 1.0" in metrics

    # What is valid is left, what is void is tried again, and nobody is told twice that the promotion stands.
    plan = nightly(tmp_path, "--plan").communicate(timeout=60)[0]
    assert "good  skip: run" in plan
    assert "blind  run: it has no complete run" in plan
    assert (
        nightly(tmp_path, "--resume").communicate(timeout=60)[1].strip()
        == "No night was interrupted that has time left."
    )

    # Two seconds are none for a study: it is stopped at the deadline and is there for the next night.
    status, result, err = finish(nightly(tmp_path, "--budget", "9s"))
    assert result["studies"] == {"good": "left", "blind": "stopped"}, err[-2000:]
    assert "blind  resume: run" in nightly(tmp_path, "--plan").communicate(timeout=60)[0]
    assert [each["kind"] for each in hook.events[4:]] == ["infrastructure failure", "digest"]
