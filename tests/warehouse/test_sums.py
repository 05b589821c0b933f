"""Sums of published files: any byte is found, linked files keep theirs, a publish that dies leaves a whole pair."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from steelyard.errors import SteelyardError
from warehouse import publish as publishing
from warehouse import sums
from warehouse.parquet import PARQUET
from warehouse.publish import publish
from warehouse.store import Store
from warehouse.sums import SUMS, read_sums
from warehouse.verify import published_files


def problems(folder: Path, run_ids: list[str] | None = None) -> list[str]:
    try:
        with Store.open_published(folder / "steelyard.duckdb") as store:
            return published_files(store, run_ids)[1]
    except SteelyardError as error:
        return [error.message]


def test_what_was_published_holds_and_sha256sum_agrees(filled: Store, tmp_path: Path) -> None:
    folder = publish(filled, tmp_path / "out")
    assert problems(folder) == []
    command = ["sha256sum", "--quiet", "--strict", "-c", f"{PARQUET}/{SUMS}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_any_byte_of_any_published_file_is_found(filled: Store, tmp_path: Path) -> None:
    folder = publish(filled, tmp_path / "out")
    chance = random.Random(8)
    tree = (folder / PARQUET).resolve()
    for path in [folder / "steelyard.duckdb", *sorted(each for each in tree.rglob("*") if each.is_file())]:
        path.chmod(0o644)
        whole = path.read_bytes()
        for place in {0, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(2))}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << chance.randrange(8))]) + whole[place + 1 :])
            assert problems(folder), (path, place)
        path.write_bytes(whole)
    assert problems(folder) == []


def test_a_damaged_file_that_was_removed_is_written_anew(filled: Store, tmp_path: Path) -> None:
    folder = publish(filled, tmp_path / "out")
    file = folder / PARQUET / "requests" / "study=nightly-chat" / "night=2026-03-01" / "run-1.parquet"
    whole = file.read_bytes()
    file.unlink()
    assert problems(publish(filled, folder)) == []
    assert file.read_bytes() == whole


def test_a_file_more_and_a_file_less_are_found(filled: Store, tmp_path: Path) -> None:
    folder = publish(filled, tmp_path / "out")
    [file] = (folder / PARQUET / "verdicts").glob("*.parquet")
    shutil.copy(file, file.with_name("more.parquet"))
    assert problems(folder) == [f"{PARQUET}/verdicts/more.parquet was not published, or its sum is gone"]
    file.with_name("more.parquet").unlink()
    file.unlink()
    assert problems(folder) == [f"{PARQUET}/verdicts/data.parquet was published and is gone"]


def test_unchanged_runs_are_not_read_again(
    filled: Store, rows_of: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish(filled, tmp_path / "out")
    before = read_sums(folder / PARQUET)
    read: list[Path] = []
    whole = sums.file_digest
    monkeypatch.setattr(sums, "file_digest", lambda path: (read.append(path), whole(path))[1])
    filled.write(rows_of("run-later").all())  # type: ignore[attr-defined]
    publish(filled, folder)
    raw = [path for path in read if path.parts[-3].startswith("study=")]
    assert raw
    assert all(path.stem == "run-later" for path in raw)
    after = read_sums(folder / PARQUET)
    kept = {name for name in before if "study=" in name}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert problems(folder) == []


@pytest.mark.parametrize("killed_at", ["_point_to", "replace"])
def test_a_publish_that_dies_leaves_a_snapshot_with_its_own_sums(
    filled: Store, rows_of: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    folder = publish(filled, tmp_path / "out")
    filled.write(rows_of("run-later").all())  # type: ignore[attr-defined]

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    def rename(path: Path, to: Path) -> Path:
        return die() if path.suffix == ".duckdb" else path.rename(to)  # type: ignore[func-returns-value]

    with monkeypatch.context() as patch:
        patch.setattr(*((publishing, "_point_to", die) if killed_at == "_point_to" else (Path, "replace", rename)))
        with pytest.raises(Killed):
            publish(filled, folder)
    assert problems(folder) == []
    publish(filled, folder)
    assert problems(folder) == []


def test_only_the_files_of_a_run_are_read_for_a_run(filled: Store, tmp_path: Path) -> None:
    folder = publish(filled, tmp_path / "out")
    [file] = (folder / PARQUET / "samples").glob("*/*/*.parquet")
    file.chmod(0o644)
    file.write_bytes(file.read_bytes() + b"x")
    assert any("samples" in each for each in problems(folder, [file.stem]))
    assert not any("samples" in each for each in problems(folder, ["another"]))
