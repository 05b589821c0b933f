"""Canaries are asked first, and one that breaks ends the evaluation of the arm."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import fake_study
import pytest
from fake_study import write_fake_study

from assets import evaluating
from assets.evaluating import measure_suites
from assets.evidence import Evidence
from assets.judged import categories_of
from assets.measuring import start_engines
from assets.session import Session
from steelyard.gates.policy import Gate
from steelyard.records_quality import SuiteRow
from steelyard.study_file import LoadedStudy, load_study

FAST = {"answers_file": fake_study.ANSWERS, "ttft_s": 0.001, "itl_s": 0.0}
GATE = Gate(name="canaries", category="canary", metric="broken_canaries", at_most=0)


def study(folder: Path) -> LoadedStudy:
    suites = [
        {"name": "choice", "task": "steelyard_facts_choice", "category": "accuracy", "limit": 40},
        {"name": "refusal", "task": "steelyard_refusal", "category": "safety", "limit": 40},
        {"name": "canaries", "task": "steelyard_secrets", "category": "canary", "limit": 30},
    ]
    policy = {
        **fake_study.POLICY,
        "stop_early": True,
        "gates": [*fake_study.POLICY["gates"], GATE.model_dump(exclude_none=True)],
    }
    written = write_fake_study(
        folder, policy=policy, batch=20, suites=suites, baseline={"engine": "fake", "args": FAST}
    )
    return load_study(written)


def test_a_broken_canary_ends_the_evaluation(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = study(tmp_path / "study")
    asked: list[tuple[str, str]] = []
    real = evaluating.run_suite

    def run_suite(engine: Any, suite: Any, **named: Any) -> Any:
        asked.append((engine.arm, suite.name))
        found = real(engine, suite, **named)
        if (engine.arm, suite.name) == ("batching", "canaries"):
            broken = [dataclasses.replace(each, score=0.0) for each in found.samples]
            return found._replace(samples=broken)
        return found

    monkeypatch.setattr(evaluating, "run_suite", run_suite)
    run = session.begin(loaded)
    start_engines(session, loaded, run)
    measure_suites(session, loaded, run)
    assert [suite for arm, suite in asked if arm == "batching"] == ["canaries"]
    evidence = Evidence(session, loaded, run)
    assert "canaries of suite canaries" in (evidence.settled("batching").rejected or "")
    assert not evidence.waiting("batching")
    (stored,) = session.store.read(SuiteRow, run_id=run.run_id, arm="batching")
    assert (stored.suite, stored.asked, stored.declared) == ("canaries", 30, 30)
    whole = {row.suite: row for row in session.store.read(SuiteRow, run_id=run.run_id, arm="identity")}
    assert whole["canaries"].asked == 30


def test_canaries_have_a_check_of_their_own_where_they_are_required(tmp_path: Path) -> None:
    assert "canary" in categories_of(study(tmp_path / "with"))
    assert "canary" not in categories_of(load_study(write_fake_study(tmp_path / "without")))
