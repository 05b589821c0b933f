"""The published warehouse, copied to where other people and machines read it: a folder, or an object store.

What arrives is what lies in `published/`: `parquet/` and a `steelyard.duckdb` whose raw rows are read from the Parquet
at the destination. Raw rows of runs that are there already, in the same state, are not sent again. A destination holds
one export: one that has runs which this one has not is refused, for they would be lost.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from steelyard.errors import InfrastructureError, InputError
from steelyard.home import SNAPSHOT, home, snapshot_path
from steelyard.records import RAW
from warehouse.parquet import MANIFEST, PARQUET, empty_file, read_manifest, runs_of, whole_files
from warehouse.places import Place
from warehouse.schema import quoted
from warehouse.snapshot import tree_of, write_snapshot

NOTED_EVERY = 100
"""Files after which the destination is told how far an export came."""


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

    `study` and `since` (a night as YYYY-MM-DD) choose runs. Raises InputError if there is nothing to copy, the URL
    cannot be used, or what is there holds other runs; InfrastructureError if something could not be written. The
    manifest says that an export is not complete until all is there; the same command then goes on.
    """
    snapshot = (snapshot or snapshot_path()).resolve()
    if not snapshot.is_file():
        raise InputError(f"There is no published warehouse {snapshot}.", remedy="Run a study first.")
    place = Place.of(to)
    if place.local and (Path(place.root) == snapshot.parent or snapshot.parent in Path(place.root).parents):
        raise InputError(f"{to} is the published folder itself.", remedy="Name another place.")
    scratch = home() / "tmp"
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch) as made, duckdb.connect() as connection:
            connection.execute(f"ATTACH {quoted(str(snapshot))} AS published (READ_ONLY)")
            return _Sending(connection, snapshot, place, Path(made), tell).send(_chosen(connection, study, since))
    except (duckdb.Error, OSError) as error:
        raise InfrastructureError(
            f"The warehouse could not be exported to {to}: {' '.join(str(error).split())}",
            remedy="Check rights and space here; the same command goes on where it stopped.",
        ) from error


def _chosen(connection: duckdb.DuckDBPyConnection, study: str | None, since: str | None) -> list[str]:
    """Ids of the runs asked for. Raises InputError if some were asked for and there are none."""
    found = connection.execute(
        "SELECT run_id FROM published.studies WHERE ($1 IS NULL OR study = $1) "
        "AND ($2 IS NULL OR CAST(started_at AS DATE) >= CAST($2 AS DATE)) ORDER BY run_id",
        [study, since],
    ).fetchall()
    if not found and (study or since):
        asked = " ".join(each for each in (study and f"of study {study}", since and f"since {since}") if each)
        remedy = "Ask `steelyard query 'SELECT * FROM nights'`."
        raise InputError(f"There is no run {asked}.", remedy=remedy)
    return [run_id for (run_id,) in found]


class _Sending:
    """One export under way. Raw rows go first, then what names them, the snapshot, and last the manifest."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, snapshot: Path, place: Place, made: Path,
        tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._connection, self._place, self._made, self._tell = connection, place, made, tell
        self._theirs = place.tree
        self._tree = tree_of(connection, snapshot)
        self._known = read_manifest(self._tree)
        self._sent = self._there = self._bytes = 0

    def send(self, chosen: list[str]) -> Exported:
        """Send what of the chosen runs is not there."""
        theirs = self._theirs.manifest()
        self._refuse_to_lose(theirs, chosen)
        states = {run: state for run, state in self._known["runs"].items() if run in set(chosen)}
        same = theirs.get("schema") == self._known["schema"]
        done = {run: state for run, state in theirs.get("runs", {}).items() if same and states.get(run) == state}
        self._note(done, chosen, complete=False)
        files = self._raw(states, done, chosen)
        for table in {row_class.TABLE for row_class in RAW} - {path.split("/")[0] for path in files}:
            files.add(empty_file(self._connection, "published", table, self._made / PARQUET).as_posix())
        whole_files(self._connection, "published", self._made / PARQUET, chosen)
        told = f"{self._place.told}/{PARQUET}"
        write_snapshot(self._connection, "published", self._made / SNAPSHOT, self._tree, told, chosen)
        for file in sorted((self._made / PARQUET).rglob("*.parquet")):
            self._put(self._theirs, file, file.relative_to(self._made / PARQUET).as_posix())
        self._put(self._place, self._made / SNAPSHOT, SNAPSHOT)
        self._remove_others(files)
        self._note(states, chosen, complete=True)
        return Exported(self._place.told, len(chosen), self._sent + 1, self._bytes, self._there)

    def _refuse_to_lose(self, theirs: Mapping[str, Any], chosen: list[str]) -> None:
        others = sorted(set(theirs.get("studies", theirs.get("runs", {}))) - set(chosen))
        if others:
            raise InputError(
                f"{self._place.told} holds {len(others):,} runs that this export has not, such as {others[0]}.",
                remedy="They would be lost there. Export to an empty place, or `steelyard restore` them here first.",
            )

    def _raw(self, states: Mapping[str, str], done: dict[str, str], chosen: list[str]) -> set[str]:
        """Send the raw rows of runs that are not `done`; every raw file that belongs there."""
        files: set[str] = set()
        by_run: dict[str, list[Path]] = {}
        for path, run_id in runs_of(self._tree):
            if run_id is not None and run_id in states:
                by_run.setdefault(run_id, []).append(path)
        for run_id, paths in by_run.items():
            files |= {path.as_posix() for path in paths}
            if run_id in done:
                self._there += len(paths)
                continue
            for path in paths:
                self._put(self._theirs, self._tree / path, path.as_posix())
            done[run_id] = states[run_id]
            if self._sent % NOTED_EVERY < len(paths):
                self._note(done, chosen, complete=False)
                self._tell(f"{len(done):,} of {len(by_run):,} runs sent")
        return files

    def _put(self, place: Place, file: Path, target: str) -> None:
        self._bytes += place.put(file, target)
        self._sent += 1

    def _remove_others(self, files: set[str]) -> None:
        """Raw files of a state before: a run that was thinned to nothing has no file any more."""
        raw = {row_class.TABLE for row_class in RAW}
        for path in self._theirs.sizes():
            if path.split("/")[0] in raw and path not in files:
                self._theirs.remove(path)

    def _note(self, runs: Mapping[str, str], chosen: list[str], *, complete: bool) -> None:
        told = {"complete": complete, "schema": self._known["schema"], "runs": dict(runs), "studies": chosen}
        self._theirs.write(json.dumps(told, indent=1) + "\n", MANIFEST)
