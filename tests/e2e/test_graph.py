"""The Dagster graph: it loads, it is complete, and its checks sit where a reviewer looks for them."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from fake_study import write_fake_study

from pipelines.definitions import build
from steelyard.study_file import load_study

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build([load_study(write_fake_study(tmp_path_factory.mktemp("graph")))])


def test_it_is_loadable(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_each_judged_arm_is_an_asset_with_four_checks(definitions: dg.Definitions) -> None:
    checks = {(key.asset_key.path[-1], key.name) for key in definitions.resolve_asset_graph().asset_check_keys}
    for arm in ("batching", "fast_but_unsafe", "identity", "known_bad"):
        assert {(f"verdict_{arm}", name) for name in ("speed", "accuracy", "safety", "cost")} <= checks


def test_every_asset_has_group_kind_owner_and_description(definitions: dg.Definitions) -> None:
    for spec in definitions.resolve_all_asset_specs():
        assert spec.group_name, spec.key
        assert spec.kinds, spec.key
        assert spec.owners, spec.key
        assert spec.description, spec.key


def test_a_verdict_descends_from_the_study(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    key = dg.AssetKey(["fake", "verdict_batching"])
    ancestors = {each.path[-1] for each in graph.get_ancestor_asset_keys(key)}
    assert {"study", "deployments", "arms", "trials", "samples", "speed_comparisons", "unit_costs"} <= ancestors


def test_workspace_file_is_valid(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        cwd=ROOT,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
