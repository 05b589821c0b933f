"""Incidents in the warehouse: from nights of comparisons to a revocation that the ledger shows, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from assets.incidents import open_incidents, reinstate, watch
from steelyard.errors import InputError
from steelyard.nightly.settings import Drifting
from steelyard.records import StudyRow
from steelyard.records_incidents import IncidentEndRow, IncidentRow, RevocationRow
from warehouse.publish import publish
from warehouse.store import Store

ARM, STUDY = "int8", "nightly-chat"
SETTINGS = Drifting(least_ratio=0.05, least_difference=0.01)


@pytest.fixture
def nights(filled: Store, rows: Any, rows_of: Callable[..., Any]) -> Callable[[int, float], StudyRow]:
    """Writes a night whose gain of the arm is so many times that of the first; it judges and promotes as that did."""

    def write(number: int, level: float) -> StudyRow:
        # Not all alike: without any spread every difference would be a change.
        factor = level * (1 + 0.002 * (number % 3))
        found = rows_of(f"run-{number:02d}", rows.study.started_at + timedelta(days=number))
        comparisons = [
            dataclasses.replace(
                row, **{name: value * factor for name in ("estimate", "low", "high") if (value := getattr(row, name))}
            )
            if row.arm == ARM and row.metric == "output_tokens_per_s"
            else row
            for row in found.comparisons
        ]
        promotions = [] if filled.read(RevocationRow, study=STUDY) else found.promotions
        few = [found.study, *found.arms, *comparisons, *found.verdicts, *promotions]
        filled.write(few)
        study: StudyRow = found.study
        return study

    return write


def state(store: Store) -> str:
    found = store.query(
        "SELECT state FROM promotions_in_force WHERE arm = ? ORDER BY promoted_at DESC LIMIT 1", [ARM]
    ).state
    return str(found[0])


def ours(store: Store) -> list[IncidentRow]:
    return store.read(IncidentRow, study=STUDY)


def test_a_regression_revokes_and_a_person_reinstates(
    filled: Store, nights: Callable[[int, float], StudyRow], tmp_path: Path
) -> None:
    for number in range(2, 12):
        new, ended, taken = watch(filled, nights(number, 1.0), STUDY, SETTINGS)
        assert (new, ended, taken) == ([], [], []), number
    watch(filled, nights(12, 0.8), STUDY, SETTINGS)
    assert ours(filled) == []
    run = nights(13, 0.8)
    watch(filled, run, STUDY, SETTINGS)
    suspected = ours(filled)
    assert {(row.metric, row.since_run_id) for row in suspected} == {("output_tokens_per_s", "run-12")}
    # A run that is resumed says the same again, once.
    watch(filled, run, STUDY, SETTINGS)
    assert [row.incident for row in ours(filled)] == [row.incident for row in suspected]
    assert state(filled) == "in force"
    assert {row.arm for row in open_incidents(filled, STUDY)} == {ARM}

    _, ended, taken = watch(filled, nights(14, 0.8), STUDY, SETTINGS)
    assert {row.ending for row in ended} == {"confirmed"}
    assert [(row.arm, row.confirmed_by) for row in taken] == [(ARM, "run-14")]
    assert state(filled) == "revoked"
    assert open_incidents(filled, STUDY) == []

    # It stands in nights to come, which promote nothing of the kind.
    new, _, taken = watch(filled, nights(15, 0.8), STUDY, SETTINGS)
    assert new == []
    assert [(row.run_id, row.confirmed_by) for row in taken] == [("run-15", "run-14")]
    log = filled.query("SELECT state, revoked, reinstated_by FROM incident_log WHERE study = ?", [STUDY])
    assert set(log.state) == {"confirmed"}
    assert log.revoked.all()
    assert log.reinstated_by.isna().all()

    with pytest.raises(InputError, match="a person and a reason"):
        reinstate(filled, STUDY, ARM, by="ops@example.org", because=" ")
    row = reinstate(filled, STUDY, ARM, by="ops@example.org", because="A driver of the neighbour's; agreed.")
    assert (row.run_id, row.arm) == ("run-14", ARM)
    with pytest.raises(InputError, match="No revocation stands"):
        reinstate(filled, STUDY, ARM, by="ops@example.org", because="again")
    assert state(filled) == "in force"
    _, _, taken = watch(filled, nights(16, 0.8), STUDY, SETTINGS)
    assert taken == []
    # The snapshot tells it too, and old clients read it from there.
    with Store.open_published(publish(filled, tmp_path) / "steelyard.duckdb") as published:
        found = published.query("SELECT reinstated_by FROM incident_log WHERE study = ?", [STUDY])
        assert set(found.reinstated_by) == {"ops@example.org"}


def test_a_burst_of_one_night_revokes_nothing(filled: Store, nights: Callable[[int, float], StudyRow]) -> None:
    for number in range(2, 20):
        watch(filled, nights(number, 0.7 if number == 9 else 1.0), STUDY, SETTINGS)
    assert ours(filled) == []
    assert {row.run_id for row in filled.read(IncidentEndRow)} == {"run-1-nights"}
    assert state(filled) == "in force"
