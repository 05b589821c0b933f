"""What leads a reviewer on from an asset: column lineage, and links to the exact rows on the reviewer's desk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from assets.common import asset_safe, key
from assets.metadata import rows_metadata
from steelyard.home import desk_url
from steelyard.lineage import COLUMNS
from steelyard.lineage_rows import Where
from steelyard.records_base import Row
from steelyard.records_profile import PROFILE_ROWS
from steelyard.reports.rows_page import href
from steelyard.study_file import LoadedStudy

COMPARED = ("speed", "quality", "cost", "divergence", "capacity")


def traced(loaded: LoadedStudy, asset: str, run_id: str, table: str, **where: Any) -> dict[str, Any]:
    """Metadata of one materialization: where its columns come from, and the rows it wrote.

    `asset` is the name under which `steelyard.lineage` knows it, `table` and `where` find its rows.
    """
    return {**column_lineage(loaded, asset), "rows": rows_link(run_id, table, where)}


def table_metadata(
    loaded: LoadedStudy, run_id: str, table: str, rows: Sequence[Row] | int, markdown: str | None = None, **more: Any
) -> dict[str, Any]:
    """`rows_metadata` of an asset that is one table of the run, with where its columns come from and its rows."""
    return {**rows_metadata(rows, markdown, **more), **traced(loaded, table, run_id, table)}


def rows_link(run_id: str, table: str, where: Where | None = None) -> dg.UrlMetadataValue:
    """Link to rows of a run, which are served once the run has ended and is published."""
    return dg.MetadataValue.url(f"{desk_url()}/runs/{run_id}/{href(table, where or {})}")


def column_lineage(loaded: LoadedStudy, asset: str) -> dict[str, Any]:
    """Dagster's column lineage of an asset, with the assets of this study that its sources are written by."""
    if asset not in COLUMNS:
        return {}
    deps = {
        column: [
            dg.TableColumnDep(asset_key=key(loaded, writer), column_name=name)
            for source in sources
            for table, _, name in [source.partition(".")]
            for writer in writers(loaded, table)
        ]
        for column, sources in COLUMNS[asset].items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage({name: found for name, found in deps.items() if found})}


def writers(loaded: LoadedStudy, table: str) -> list[str]:
    """Names of the assets of this study that write a table that lineage speaks of; none for what it has not."""
    study = loaded.study
    if table == "comparisons":
        asked = {"divergence": study.divergence is not None, "capacity": bool(study.capacity)}
        return [f"{kind}_comparisons" for kind in COMPARED if asked.get(kind, True)]
    if table == "gates":
        # Written with the verdicts, and in the graph only as the checks of these.
        return []
    if table == "verdicts":
        return [f"verdict_{asset_safe(arm.name)}" for arm in study.arms if arm.gated]
    missing = {"divergences": study.divergence is None, "probes": not study.capacity}
    missing |= dict.fromkeys((each.TABLE for each in PROFILE_ROWS), study.profile is None)
    return [] if missing.get(table, False) else [table]
