"""What several whole runs share: a measured place for reviewers, and a copy of it that a test may spoil."""

import shutil
from pathlib import Path

import pytest
from reviewer_desk import Desk, at, measure


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a run that waits for two roles."""
    folder = tmp_path_factory.mktemp("review")
    measure(folder)
    return folder


@pytest.fixture
def desk(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    """The commands of its reviewers, at a copy of their own."""
    folder = tmp_path / "place"
    shutil.copytree(measured, folder, symlinks=True)
    at(folder, monkeypatch)
    return Desk(folder, capsys)
