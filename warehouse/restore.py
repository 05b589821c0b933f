"""Runs from an export back into a live warehouse: after a lost disk, or of other machines into one for all.

Only runs that are not there are added, some in a transaction, so a restore that was killed goes on with the same
command and a run is never doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from steelyard.errors import InfrastructureError, InputError
from steelyard.records import RAW, ROWS, Row, StudyRow
from warehouse.export import PARQUET, Destination
from warehouse.parquet import MANIFEST, WHOLE
from warehouse.store import Store

BATCH_BYTES = 150_000_000
"""Parquet that is loaded in one transaction: about a million requests."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did: runs and rows it added, and runs that were there already."""

    runs: int
    rows: int
    there: int


def restore(store: Store, source: str, *, tell: Callable[[str], None] = lambda _: None) -> Restored:
    """Add every run of an exported or published warehouse (a folder or a URL) that the store has not.

    Raises InputError if there is no complete export, or if a file of it is not what an export writes; runs added before
    stay, whole. InfrastructureError if it cannot be read.
    """
    place = Destination.of(source)
    if not place.manifest():
        raise InputError(
            f"There is no complete export in {place.told}: it has no {PARQUET}/{MANIFEST}.",
            remedy="Name the folder that holds `parquet`; an export that was cut short is completed by itself.",
        )
    try:
        whole = {row_class: _whole(place, row_class) for row_class in ROWS if row_class not in RAW}
        there = {row.run_id for row in store.read(StudyRow)}
        wanted = sorted(whole[StudyRow]["run_id"].to_pylist())
        raw = {row_class: _files(place, row_class) for row_class in RAW}
        missing = [run_id for run_id in wanted if run_id not in there]
        rows = done = 0
        with store.loading():
            for some in _batches(missing, raw, place):
                runs = {run_id: _tables(place, run_id, whole, raw) for run_id in some}
                rows += store.load(runs)
                done += len(runs)
                tell(f"{done} of {len(missing)} runs added")
    except (OSError, pa.ArrowException) as error:
        raise InfrastructureError(
            f"{place.told} could not be read: {' '.join(str(error).split())}",
            remedy="What was restored before is kept. A damaged file must come from another copy of the export.",
        ) from error
    return Restored(done, rows, len(wanted) - len(missing))


def _batches(
    missing: Sequence[str], raw: Mapping[type[Row], dict[str, str]], place: Destination
) -> Iterator[list[str]]:
    """Runs that are loaded together: a transaction of many rows costs hardly more than one of a few."""
    batch: list[str] = []
    size = 0
    for run_id in missing:
        batch.append(run_id)
        size += sum(place.filesystem.info(found[run_id])["size"] for found in raw.values() if run_id in found)
        if size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _tables(
    place: Destination, run_id: str, whole: Mapping[type[Row], pa.Table], raw: Mapping[type[Row], dict[str, str]]
) -> dict[type[Row], pa.Table]:
    tables = {row_class: _of(table, run_id) for row_class, table in whole.items()}
    tables.update({row_class: _read(place, found[run_id]) for row_class, found in raw.items() if run_id in found})
    return {row_class: table for row_class, table in tables.items() if table.num_rows}


def _whole(place: Destination, row_class: type[Row]) -> pa.Table:
    """A table's file; an export of an older Steelyard lacks tables that came later."""
    path = f"{place.root}/{PARQUET}/{row_class.TABLE}/{WHOLE}"
    return _read(place, path) if place.filesystem.exists(path) else pa.table({"run_id": pa.array([], pa.string())})


def _files(place: Destination, row_class: type[Row]) -> dict[str, str]:
    """Run -> its file of raw rows."""
    found: list[Any] = place.filesystem.glob(f"{place.root}/{PARQUET}/{row_class.TABLE}/*/*/*.parquet")
    return {path.rsplit("/", 1)[1].removesuffix(".parquet"): path for path in found}


def _read(place: Destination, path: str) -> pa.Table:
    with place.filesystem.open(path, "rb") as stream:
        return pq.ParquetFile(stream).read()


def _of(table: pa.Table, run_id: str) -> pa.Table:
    return table.filter(pc.equal(table["run_id"], run_id))
