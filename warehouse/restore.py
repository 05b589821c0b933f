"""Runs from an export back into a live warehouse: after a lost disk, or of other machines into one for all.

Runs that are not there are added, and one that went on there (it ended, was signed, promoted, reinstated or thinned)
is brought to where it is; what went on here stays. Some runs are one transaction, so a restore that was killed goes on
with the same command and a run is never doubled.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from steelyard.environment import describe
from steelyard.errors import InfrastructureError, InputError
from steelyard.records import RAW, ROWS, Row, StudyRow
from steelyard.records_review import LedgerRow
from warehouse.parquet import MANIFEST, PARQUET, WHOLE
from warehouse.places import Place
from warehouse.schema import OWN_TABLES
from warehouse.store import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
BATCH_BYTES = 150_000_000
"""Parquet that is loaded in one transaction: about a million requests."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did: runs it added, runs it brought forward, rows of both; runs that stayed as they were, those of
    them that went on here and there, and runs another machine has not ended.
    """

    runs: int
    renewed: int
    rows: int
    there: int
    apart: int
    running: int


def restore(store: Store, source: str, *, tell: Callable[[str], None] = lambda _: None) -> Restored:
    """Add every run of an exported or published warehouse (a folder or a URL) that the store has not, and bring forward
    those that went on there alone.

    A run that has not ended is added only on the machine that measures it: elsewhere its rest would never come. Raises
    InputError if there is no complete export, if a file of it is not what an export writes, or if a run of one name is
    another run here; InfrastructureError if it cannot be read. What was restored before stays, whole.
    """
    export = _Export(source)
    known = {row.run_id: row for row in store.read(StudyRow)}
    here = describe()["hostname_digest"]
    recorded, recorded_there = _entries(store.table("SELECT run_id, entry FROM ledger")), export.entries()
    missing, renewed, there, apart, running = [], set(), 0, 0, 0
    for row in export.whole(StudyRow).to_pylist():
        name = row["run_id"]
        _refuse_path(export, row)
        if name not in known:
            if row["status"] == "running" and row["hostname_digest"] != here:
                running += 1
            else:
                missing.append(name)
            continue
        _refuse_another(known[name], row)
        ended = known[name].status == "running" and row["status"] != "running"
        if recorded[name] <= recorded_there[name] and (ended or recorded[name] != recorded_there[name]):
            renewed.add(name)
        else:
            there += 1
            apart += not recorded[name] >= recorded_there[name]
    rows = done = 0
    wanted = sorted([*missing, *renewed])
    with store.loading():
        for some in export.batches(wanted):
            rows += store.load({run_id: export.tables(run_id) for run_id in some}, instead=renewed.intersection(some))
            done += len(some)
            tell(f"{done:,} of {len(wanted):,} runs restored")
    return Restored(len(missing), len(renewed), rows, there, apart, running)


def _entries(ledger: pa.Table) -> defaultdict[str, set[str]]:
    """Run -> its entries of the ledger: of two copies of a run that with more of them is the later one."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    if "entry" in ledger.column_names:
        for run_id, entry in zip(ledger["run_id"].to_pylist(), ledger["entry"].to_pylist(), strict=True):
            found[run_id].add(entry)
    return found


def _refuse_path(export: _Export, row: Mapping[str, Any]) -> None:
    """Names become folders and files, and an export may come from anywhere."""
    for column in ("run_id", "study"):
        if not _NAME.fullmatch(row[column] or ""):
            raise InputError(
                f"{export.told} holds a run whose {column} is {row[column]!r}, which no Steelyard gives.",
                remedy="Restore what an export wrote; nothing was restored.",
            )


def _refuse_another(stored: StudyRow, row: Mapping[str, Any]) -> None:
    began = stored.started_at.replace(tzinfo=None)
    if (began, stored.hostname_digest) != (row["started_at"], row["hostname_digest"]):
        raise InputError(
            f"Run {stored.run_id} of the export is another one than the run of that name here.",
            remedy="Two machines began it in the same second. Keep their warehouses apart.",
        )


