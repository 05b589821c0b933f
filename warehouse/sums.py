"""sha256 of every published file, in the words of `sha256sum`: what tells a byte that changed no value.

They lie in the version of the Parquet that the snapshot reads, so that whoever opens the snapshot, during a publish or
after one that was killed, finds the sums of just that snapshot. `sha256sum -c parquet/_SHA256SUMS` in the published
folder asks the same without Steelyard.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from steelyard.digest import file_digest
from steelyard.files import write_whole
from steelyard.home import SNAPSHOT
from steelyard.records import RAW
from warehouse.parquet import PARQUET

SUMS = "_SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def write_sums(tree: Path, snapshot: Path, before: Path | None = None) -> Path:
    """Write the sums of a version and of the snapshot over it. Files linked from the version `before` keep theirs."""
    known = read_sums(before) if before is not None else {}
    lines = [f"{file_digest(snapshot)}  {SNAPSHOT}"]
    for path in _files(tree):
        name = f"{PARQUET}/{path.relative_to(tree).as_posix()}"
        old = before / path.relative_to(tree) if before is not None else None
        same = old is not None and name in known and old.is_file() and old.samefile(path)
        lines.append(f"{known[name] if same else file_digest(path)}  {name}")
    return write_whole(tree / SUMS, ("\n".join(lines) + "\n").encode())


def read_sums(tree: Path) -> dict[str, str]:
    """sha256 by name below the published folder; empty where a version has none. Lines that are none are left out."""
    try:
        text = (tree / SUMS).read_text("utf-8", errors="replace")
    except OSError:
        return {}
    return {found[2]: found[1] for line in text.splitlines() if (found := _LINE.fullmatch(line))}


def sum_problems(tree: Path, snapshot: Path, run_ids: Collection[str] | None = None) -> tuple[int, list[str]]:
    """How many files were held against their sums, and what is not as it was published.

    With `run_ids` raw rows of other runs are not read. A version without sums (an older Steelyard's) is no problem.
    """
    sums = read_sums(tree)
    if not sums:
        return 0, [f"{tree / SUMS} has no sum in it"] if (tree / SUMS).exists() else []
    there = {f"{PARQUET}/{path.relative_to(tree).as_posix()}": path for path in _files(tree)} | {SNAPSHOT: snapshot}
    problems = [f"{name} was not published, or its sum is gone" for name in sorted(there.keys() - sums.keys())]
    checked = 0
    for name, told in sorted(sums.items()):
        path = there.get(name)
        if path is None:
            problems.append(f"{name} was published and is gone")
        elif run_ids is None or not _of_other(path, tree, run_ids):
            checked += 1
            if file_digest(path) != told:
                problems.append(f"{name} is not the file that was published")
    return checked, problems


def lost_runs(tree: Path) -> set[str]:
    """Runs with raw rows that were published in a version and whose file is there no longer."""
    raw = {row_class.TABLE for row_class in RAW}
    names = (Path(name).relative_to(PARQUET) for name in read_sums(tree) if name.startswith(f"{PARQUET}/"))
    return {name.stem for name in names if name.parts[0] in raw and not (tree / name).is_file()}


def _of_other(path: Path, tree: Path, run_ids: Collection[str]) -> bool:
    raw = {row_class.TABLE for row_class in RAW}
    return path.is_relative_to(tree) and path.relative_to(tree).parts[0] in raw and path.stem not in run_ids


def _files(tree: Path) -> Iterator[Path]:
    return (path for path in sorted(tree.rglob("*")) if path.is_file() and path.name != SUMS)
