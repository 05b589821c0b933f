"""The published warehouse, copied to where other people and machines read it: a folder, or an object store.

What arrives is what lies in `published/`: `parquet/` and a `steelyard.duckdb` whose raw rows are read from the Parquet
at the destination. Raw rows of runs that are there already, in the same state, are not sent again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from steelyard.errors import InfrastructureError, InputError
from steelyard.home import SNAPSHOT, home, snapshot_path
from warehouse.parquet import MANIFEST, read_manifest, runs_of, write_whole
from warehouse.schema import quoted
from warehouse.snapshot import tree_of, write_snapshot

PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did: runs it holds, files and bytes sent, and files that were there already."""

    to: str
    runs: int
    sent: int
    sent_bytes: int
    there: int


def export(
    to: str, *, study: str | None = None, since: str | None = None, snapshot: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Exported:  # fmt: skip
    """Copy the published warehouse to `to`, a folder or a URL that fsspec knows (s3://, gs://, abfs://, memory://).

    `study` and `since` (a night as YYYY-MM-DD) choose runs. Raises InputError if there is nothing to copy or the URL
    cannot be used, InfrastructureError if something could not be written; the manifest, sent last, says that all is
    there, so a destination without one, or with an old one, is completed by the same command.
    """
    snapshot = (snapshot or snapshot_path()).resolve()
    if not snapshot.is_file():
        raise InputError(f"There is no published warehouse {snapshot}.", remedy="Run a study first.")
    where = Destination.of(to)
    scratch = home() / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as made, duckdb.connect() as connection:
            connection.execute(f"ATTACH {quoted(str(snapshot))} AS published (READ_ONLY)")
            source = tree_of(connection, snapshot)
            chosen = _chosen(connection, study, since)
            return _send(connection, source, chosen, where, Path(made), tell)
    except (duckdb.Error, OSError) as error:
        raise InfrastructureError(
            f"The warehouse could not be exported to {to}: {' '.join(str(error).split())}",
            remedy="Check rights, credentials and space there; the same command goes on where it stopped.",
        ) from error


def _chosen(connection: duckdb.DuckDBPyConnection, study: str | None, since: str | None) -> list[str] | None:
    """Ids of the runs asked for; None for all. Raises InputError if there are none."""
    if study is None and since is None:
        return None
    found = connection.execute(
        "SELECT run_id FROM published.studies WHERE ($1 IS NULL OR study = $1) "
        "AND ($2 IS NULL OR CAST(started_at AS DATE) >= CAST($2 AS DATE)) ORDER BY run_id",
        [study, since],
    ).fetchall()
    if not found:
        asked = " ".join(filter(None, (f"of study {study}" if study else "", f"since {since}" if since else "")))
        raise InputError(
            f"There is no run {asked}.", remedy="`steelyard query 'SELECT * FROM latest_runs'` shows runs."
        )
    return [run_id for (run_id,) in found]


def _send(
    connection: duckdb.DuckDBPyConnection, source: Path, chosen: list[str] | None, where: Destination, made: Path,
    tell: Callable[[str], None],
) -> Exported:  # fmt: skip
    """Raw rows first, then what names them, the snapshot, and last the manifest."""
    known = read_manifest(source)
    states = {run: state for run, state in known["runs"].items() if chosen is None or run in chosen}
    theirs = where.manifest()
    same_schema = theirs.get("schema") == known["schema"]
    sent = there = size = 0
    for path, run_id in runs_of(source):
        if run_id is not None and run_id not in states:
            continue
        target = f"{PARQUET}/{path.as_posix()}"
        if run_id is not None and same_schema and theirs.get("runs", {}).get(run_id) == states[run_id]:
            there += 1
            continue
        size += where.put(source / path, target)
        sent += 1
        if sent % 100 == 0:
            tell(f"{sent} files sent")
    write_whole(connection, "published", made / PARQUET, chosen)
    write_snapshot(connection, "published", made / SNAPSHOT, source, f"{where.told}/{PARQUET}", chosen)
    for file in sorted(path for path in made.rglob("*") if path.is_file()):
        size += where.put(file, file.relative_to(made).as_posix())
        sent += 1
    kept = states if chosen is None or not same_schema else {**theirs.get("runs", {}), **states}
    (made / MANIFEST).write_text(json.dumps({"schema": known["schema"], "runs": kept}, indent=1) + "\n", "utf-8")
    where.put(made / MANIFEST, f"{PARQUET}/{MANIFEST}")
    [(runs,)] = connection.execute("SELECT count(*) FROM published.studies").fetchall()
    return Exported(where.told, len(chosen) if chosen is not None else runs, sent + 1, size, there)


@dataclass(frozen=True, slots=True)
class Destination:
    """A place that fsspec writes to. `told` is how others name it: an absolute folder, or a URL."""

    filesystem: Any
    root: str
    told: str

    @classmethod
    def of(cls, to: str) -> Destination:
        """Raises InputError for a URL nobody knows, or whose package is not installed."""
        from fsspec.core import url_to_fs

        if "://" not in to:
            to = str(Path(to).expanduser().resolve())
        try:
            filesystem, root = url_to_fs(to)
        except ImportError as error:
            raise InputError(
                f"{to.split('://', maxsplit=1)[0]}:// needs a package that is not installed: {error}",
                remedy="Install it beside Steelyard, such as s3fs for s3:// or gcsfs for gs://.",
            ) from error
        except ValueError as error:
            raise InputError(f"{to} is nowhere to export to: {error}", remedy="Name a folder or a URL.") from error
        local = getattr(filesystem, "protocol", "") in ("file", ("file", "local"))
        return cls(filesystem, root.rstrip("/"), root.rstrip("/") if local else to.rstrip("/"))

    def put(self, file: Path, target: str) -> int:
        """Copy a file there; its size in bytes. Raises OSError if what arrived has another size."""
        place = f"{self.root}/{target}"
        self.filesystem.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
        self.filesystem.put_file(str(file), place)
        size, arrived = file.stat().st_size, self.filesystem.info(place)["size"]
        if arrived != size:
            raise OSError(f"{place} has {arrived} bytes there, {size} here")
        return size

    def manifest(self) -> dict[str, Any]:
        """What is there by its own account; nothing if it cannot be read."""
        try:
            told = json.loads(self.filesystem.cat_file(f"{self.root}/{PARQUET}/{MANIFEST}"))
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) and isinstance(told.get("runs"), dict) else {}
