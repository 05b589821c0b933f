"""Column lineage as Dagster is told it: every source is an asset of the graph and a column of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from fake_study import write_fake_study

from assets.common import key
from assets.tracing import column_lineage, rows_link, traced
from pipelines.definitions import build
from steelyard.lineage import COLUMNS
from steelyard.study_file import LoadedStudy, load_study

CAPACITY = [{"workload": "chat", "lowest": 1.0, "highest": 8.0}]


@pytest.fixture(params=[{}, {"capacity": CAPACITY}], ids=["screened", "searched"])
def loaded(tmp_path: Path, request: pytest.FixtureRequest) -> LoadedStudy:
    return load_study(write_fake_study(tmp_path / "a", **request.param))


def schemas(loaded: LoadedStudy) -> dict[dg.AssetKey, set[str] | None]:
    graph = build([loaded]).resolve_asset_graph()
    found: dict[dg.AssetKey, set[str] | None] = {}
    for each in graph.materializable_asset_keys:
        schema: Any = graph.get(each).metadata.get("dagster/column_schema")
        found[each] = {column.name for column in schema.columns} if schema else None
    return found


def test_sources_are_assets_of_the_study_and_columns_of_theirs(loaded: LoadedStudy) -> None:
    known = schemas(loaded)
    for asset in COLUMNS:
        told = column_lineage(loaded, asset).get("dagster/column_lineage")
        if told is None:
            continue
        for column, deps in told.deps_by_column.items():
            for dep in deps:
                assert dep.asset_key in known, (asset, column, dep)
                columns = known[dep.asset_key]
                assert columns is None or dep.column_name in columns, (asset, column, dep)


def test_an_assets_own_columns_are_those_it_is_made_of(loaded: LoadedStudy) -> None:
    known = schemas(loaded)
    for asset, columns in COLUMNS.items():
        own = known.get(key(loaded, asset))
        assert own is None or columns.keys() <= own, asset


def test_a_column_says_in_words_what_it_is_made_of(loaded: LoadedStudy) -> None:
    graph = build([loaded]).resolve_asset_graph()
    schema: Any = graph.get(key(loaded, "speed_comparisons")).metadata["dagster/column_schema"]
    [estimate] = [column for column in schema.columns if column.name == "estimate"]
    assert "Made of trials: output_tokens_per_s" in estimate.description


def test_links_lead_to_the_desk(loaded: LoadedStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        rows_link("r", "trials", {"load_point": "chat@c8"}).url
        == "http://127.0.0.1:3001/runs/r/trials?load_point=chat%40c8"
    )
    monkeypatch.setenv("STEELYARD_DESK", "https://desk.example.org/")
    told = traced(loaded, "verdict", "r", "verdicts", arm="a b")
    assert told["rows"].url == "https://desk.example.org/runs/r/verdicts?arm=a+b"
