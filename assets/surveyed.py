"""The baseline's profile and the opportunities it shows, before anything is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from assets.common import common, key
from assets.metadata import definition_metadata, rows_metadata
from assets.profiling import measure_profile
from assets.session import Session
from steelyard.records_base import Row
from steelyard.records_profile import PROFILE_ROWS, OpportunityRow, ProfileRow, RooflineRow
from steelyard.reports.markdown_profile import opportunity_table, profile_rows_table, roofline_table
from steelyard.study_file import LoadedStudy

TABLES: dict[type[Row], Callable[[Any], str]] = {
    ProfileRow: profile_rows_table,
    RooflineRow: roofline_table,
    OpportunityRow: opportunity_table,
}


def surveyed_assets(loaded: LoadedStudy) -> list[dg.AssetsDefinition]:
    """`profiles` with its steps, operators, ceilings, rooflines and opportunities; none if the study asks for none."""
    if loaded.study.profile is None:
        return []
    shared = common(loaded, "served", "python", "duckdb")
    spec = {name: shared[name] for name in ("kinds", "owners", "code_version", "group_name")}

    @dg.multi_asset(
        name=f"{shared['group_name']}_profile",
        specs=[
            dg.AssetSpec(
                key(loaded, row_class.TABLE),
                deps=[key(loaded, "arms")],
                description=row_class.MEANING,
                metadata=definition_metadata(row_class),
                **spec,
            )
            for row_class in PROFILE_ROWS
        ],
    )
    def profile(session: dg.ResourceParam[Session]) -> Iterator[dg.MaterializeResult]:
        run = session.run(loaded)
        measure_profile(session, loaded, run)
        for row_class in PROFILE_ROWS:
            rows: list[Row] = session.store.read(row_class, run_id=run.run_id)
            table = TABLES.get(row_class)
            yield dg.MaterializeResult(
                asset_key=key(loaded, row_class.TABLE),
                metadata=rows_metadata(rows, table(rows) if table and rows else None),
            )

    return [profile]


def surveyed_keys(loaded: LoadedStudy) -> list[dg.AssetKey]:
    """What must be there before anything is timed."""
    return [key(loaded, OpportunityRow.TABLE)] if loaded.study.profile is not None else []
