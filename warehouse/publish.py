"""Publish the warehouse: what analysts read while the next night is written.

A reader of the live file would block its writer, and the writer every reader. So readers get a copy: a DuckDB file and
a tree of Parquet files, made beside the old ones and swapped in by a rename. Whoever has the old copy open keeps it,
whole and unchanged, while its Parquet is kept; whoever opens a path finds either the old or the new, never a half.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import duckdb

from steelyard.errors import InfrastructureError
from steelyard.files import to_disk
from steelyard.home import SNAPSHOT, published_path
from warehouse.ledger import tell_published
from warehouse.parquet import PARQUET, VERSIONS, write_tree
from warehouse.snapshot import write_snapshot
from warehouse.store import Store
from warehouse.sums import lost_runs, write_sums

KEPT = 14
"""Versions of the Parquet that stay: a notebook may be open for days. They share the files of all unchanged runs."""

_NEW = ".new-"


def publish(store: Store, to: Path | None = None) -> Path:
    """Write `steelyard.duckdb` and `parquet/` into `to` (default: `STEELYARD_HOME/published`).

    Returns the folder. Both are complete and on disk before they get their names; the snapshot is read-only by file
    mode. Raises InfrastructureError, and leaves the old copies as they were, if anything cannot be written.
    """
    folder = (to or published_path()).resolve()
    try:
        (folder / VERSIONS).mkdir(parents=True, exist_ok=True)
        with store.exclusive() as connection:
            _refuse_copied(folder)
            _refuse_to_lose(connection, folder / SNAPSHOT)
            _clear_leftovers(folder)
            before, parquet = _new_parquet(connection, folder)
            snapshot = _new_snapshot(connection, folder, parquet)
            to_disk(write_sums(parquet, snapshot, before))
            # Everything that can fail for want of space or rights has happened; two renames are left. The Parquet goes
            # first: whoever is killed between them leaves an old snapshot whose own version is still there.
            _point_to(folder, parquet)
            snapshot.replace(folder / SNAPSHOT)
            to_disk(folder)
            _forget_old(folder)
        if to is None:
            tell_published(store)
    except (duckdb.Error, OSError) as error:
        with suppress(OSError):
            # On a full disk the half copy would stand in the way of whoever wants to write next.
            _clear_leftovers(folder)
        raise InfrastructureError(
            f"The warehouse could not be published to {folder}: {' '.join(str(error).split())}",
            remedy="The copies published before are untouched. Check permissions and the space left on the disk.",
        ) from error
    return folder


def _refuse_to_lose(connection: duckdb.DuckDBPyConnection, snapshot: Path) -> None:
    """Raise InfrastructureError if the snapshot has ended runs that the live file lacks: it may be their last copy."""
    if not snapshot.is_file():
        return
    try:
        with duckdb.connect(snapshot, read_only=True) as published:
            rows = published.execute("SELECT run_id, status FROM studies WHERE status <> 'running'").fetchall()
    except duckdb.Error as error:
        if isinstance(error, duckdb.ConnectionException) or "lock" in str(error):
            raise InfrastructureError(
                f"Somebody has {snapshot} open for writing, so what it holds cannot be seen: {error}",
                remedy="End that process; it must only be read. Nothing was published.",
            ) from error
        # Nobody can read it: nothing is lost that was not lost before.
        return
    known = dict(connection.execute("SELECT run_id, status FROM studies").fetchall())
    # A backup may hold a run half measured that has ended since; what failed may be under way again.
    ended = [run_id for run_id, status in rows if status != "failed" and known.get(run_id) == "running"]
    if lost := sorted([*(run_id for run_id, _ in rows if run_id not in known), *ended]):
        raise InfrastructureError(
            f"{snapshot} holds {len(lost):,} runs that the live warehouse has not, or not to their end, such as "
            f"{lost[0]}; publishing would lose them.",
            remedy=f"Bring them back with `steelyard restore {snapshot.parent}`, or move that folder away.",
        )


def _refuse_copied(folder: Path) -> None:
    """A copy that followed the link has a folder in its place: which version the snapshot reads is not known there."""
    if (folder / PARQUET).exists() and not (folder / PARQUET).is_symlink():
        raise InfrastructureError(
            f"{folder / PARQUET} is no link to the newest version, as a publish leaves it: the folder was copied.",
            remedy=f"Move {folder} away, whole: the next publish writes it anew. Nothing was changed.",
        )


def _new_snapshot(connection: duckdb.DuckDBPyConnection, folder: Path, parquet: Path) -> Path:
    fresh = folder / f"{_NEW}{SNAPSHOT}"
    [(live,)] = connection.execute("SELECT current_database()").fetchall()
    write_snapshot(connection, live, fresh, parquet)
    fresh.chmod(0o444)
    to_disk(fresh)
    return fresh


def _new_parquet(connection: duckdb.DuckDBPyConnection, folder: Path) -> tuple[Path | None, Path]:
    """The newest version there was, and a newer one."""
    # Counted, not dated: a clock that was set back must not make the newest version look like the oldest.
    versions = _versions(folder)
    fresh = folder / VERSIONS / f"{int(versions[-1].name) + 1 if versions else 1:08d}"
    before = versions[-1] if versions else None
    write_tree(connection, fresh, before, lost_runs(before) if before else ())
    return before, fresh


def _point_to(folder: Path, parquet: Path) -> None:
    # A link cannot be changed in place, but a rename over it can.
    link = folder / f"{_NEW}{PARQUET}"
    link.symlink_to(parquet.relative_to(folder), target_is_directory=True)
    link.replace(folder / PARQUET)
    to_disk(folder)


def _versions(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / VERSIONS).iterdir() if path.name.isdecimal())


def _forget_old(folder: Path) -> None:
    for old in _versions(folder)[:-KEPT]:
        shutil.rmtree(old)


def _clear_leftovers(folder: Path) -> None:
    """Remove what a killed publisher left. The store's lock on the live file makes us the only one alive."""
    for leftover in folder.glob(f"{_NEW}*"):
        leftover.unlink()
    link = folder / PARQUET
    current = link.resolve().name if link.is_symlink() else ""
    for version in _versions(folder):
        if version.name > current:
            shutil.rmtree(version)
