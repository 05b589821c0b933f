"""The divergence step of a run: every arm once, resumable, and only against the deployment the run recorded."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from fake_study import write_fake_study

from assets import measuring
from assets.contracts import must_have_rows
from assets.judged import categories_of
from assets.measuring import arms_left, measure_divergence, start_engines, unscreened
from assets.session import Session
from steelyard.errors import CrashedWhileServing, InfrastructureError
from steelyard.records import ArmRow, StudyRow
from steelyard.records_quality import DivergenceRow
from steelyard.study_file import LoadedStudy, load_study


def fake_study(folder: Path, **changes: object) -> LoadedStudy:
    return load_study(write_fake_study(folder, **{"divergence": {"prompts": 4, "max_tokens": 8}, **changes}))


def begun(session: Session, loaded: LoadedStudy) -> StudyRow:
    run = session.begin(loaded)
    start_engines(session, loaded, run)
    return session.run(loaded)


def stored(session: Session, run: StudyRow) -> dict[str, list[DivergenceRow]]:
    of: dict[str, list[DivergenceRow]] = {}
    for row in session.store.read(DivergenceRow, run_id=run.run_id):
        of.setdefault(row.arm, []).append(row)
    return of


def test_every_arm_is_screened_once_and_a_resumed_run_goes_on(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = fake_study(tmp_path / "study")
    run = begun(session, loaded)
    assert len(unscreened(session, loaded, run)) == 4
    measure_divergence(session, loaded, run)
    first = stored(session, run)
    assert {arm: len(rows) for arm, rows in first.items()} == dict.fromkeys(
        ("batching", "fast-but-unsafe", "identity", "known-bad"), 4
    )
    assert all(row.error is None for rows in first.values() for row in rows)
    baseline = next(row for row in session.store.read(ArmRow, run_id=run.run_id) if row.role == "baseline")
    assert {row.baseline_digest for rows in first.values() for row in rows} == {baseline.deployment_digest}
    assert unscreened(session, loaded, run) == []
    assert arms_left(session, loaded, run), "suites and trials are left"

    # As after a kill between two arms: what is stored is left alone, and the baseline is asked anew.
    kept = [row for arm, rows in first.items() if arm != "identity" for row in rows]
    session.store.replace_run(run.run_id, DivergenceRow, kept)
    asked = []
    real = measuring.diverge
    monkeypatch.setattr(
        measuring, "diverge", lambda engine, *a, **k: (asked.append(engine.arm), real(engine, *a, **k))[1]
    )
    measure_divergence(session, loaded, run)
    assert asked == ["identity"]
    assert stored(session, run) == first
    measure_divergence(session, loaded, run)
    assert asked == ["identity"]


def test_another_baseline_than_the_recorded_one_is_refused(session: Session, tmp_path: Path) -> None:
    loaded = fake_study(tmp_path / "study")
    run = begun(session, loaded)
    baseline = next(row for row in session.store.read(ArmRow, run_id=run.run_id) if row.role == "baseline")
    session.store.write([dataclasses.replace(baseline, deployment_digest="0" * 64)])
    with pytest.raises(InfrastructureError, match="this run recorded 000000000000"):
        measure_divergence(session, loaded, run)
    assert stored(session, run) == {}


def test_an_arm_that_dies_is_asked_twice_and_given_up(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = fake_study(tmp_path / "study")
    run = begun(session, loaded)
    tried = []
    real = measuring.diverge

    def dies(engine: Any, *given: Any, **named: Any) -> list[DivergenceRow]:
        tried.append(engine.arm)
        if engine.arm == "batching":
            raise CrashedWhileServing("The engine ended.", remedy="Read its log.", arm="batching")
        return real(engine, *given, **named)

    monkeypatch.setattr(measuring, "diverge", dies)
    measure_divergence(session, loaded, run)
    assert tried.count("batching") == 2
    assert set(stored(session, run)) == {"fast-but-unsafe", "identity", "known-bad"}
    [arm] = session.store.read(ArmRow, run_id=run.run_id, arm="batching")
    assert arm.status == "failed"
    assert unscreened(session, loaded, run) == []
    assert must_have_rows(session, loaded, run, "divergences")


def test_a_study_without_a_screen_measures_and_checks_none(session: Session, tmp_path: Path) -> None:
    loaded = fake_study(tmp_path / "study")
    plain = dataclasses.replace(loaded, study=loaded.study.model_copy(update={"divergence": None}))
    run = session.begin(plain)
    measure_divergence(session, plain, run)
    assert unscreened(session, plain, run) == []
    assert stored(session, run) == {}
    assert "divergence" in categories_of(loaded)
    gates = tuple(gate for gate in loaded.policy.gates if gate.category != "divergence")
    ungated = dataclasses.replace(loaded, policy=loaded.policy.model_copy(update={"gates": gates}))
    assert "divergence" not in categories_of(ungated)
    assert not must_have_rows(session, plain, run, "divergences")
