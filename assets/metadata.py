"""What an asset shows a reviewer: columns with meaning and unit, row counts, tables as markdown."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

import dagster as dg

from assets.common import common, key
from steelyard.lineage import made_of
from steelyard.records import Row
from steelyard.study_file import LoadedStudy


def table_schema(row_class: type[Row], asset: str | None = None) -> dg.TableSchema:
    """The columns of a warehouse table as Dagster shows them; with what they are made of, by the asset's lineage.

    In words, because the open-source web server (1.13) stores column lineage and shows it nowhere.
    """
    types = typing.get_type_hints(row_class)
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=field.name,
                type=type_name(types[field.name]),
                description=" ".join(
                    filter(
                        None,
                        [
                            described(field.metadata["meaning"], field.metadata["unit"]),
                            made_of(asset or row_class.TABLE, field.name),
                        ],
                    )
                ),
                constraints=dg.TableColumnConstraints(
                    nullable=type(None) in typing.get_args(types[field.name]), unique=(field.name,) == row_class.KEY
                ),
            )
            for field in dataclasses.fields(row_class)  # type: ignore[arg-type]
        ]
    )


def table_specs(
    loaded: LoadedStudy, stage: str, row_classes: Sequence[type[Row]], deps: Sequence[dg.AssetKey]
) -> list[dg.AssetSpec]:
    """Specs of the assets that one step writes: a table each, described by its rows."""
    shared = common(loaded, stage, "python", "duckdb")
    return [
        dg.AssetSpec(
            key(loaded, row_class.TABLE),
            deps=deps,
            description=row_class.MEANING,
            metadata=definition_metadata(row_class),
            **shared,
        )
        for row_class in row_classes
    ]


def type_name(hint: Any) -> str:
    """`float | None` as `float`, `list[str]` as it stands."""
    alternatives = [each for each in typing.get_args(hint) if each is not type(None)]
    if type(None) in typing.get_args(hint) and len(alternatives) == 1:
        return type_name(alternatives[0])
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)


def described(meaning: str, unit: str | None) -> str:
    """Meaning with its unit."""
    return f"{meaning} [{unit}]" if unit else meaning


def definition_metadata(row_class: type[Row], asset: str | None = None) -> dict[str, Any]:
    """Metadata of an asset's definition: the table it writes and its columns. `asset` where lineage knows it by another
    name than its table's.
    """
    return {
        "dagster/table_name": f"steelyard.{row_class.TABLE}",
        "dagster/column_schema": table_schema(row_class, asset),
    }


def rows_metadata(rows: Sequence[Row] | int, markdown: str | None = None, **more: Any) -> dict[str, Any]:
    """Metadata of one materialization: how many rows, a table to read, and numbers that Dagster plots over time."""
    count = rows if isinstance(rows, int) else len(rows)
    metadata: dict[str, Any] = {"dagster/row_count": count}
    if markdown:
        metadata["table"] = dg.MetadataValue.md(markdown)
    return {**metadata, **{key: value for key, value in more.items() if value is not None}}
