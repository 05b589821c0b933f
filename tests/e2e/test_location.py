"""The code location stands whatever one study's file looks like, and serves the folders the user meant."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from fake_study import write_fake_study

from pipelines.definitions import build
from pipelines.studies import found_studies

ROOT = Path(__file__).parents[2]


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one good study, one half-edited and one that is no YAML."""
    folder = tmp_path / "studies"
    write_fake_study(folder / "good", study="good")
    write_fake_study(folder / "broken", study="broken", blocks=0)
    write_fake_study(folder / "torn", study="torn")
    (folder / "torn" / "study.yaml").write_text("study: [torn")
    monkeypatch.setenv("STEELYARD_STUDIES", str(folder))
    return folder


def names() -> list[str]:
    return [loaded.study.study for loaded in found_studies()]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def python(code: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("STEELYARD_", "DAGSTER_"))}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**env, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_broken_study_is_skipped_loudly_and_the_others_stay(studies: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert names() == ["good"]
    broken, torn = warnings(caplog)
    assert broken.startswith(f"STUDY SKIPPED: {studies / 'broken' / 'study.yaml'} ")
    assert "blocks: " in broken
    assert broken.count("\n") == 1
    assert torn.startswith(f"STUDY SKIPPED: {studies / 'torn' / 'study.yaml'} ")


def test_of_names_that_are_one_to_dagster_the_first_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for folder, name in (("a", "my-study"), ("b", "my_study"), ("c", "my-study"), ("d", "other")):
        write_fake_study(tmp_path / folder, study=name)
    monkeypatch.setenv("STEELYARD_STUDIES", str(tmp_path))
    found = found_studies()
    assert [loaded.root.name for loaded in found] == ["a", "d"]
    second, third = warnings(caplog)
    assert f"{tmp_path / 'b' / 'study.yaml'}: study: my_study is the same to Dagster as the study my-study" in second
    assert str(tmp_path / "a" / "study.yaml") in second
    assert str(tmp_path / "c" / "study.yaml") in third
    dg.Definitions.validate_loadable(build(found))


def test_a_study_for_a_gpu_is_none_for_a_machine_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fake_study(tmp_path / "here", study="here")
    write_fake_study(tmp_path / "there", study="there", hardware={"name": "a GPU", "device": "cuda", "price": "test"})
    monkeypatch.setenv("STEELYARD_STUDIES", str(tmp_path))
    monkeypatch.setattr("pipelines.studies.accelerator", lambda: None)
    assert names() == ["here"]
    monkeypatch.setattr("pipelines.studies.accelerator", lambda: "NVIDIA H200")
    assert names() == ["here", "there"]


def test_only_a_name_that_ends_with_template_is_a_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_fake_study(tmp_path / "templates-compared", study="compared")
    write_fake_study(tmp_path / "gpu-template", study="gpu")
    monkeypatch.setenv("STEELYARD_STUDIES", str(tmp_path))
    with caplog.at_level(logging.DEBUG, logger="pipelines.studies"):
        assert names() == ["compared"]
    assert [(each.levelname, "gpu-template" in each.getMessage()) for each in caplog.records] == [("DEBUG", True)]


def test_a_folder_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STEELYARD_STUDIES", str(tmp_path / "nowhere"))
    found = found_studies()
    assert found == []
    assert str(tmp_path / "nowhere") in warnings(caplog)[0]
    dg.Definitions.validate_loadable(build(found))


def test_the_checkouts_own_study_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEELYARD_STUDIES", raising=False)
    assert "laptop" in names()


def test_dagster_loads_the_location_beside_a_broken_study(studies: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        cwd=ROOT, env={**os.environ, "DAGSTER_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"STUDY SKIPPED: {studies / 'broken' / 'study.yaml'}" in done.stderr


def test_a_headless_run_never_reads_the_other_studies(studies: Path, tmp_path: Path) -> None:
    code = "import pipelines.headless, pipelines.ui, sys; print('pipelines.location' in sys.modules)"
    done = python(code, tmp_path, STEELYARD_STUDIES=str(studies))
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


def test_the_web_server_keeps_the_folders_meant_where_it_was_started(tmp_path: Path) -> None:
    code = (
        "import os; from pipelines import ui; ui.settle(); from steelyard.home import home\n"
        "print(os.getcwd(), home(), os.environ['DAGSTER_HOME'], os.environ.get('STEELYARD_STUDIES'), sep='\\n')"
    )
    bare = python(code, tmp_path)
    state = tmp_path / "var"
    assert bare.stdout.splitlines() == [str(ROOT), str(state), str(state / "dagster"), "None"], bare.stderr
    named = python(code, tmp_path, STEELYARD_HOME="state", STEELYARD_STUDIES="mine")
    state = tmp_path / "state"
    assert named.stdout.splitlines() == [str(ROOT), str(state), str(state / "dagster"), str(tmp_path / "mine")]
