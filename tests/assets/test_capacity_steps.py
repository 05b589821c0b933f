"""Capacity of arms on the fake engine, whose true capacity is known: twice the slots, twice the arrivals."""

from __future__ import annotations

import dataclasses
from typing import Any

import fake_study
import pytest
from fake_study import write_fake_study

from assets.measuring import arms_left, start_engines
from assets.searching import measure_capacity
from assets.session import Session
from steelyard.capacity_comparisons import compare_capacity
from steelyard.gates.recompute_diff import Recomputed
from steelyard.gates.recompute_probes import rebuild_probes
from steelyard.load import probes as probing
from steelyard.records import ArmRow, StudyRow
from steelyard.records_trials import ProbeRow
from steelyard.study_file import LoadedStudy, load_study
from warehouse.contracts import validate

# 24 ms in one of the slots: 80 and 160 requests a second where two and four are open.
SLOW = {"answers_file": fake_study.ANSWERS, "max_num_seqs": 2, "ttft_s": 0.014, "itl_s": 0.001}
CHANGES: dict[str, Any] = {
    "blocks": 3,
    "slo": {"ttft_s": 0.1},
    "baseline": {"engine": "fake", "args": SLOW},
    "candidates": [{**fake_study.STUDY["candidates"][0], "args": {"max_num_seqs": 4}}],
    "controls": [{"name": "identity", "kind": "identity"}],
    "capacity": [{"workload": "chat", "lowest": 8.0, "highest": 512.0, "seconds": 0.6, "resolution": 1.2}],
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedStudy:
    return load_study(write_fake_study(tmp_path_factory.mktemp("capacity") / "study", **CHANGES))


def begun(session: Session, loaded: LoadedStudy) -> StudyRow:
    run = session.begin(loaded)
    start_engines(session, loaded, run)
    return run


def test_twice_the_slots_take_twice_the_arrivals(
    session: Session, loaded: LoadedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(session, loaded)
    made: list[ProbeRow] = []
    real = probing.probe_row

    def killed(*given: Any, **named: Any) -> ProbeRow:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(real(*given, **named))
        return made[-1]

    monkeypatch.setattr(probing, "probe_row", killed)
    with pytest.raises(KeyboardInterrupt):
        measure_capacity(session, loaded, run)
    monkeypatch.setattr(probing, "probe_row", real)
    assert session.store.read(ProbeRow, run_id=run.run_id) == sorted(made, key=lambda row: row.number)
    measure_capacity(session, loaded, run)
    rows = session.store.read(ProbeRow, run_id=run.run_id)
    assert [row for row in rows if row in made] == sorted(made, key=lambda row: row.number), "measured again"
    # On a busy machine the client takes a probe back now and then; nobody else may.
    taken_back = [row for row in rows if not row.valid]
    assert len(taken_back) <= len(rows) / 5, [row.invalid_reasons for row in taken_back]
    assert all("the client" in reason for row in taken_back for reason in row.invalid_reasons)
    asked = loaded.study.capacity
    found = {
        row.arm: row for row in compare_capacity(run.run_id, rows, asked, arms=["batching", "identity"], confidence=0.9)
    }
    assert found["batching"].estimate == pytest.approx(2.0, rel=0.35)
    assert found["identity"].estimate == pytest.approx(1.0, rel=0.35)
    assert 30 < (found["batching"].baseline_value or 0) < 130
    # In a block the arms got the same arrivals at the same rate.
    by_place: dict[tuple[int, float, int], set[tuple[float, ...]]] = {}
    for row in rows:
        part = sum(1 for each in rows if (each.arm, each.block, each.rate) == (row.arm, row.block, row.rate)
                   and each.number < row.number)  # fmt: skip
        by_place.setdefault((row.block, row.rate, part), set()).add(tuple(row.due_s))
    assert all(len(arrivals) == 1 for arrivals in by_place.values())

    frame = session.store.query("SELECT * FROM probes WHERE run_id = ?", [run.run_id])
    assert validate("probes", frame).failures == []
    before = len(rows)
    measure_capacity(session, loaded, run)
    assert len(session.store.read(ProbeRow, run_id=run.run_id)) == before
    assert arms_left(session, loaded, run), "suites and trials are left"

    arms = session.store.read(ArmRow, run_id=run.run_id)
    again = Recomputed(run_id=run.run_id)
    rebuild_probes(again, loaded.study, arms, rows, whole=True)
    assert again.differences == []
    for broken in (
        [dataclasses.replace(rows[0], met=rows[0].met - 1), *rows[1:]],
        [dataclasses.replace(rows[0], rate=rows[0].rate * 2), *rows[1:]],
        [dataclasses.replace(rows[0], due_s=[0.0] * len(rows[0].due_s)), *rows[1:]],
        rows[1:],
        rows[:-1],
        [row for row in rows if (row.arm, row.block) != ("batching", 1)],
    ):
        again = Recomputed(run_id=run.run_id)
        rebuild_probes(again, loaded.study, arms, broken, whole=True)
        assert again.differences, "a changed probe was not seen"
