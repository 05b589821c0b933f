"""The baseline's profile and the opportunities it shows, before anything is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from assets.common import group, key
from assets.metadata import table_specs
from assets.profiling import measure_profile
from assets.session import Session
from assets.tracing import table_metadata
from steelyard.records_base import Row
from steelyard.records_profile import (
    CeilingRow,
    OperatorRow,
    OpportunityRow,
    ProfileRow,
    ProfileStepRow,
    RooflineRow,
)
from steelyard.reports.markdown_profile import opportunity_table, profile_rows_table, roofline_table
from steelyard.study_file import LoadedStudy

READ: dict[type[Row], tuple[str, ...]] = {
    ProfileStepRow: (),
    OperatorRow: (),
    CeilingRow: (),
    ProfileRow: ("profile_steps",),
    RooflineRow: ("profiles", "profile_steps", "ceilings"),
    OpportunityRow: ("profiles", "profile_steps", "ceilings"),
}
"""What is made of what, in the order in which it is told."""
TABLES: dict[type[Row], Callable[[Any], str]] = {
    ProfileRow: profile_rows_table,
    RooflineRow: roofline_table,
    OpportunityRow: opportunity_table,
}


def surveyed_assets(loaded: LoadedStudy) -> list[dg.AssetsDefinition]:
    """`profiles` with its steps, operators, ceilings, rooflines and opportunities; none if the study asks for none."""
    if loaded.study.profile is None:
        return []

    @dg.multi_asset(
        name=f"{group(loaded, 'served')}_profile",
        specs=[
            spec
            for row_class, read in READ.items()
            for spec in table_specs(loaded, "served", [row_class], [key(loaded, name) for name in ("arms", *read)])
        ],
    )
    def profile(session: dg.ResourceParam[Session]) -> Iterator[dg.MaterializeResult]:
        run = session.run(loaded)
        with session.step("profile", run):
            measure_profile(session, loaded, run)
        for row_class in READ:
            rows: list[Row] = session.store.read(row_class, run_id=run.run_id)
            table = TABLES.get(row_class)
            yield dg.MaterializeResult(
                asset_key=key(loaded, row_class.TABLE),
                metadata=table_metadata(
                    loaded, run.run_id, row_class.TABLE, rows, table(rows) if table and rows else None
                ),
            )

    return [profile]


def surveyed_keys(loaded: LoadedStudy) -> list[dg.AssetKey]:
    """What must be there before anything is timed."""
    return [key(loaded, OpportunityRow.TABLE)] if loaded.study.profile is not None else []
