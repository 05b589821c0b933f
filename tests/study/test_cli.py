"""The command as a user meets it: exit status, what goes to which stream, and how little `--help` loads."""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from steelyard import cli, cli_check
from steelyard.errors import EngineError, InputError, StudyVoid
from steelyard.study_file import load_study

ROOT = Path(__file__).parents[2]
LAPTOP = ROOT / "studies" / "laptop"
HEAVY = ("pydantic", "yaml", "rich", "numpy", "torch", "dagster", "duckdb", "pandas", "vllm", "transformers", "aiohttp")


def steelyard(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "steelyard", *arguments], cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom steelyard.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "exit status:" in done.stdout


@pytest.mark.parametrize("study", ["laptop", "gpu-template"])
def test_check_summarises_and_ends_with_0(study: str) -> None:
    done = steelyard("check", str(ROOT / "studies" / study), "--no-engine")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("ok  files; engine arguments not asked")
    loaded = load_study(ROOT / "studies" / study)
    for name in (arm.name for arm in loaded.study.arms):
        assert name in done.stdout
    trials = len(loaded.study.arms) * len(loaded.study.load_points) * loaded.study.blocks
    assert f"{trials} trials" in done.stdout


def test_check_names_every_problem_and_ends_with_2(tmp_path: Path) -> None:
    text = (LAPTOP / "study.yaml").read_text().replace("../..", str(ROOT))
    text = re.sub(r"^blocks: \d+$", "blocks: 0", text, flags=re.MULTILINE)
    (tmp_path / "study.yaml").write_text(text.replace("lever: precision", "lever: precison"))
    for name in ("policy.yaml", "prices.yaml"):
        (tmp_path / name).write_text((LAPTOP / name).read_text())
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "wrong.jinja").write_text("x")
    done = steelyard("check", ".", "--no-engine", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["blocks", "candidates[bf16].lever"]
    assert all(line.startswith("study.yaml:") for line in done.stderr.splitlines())
    run = steelyard("run", ".", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (2, done.stderr)


@pytest.mark.parametrize("arguments", [(), ("chek",), ("check",), ("check", "x", "--no-engin=1")])
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    done = steelyard(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: steelyard")


def test_version_and_schema(tmp_path: Path) -> None:
    assert steelyard("--version").stdout.startswith("steelyard ")
    assert "\npython " in steelyard("version").stdout
    done = steelyard("schema", "--write", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "nightly.schema.json", "policy.schema.json", "prices.schema.json", "study.schema.json",
    ]  # fmt: skip
    assert len(done.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("a", remedy="b"), 2),
        (StudyVoid("a", remedy="b"), 3),
        (EngineError("a", remedy="b", arm="x", log_tail=["last line"]), 4),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_has_its_exit_status_and_no_traceback(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli_check, "check", fail)
    assert cli.main(["check", "anything"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.strip()


def test_a_reader_that_stops_is_no_error() -> None:
    command = f"{sys.executable} -m steelyard schema | head -c 10"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


ENGINE_STUDY = """\
study: refused
description: Arguments that only the engine knows to be wrong.
blocks: 3
model: {name: m, weights: weights}
hardware: {name: box, device: cpu, price: laptop-2core}
slo: {ttft_s: 1.0}
workloads:
  - {name: chat, kind: chat, requests: 4, prompt_tokens: 16, output_tokens: 4, load: [{concurrency: 2}]}
baseline:
  engine: KIND
  args:
    max_num_seqs: 2
candidates:
  - name: fine
    lever: batching
    args:
      max_num_seqs: 8
    claim: {workload: chat, load: c2}
  - name: unknown-name
    lever: batching
    args:
      max_num_seqs: 8
      max_nun_seqs: 8
    claim: {workload: chat, load: c2}
  - name: wrong-value
    lever: batching
    args: {max_num_seqs: many}
    claim: {workload: chat, load: c2}
controls:
  - {name: identity, kind: identity}
suites:
  - {name: facts, task: steelyard_facts, category: accuracy}
  - {name: safe, task: steelyard_refusal, category: safety}
divergence: {}
policy: POLICY
prices: PRICES
"""


def refused_study(folder: Path, kind: str) -> Path:
    weights = folder / "weights"
    weights.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (weights / name).write_text("{}")
    text = ENGINE_STUDY.replace("KIND", kind)
    for name in ("policy", "prices"):
        text = text.replace(name.upper(), str(LAPTOP / f"{name}.yaml"))
    (folder / "study.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("kind", ["fake", pytest.param("vllm", marks=pytest.mark.engine)])
def test_what_the_engine_refuses_is_told_at_the_line_that_says_it(kind: str, tmp_path: Path) -> None:
    if kind == "vllm" and importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    done = steelyard("check", ".", cwd=refused_study(tmp_path, kind))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith("study.yaml:23: candidates[unknown-name].args.max_nun_seqs: arm unknown-name: ")
    assert second.startswith("study.yaml:27: candidates[wrong-value].args.max_num_seqs: arm wrong-value: ")


def test_a_mistake_inherited_from_the_baseline_is_told_once(tmp_path: Path) -> None:
    folder = refused_study(tmp_path, "fake")
    text = (folder / "study.yaml").read_text().replace("    max_num_seqs: 2\n", "    bogus: 2\n")
    (folder / "study.yaml").write_text(text)
    done = steelyard("check", ".", cwd=folder)
    told = [line for line in done.stderr.splitlines() if "bogus" in line]
    assert told[0].startswith("study.yaml:12: baseline.args.bogus: arm baseline: ")
    assert len(told) == 1


def test_report_without_a_run_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "steelyard", "report"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={"STEELYARD_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no run yet." in done.stderr


def test_ui_on_a_port_that_is_taken_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = steelyard("ui", "--port", str(port), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Nothing can listen on 127.0.0.1:{port}" in done.stderr
    assert "--port PORT" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_ui_on_what_is_no_port(port: str) -> None:
    done = steelyard("ui", f"--port={port}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{port} is no port." in done.stderr
