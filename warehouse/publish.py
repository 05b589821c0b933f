"""Publish the warehouse: what analysts read while the next night is written.

A reader of the live file would block its writer, and the writer every reader. So readers get a copy: one DuckDB file
and one Parquet file a table, made beside the old ones and swapped in by a rename. Whoever has the old copy open keeps
it, whole and unchanged, until they close it; whoever opens a path finds either the old or the new, never a half.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import duckdb

from steelyard.errors import InfrastructureError
from steelyard.home import SNAPSHOT, published_path
from warehouse.schema import quoted
from warehouse.store import Store

PARQUET = "parquet"

# The oldest storage format DuckDB 2.0 writes (number 64 in the file header), read by clients from 0.10 on. The format
# DuckDB 2.0 would choose for itself is refused by every older client.
STORAGE_VERSION = "v1.0.0"

_VERSIONS = ".parquet-versions"
_NEW = ".new-"
_KEPT = 2


def publish(store: Store, to: Path | None = None) -> Path:
    """Write `steelyard.duckdb` and `parquet/<table>/data.parquet` into `to` (default: `STEELYARD_HOME/published`).

    Returns the folder. Both are complete and on disk before they get their names; the snapshot is read-only by file
    mode. Raises InfrastructureError, and leaves the old copies as they were, if anything cannot be written.
    """
    folder = (to or published_path()).resolve()
    try:
        (folder / _VERSIONS).mkdir(parents=True, exist_ok=True)
        with store.exclusive() as connection:
            _clear_leftovers(folder)
            snapshot = _new_snapshot(connection, folder)
            parquet = _new_parquet(connection, folder)
            # Everything that can fail for want of space or rights has happened; two renames are left.
            snapshot.replace(folder / SNAPSHOT)
            _point_to(folder, parquet)
            _forget_old(folder)
    except (duckdb.Error, OSError) as error:
        raise InfrastructureError(
            f"The warehouse could not be published to {folder}: {' '.join(str(error).split())}",
            remedy="The copies published before are untouched. Check permissions and the space left on the disk.",
        ) from error
    return folder


def _new_snapshot(connection: duckdb.DuckDBPyConnection, folder: Path) -> Path:
    fresh = folder / f"{_NEW}{SNAPSHOT}"
    (live,) = connection.execute("SELECT current_database()").fetchall()[0]
    connection.execute(f"ATTACH {quoted(str(fresh))} AS publishing (STORAGE_VERSION '{STORAGE_VERSION}')")
    try:
        connection.execute(f'COPY FROM DATABASE "{live}" TO publishing')
    finally:
        # Detaching writes the checkpoint, so that the file needs no write-ahead log beside it.
        connection.execute("DETACH publishing")
    fresh.chmod(0o444)
    _to_disk(fresh)
    return fresh


def _new_parquet(connection: duckdb.DuckDBPyConnection, folder: Path) -> Path:
    # Counted, not dated: a clock that was set back must not make the newest version look like the oldest.
    versions = _versions(folder)
    fresh = folder / _VERSIONS / f"{int(versions[-1].name) + 1 if versions else 1:08d}"
    tables = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE NOT internal AND database_name = current_database()"
    ).fetchall()
    for (table,) in tables:
        place = fresh / table
        place.mkdir(parents=True)
        file = place / "data.parquet"
        connection.execute(f'COPY "{table}" TO {quoted(str(file))} (FORMAT parquet, COMPRESSION zstd)')
        _to_disk(file)
        _to_disk(place)
    _to_disk(fresh)
    return fresh


def _point_to(folder: Path, parquet: Path) -> None:
    # A link cannot be changed in place, but a rename over it can.
    link = folder / f"{_NEW}{PARQUET}"
    link.symlink_to(parquet.relative_to(folder), target_is_directory=True)
    link.replace(folder / PARQUET)
    _to_disk(folder)


def _versions(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / _VERSIONS).iterdir() if path.name.isdecimal())


def _forget_old(folder: Path) -> None:
    """Keep the version before too: somebody may have listed its files and not opened them yet."""
    for old in _versions(folder)[:-_KEPT]:
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


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