def _refuse_newer(place: Place, sizes: Mapping[str, int]) -> None:
    tables = {path.split("/")[0] for path in sizes if path.endswith(".parquet") and "/" in path}
    if newer := sorted(tables - {row_class.TABLE for row_class in ROWS} - set(OWN_TABLES)):
        raise InputError(
            f"{place.told} holds tables that this Steelyard does not know, such as {newer[0]}: a newer one wrote it.",
            remedy="Upgrade Steelyard here first; a part of its rows would say something else than all of them.",
        )


class _Export:
    """An export, or a published folder, that is read: which files it has, and the tables that are one file."""

    def __init__(self, source: str) -> None:
        self._place = place = Place.of(source).tree
        manifest = place.manifest()
        if not manifest.get("complete"):
            raise InputError(
                f"There is no complete export in {place.told}: {PARQUET}/{MANIFEST} "
                f"{'says that it was cut short' if manifest else 'is not there'}.",
                remedy="Name the folder that holds `parquet`; an export that was cut short is completed by its own "
                "command.",
            )
        self._sizes = place.sizes()
        _refuse_newer(place, self._sizes)
        self._raw = {row_class: self._files(row_class) for row_class in RAW}
        lost = [run for run in manifest["runs"] if not any(run in found for found in self._raw.values())]
        if lost:
            raise InputError(
                f"{place.told} lacks the raw rows of {len(lost):,} runs that its manifest names, such as {lost[0]}.",
                remedy="Copy the folder again, whole; nothing was restored.",
            )
        self._whole = {row_class: self._read_whole(row_class) for row_class in ROWS if row_class not in RAW}

    @property
    def told(self) -> str:
        """The place as one may show it: no secret of a URL."""
        return self._place.told

    def whole(self, row_class: type[Row]) -> pa.Table:
        """A table that is one file."""
        return self._whole[row_class]

    def entries(self) -> defaultdict[str, set[str]]:
        """Run -> its entries of the ledger; an export of an older Steelyard has none."""
        return _entries(self.whole(LedgerRow))

    def batches(self, missing: Sequence[str]) -> Iterator[list[str]]:
        """Runs that are loaded together: a transaction of many rows costs hardly more than one of a few."""
        batch: list[str] = []
        size = 0
        for run_id in missing:
            batch.append(run_id)
            size += sum(found[run_id][1] for found in self._raw.values() if run_id in found)
            if size > BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def tables(self, run_id: str) -> dict[type[Row], pa.Table]:
        """All rows of a run, by table."""
        tables = {row_class: _of(table, run_id) for row_class, table in self._whole.items()}
        tables |= {each: self._read(found[run_id][0]) for each, found in self._raw.items() if run_id in found}
        return {row_class: table for row_class, table in tables.items() if table.num_rows}

    def _files(self, row_class: type[Row]) -> dict[str, tuple[str, int]]:
        """Run -> its file of raw rows, and its size."""
        found = [each for each in self._sizes.items() if each[0].startswith(f"{row_class.TABLE}/")]
        return {path.rsplit("/", 1)[1].removesuffix(".parquet"): (path, size) for path, size in found}

    def _read_whole(self, row_class: type[Row]) -> pa.Table:
        """A table's file; an export of an older Steelyard lacks tables that came later."""
        path = f"{row_class.TABLE}/{WHOLE}"
        if path not in self._sizes:
            if row_class is StudyRow:
                raise InputError(f"{self._place.told} has no {path}.", remedy="Copy the folder again, whole.")
            return pa.table({"run_id": pa.array([], pa.string())})
        table = self._read(path)
        if "run_id" not in table.column_names:
            raise InputError(f"{path} in {self._place.told} has no run_id.", remedy="Restore what an export wrote.")
        return table

    def _read(self, path: str) -> pa.Table:
        content = self._place.read(path)
        try:
            return pq.ParquetFile(io.BytesIO(content)).read()
        except (OSError, pa.ArrowException) as error:
            raise InfrastructureError(
                f"{path} in {self._place.told} could not be read: {' '.join(str(error).split())}",
                remedy="What was restored before is kept. A damaged file must come from another copy of the export.",
            ) from error


def _of(table: pa.Table, run_id: str) -> pa.Table:
    return table.filter(pc.equal(table["run_id"], run_id))
