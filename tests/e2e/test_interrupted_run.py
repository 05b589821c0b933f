"""What goes wrong around a run: kills, void studies, bad input, a dead baseline."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from fake_study import SMALL, WIDE, write_fake_study
from tests_support import processes_below, until

pytestmark = pytest.mark.e2e


def start(home: Path, study: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "steelyard", "run", str(study), *more],
        env={**os.environ, "STEELYARD_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def test_kill_9_then_the_same_command(tmp_path: Path) -> None:
    study, home = write_fake_study(tmp_path / "study", blocks=6, suites=SMALL, policy=WIDE), tmp_path / "var"
    logs = home / "logs"
    first = start(home, study)
    # Killed while engines are up and trials are being measured.
    assert until(lambda: len(list(logs.glob("*-fake-*/*.log"))) >= 5, 60)
    time.sleep(2.5)
    assert first.poll() is None, finish(first)[2][-2000:]
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert until(lambda: processes_below(home) == [], 10), processes_below(home)

    status, out, err = finish(start(home, study))
    assert status == 0, err[-3000:]
    result = json.loads(out.strip().splitlines()[-1])
    with duckdb.connect(result["warehouse"], read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM studies").fetchone() == (1,)
        assert connection.execute(
            "SELECT count(*), count(DISTINCT (arm, load_point, block)) FROM trials"
        ).fetchone() == (30, 30)
        assert connection.execute("SELECT count(*) FROM requests").fetchone() == (30 * 32,)
        (begun,) = connection.execute("SELECT started_at FROM studies").fetchone()
        (before,) = connection.execute("SELECT min(started_at) FROM trials").fetchone()
        assert begun <= before
    assert result["verdicts"]["batching"] == "promote"


def test_a_study_blind_to_known_harm_is_void(tmp_path: Path) -> None:
    blind = [
        {"name": "identity", "kind": "identity"},
        {"name": "known-bad", "kind": "known_bad", "args": {"jitter_seed": 5}},
    ]
    study = write_fake_study(tmp_path / "study", controls=blind, suites=SMALL, blocks=3)
    status, out, err = finish(start(tmp_path / "var", study))
    assert status == 3, err[-3000:]
    result = json.loads(out.strip().splitlines()[-1])
    assert set(result["verdicts"].values()) == {"void"}
    assert result["status"] == "void"
    assert "known-bad" in err
    assert "void" in Path(result["report"]).read_text().lower()
    with duckdb.connect(result["warehouse"], read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM promotions").fetchone() == (0,)


def test_a_baseline_that_cannot_start_is_an_infrastructure_failure(tmp_path: Path) -> None:
    study = write_fake_study(tmp_path / "study", baseline={"engine": "fake", "args": {"refuse_start": True}})
    status, _, err = finish(start(tmp_path / "var", study))
    assert status == 4
    assert "baseline" in err
    assert "Traceback" not in err


def test_a_candidate_that_crashes_is_inconclusive_and_the_run_goes_on(tmp_path: Path) -> None:
    claim = {"workload": "chat", "load": "c16"}
    crashing = [
        {"name": "fine", "lever": "batching", "claim": claim, "args": {"max_num_seqs": 16}},
        {"name": "crashing", "lever": "batching", "claim": claim, "args": {"crash_after": 20}},
        {"name": "refusing", "lever": "batching", "claim": claim, "args": {"refuse_start": True}},
    ]
    status, out, err = finish(
        start(tmp_path / "var", write_fake_study(tmp_path / "study", candidates=crashing, suites=SMALL, policy=WIDE))
    )
    assert status == 0, err[-3000:]
    verdicts = json.loads(out.strip().splitlines()[-1])["verdicts"]
    assert verdicts["fine"] == "promote"
    assert verdicts["crashing"] == "inconclusive"
    assert verdicts["refusing"] == "inconclusive"


def test_bad_input_says_file_line_and_field(tmp_path: Path) -> None:
    study = write_fake_study(tmp_path / "study", blokcs=3)
    status, _, err = finish(start(tmp_path / "var", study))
    assert status == 2
    assert "study.yaml:" in err
    assert "blokcs" in err
    assert "blocks" in err
    assert not (tmp_path / "var" / "warehouse.duckdb").exists()
