"""A search on a real engine: what it refuses is named, what pays is found, and the study that would judge is one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from steelyard.study_file import load_study

LAPTOP = Path(__file__).resolve().parents[2] / "studies" / "laptop"


def test_a_lever_that_pays_is_found_and_one_that_is_not_here_is_named(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    asked = [
        "tune",
        str(LAPTOP),
        "--budget",
        "10m",
        "--at",
        "chat@c8",
        "--levers",
        "batching,async-scheduling,fp8-weights",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "steelyard", *asked, "--number", "none", "--no-confirm", "--quiet"],
        env={**os.environ, "STEELYARD_HOME": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert (told["levers"], told["change"]) == (["batching"], {"args": {"max_num_seqs": 64}})
    assert told["gain"] > 1.3
    assert told["verdicts"] == {}
    judging = load_study(Path(told["study"])).study
    assert judging.candidates[0].args == {"max_num_seqs": 64}
    with duckdb.connect(tmp_path / "published" / "steelyard.duckdb", read_only=True) as connection:
        ((left_out,),) = connection.execute("SELECT left_out_json FROM searches").fetchall()
        assert {arm for (arm,) in connection.execute("SELECT arm FROM arms").fetchall()} >= {"baseline", "batching"}
    why = json.loads(left_out)
    assert why["async-scheduling"] == "the engine resolves the same as without it"
    assert why["fp8-weights"].startswith("the engine refuses it: ")
