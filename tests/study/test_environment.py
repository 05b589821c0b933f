"""What is said about the machine is true of this one, and None where it cannot be known."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pytest

from steelyard.environment import accelerator, cpu_count, cpu_model, describe, git_commit, memory_bytes
from steelyard.records import StudyRow


def test_names_are_columns_of_the_study_row() -> None:
    about = describe()
    columns = {field.name for field in dataclasses.fields(StudyRow)}
    assert set(about) <= columns
    missing = columns - set(about)
    assert not missing & {"cpu_model", "platform", "python_version", "packages_json", "git_commit", "accelerator"}
    assert json.loads(about["packages_json"])["numpy"]
    assert len(about["hostname_digest"]) == 12


@pytest.mark.parametrize(
    ("quota", "at_most"), [("150000 100000", 2), ("100000 100000", 1), ("10000 100000", 1), ("max 100000", 10**6)]
)
def test_cores_are_those_allowed(tmp_path: Path, quota: str, at_most: int) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert cpu_count(tmp_path) == min(len(os.sched_getaffinity(0)), at_most)


def test_memory_is_what_the_container_may_use(tmp_path: Path) -> None:
    physical = memory_bytes(tmp_path)
    assert physical is not None
    assert physical > 1 << 28
    (tmp_path / "memory.max").write_text("1048576\n")
    assert memory_bytes(tmp_path) == 1048576
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_bytes(tmp_path) == physical


def test_cpu_model(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some Processor\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Some Processor"


def test_accelerator_by_its_own_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100'\necho 'NVIDIA H100'\necho 'NVIDIA L4'\n")
    tool.chmod(0o755)
    assert accelerator() == "2 x NVIDIA H100, NVIDIA L4"
    tool.write_text("#!/bin/sh\necho broken\nexit 9\n")
    assert accelerator() is None


def test_git_commit_tells_changes(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        name = ["-c", "user.name=n", "-c", "user.email=e@x"]
        subprocess.run(["git", "-C", str(tmp_path), *name, *arguments], check=True, capture_output=True)

    assert git_commit(tmp_path) is None
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    clean = git_commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == f"{clean}-dirty"
