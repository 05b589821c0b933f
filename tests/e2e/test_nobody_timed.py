"""A night whose every candidate is refused by its answers: complete, judged and published, with nobody timed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from fake_study import write_fake_study

pytestmark = pytest.mark.e2e


def test_a_night_of_rejections_is_complete(tmp_path: Path) -> None:
    harmful = {
        "name": "fast-but-wrong", "lever": "quantization", "claim": {"workload": "chat", "load": "c16"},
        "args": {"max_num_seqs": 16, "wrong_share": 0.5, "unsafe_share": 0.5},
    }  # fmt: skip
    study = write_fake_study(
        tmp_path / "study", policy={"stop_early": True}, batch=50, candidates=[harmful],
        controls=[{"name": "identity", "kind": "identity"}],
    )  # fmt: skip
    env = {**os.environ, "STEELYARD_HOME": str(tmp_path / "var")}
    command = [sys.executable, "-m", "steelyard"]
    ran = subprocess.run(
        [*command, "run", str(study), "--quiet"], env=env, capture_output=True, text=True, check=False, timeout=240
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = json.loads(ran.stdout.strip().splitlines()[-1])
    assert (told["status"], told["verdicts"]["fast-but-wrong"]) == ("complete", "reject")
    with duckdb.connect(told["warehouse"], read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM trials").fetchall() == [(0,)]
    page = Path(told["report"]).read_text()
    assert "fast-but-wrong" in page
    again = subprocess.run([*command, "recompute"], env=env, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 0, again.stdout + again.stderr
