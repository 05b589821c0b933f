"""A capacity section that cannot be searched, or a gate on one that is not, is refused with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_study
import pytest
from fake_study import write_fake_study

from steelyard.errors import InputError
from steelyard.study_file import load_study

SEARCH = {"workload": "chat", "lowest": 2.0, "highest": 64.0}
GATE = {"name": "capacity", "category": "capacity", "metric": "capacity_per_s", "on": "claimed", "at_least": 1.1}
WITH_GATE = {**fake_study.POLICY, "gates": [*fake_study.POLICY["gates"], GATE]}


def test_a_study_may_search_capacities(tmp_path: Path) -> None:
    loaded = load_study(write_fake_study(tmp_path / "study", capacity=[SEARCH], policy=WITH_GATE))
    (search,) = loaded.study.capacity
    assert (search.scope, search.share, search.resolution) == ("chat@slo", 0.9, 1.05)
    assert loaded.policy.gates[-1].benefit


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"workload": "chatt"}, "chatt is no workload of the study. Did you mean chat?"),
        ({"highest": 2.05}, "no rate between lowest and highest"),
        ({"resolution": 1.01, "lowest": 0.001, "highest": 1e6}, "more than 1000 rates"),
        ({"share": 0.999}, "at the lowest rate 3 probes that all meet the SLO show a share of 0.967 at most"),
        ({"resolution": 1.0}, "1.01"),
        ({"lowest": 0}, "Write more than 0."),
    ],
)
def test_a_search_that_cannot_find_anything_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as refused:
        load_study(write_fake_study(tmp_path / "study", capacity=[{**SEARCH, **change}]))
    assert says in str(refused.value)


def test_a_workload_is_searched_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the capacity of chat is searched twice"):
        load_study(write_fake_study(tmp_path / "study", capacity=[SEARCH, SEARCH]))


def test_a_required_gate_needs_a_search(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="requires capacity, but the study searches no capacity"):
        load_study(write_fake_study(tmp_path / "study", policy=WITH_GATE))


def test_a_gain_must_be_claimed_where_capacity_is_searched(tmp_path: Path) -> None:
    workloads = [*fake_study.STUDY["workloads"], {**fake_study.STUDY["workloads"][0], "name": "other"}]
    with pytest.raises(InputError, match="the capacity of chat is not searched"):
        load_study(
            write_fake_study(
                tmp_path / "study", policy=WITH_GATE, workloads=workloads, capacity=[{**SEARCH, "workload": "other"}]
            )
        )


def test_a_capacity_gate_is_on_capacity(tmp_path: Path) -> None:
    wrong = {**GATE, "category": "speed"}
    policy = {**fake_study.POLICY, "gates": [*fake_study.POLICY["gates"], wrong]}
    with pytest.raises(InputError, match="metric capacity_per_s is no speed metric"):
        load_study(write_fake_study(tmp_path / "study", policy=policy, capacity=[SEARCH]))
