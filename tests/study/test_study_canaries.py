"""Canary suites and canary gates need each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_study import STUDY, written

from steelyard.errors import InputError
from steelyard.study_file import load_study

SUITES = [*STUDY["suites"], {"name": "canaries", "task": "t", "category": "canary"}]


def canaries(**values: Any) -> dict[str, Any]:
    return {"name": "canaries", "category": "canary", "metric": "broken_canaries", "at_most": 0, **values}


def test_a_required_gate_needs_canaries(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_study(written(tmp_path / "a", canaries()))
    (problem,) = caught.value.problems
    assert "requires canaries, but no suite is a canary" in str(problem)
    load_study(written(tmp_path / "b", canaries(required=False)))


@pytest.mark.parametrize("wrong", [{"margin": 0.1, "at_most": None}, {"category": "safety"}, {"on": "claimed"}])
def test_a_wrong_gate_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    given = {key: value for key, value in canaries(**wrong).items() if value is not None}
    with pytest.raises(InputError):
        load_study(written(tmp_path / "a", given))


def test_canaries_that_no_gate_judges_are_refused_at_their_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_study(written(tmp_path / "a", suites=SUITES))
    (problem,) = caught.value.problems
    assert "has no canary gate, so nothing would judge this suite" in str(problem)
    assert "study.yaml:43: suites[canaries].category" in str(problem)
    load_study(written(tmp_path / "b", canaries(), suites=SUITES))


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        (canaries(confidence=0.99), "a canary gate has no confidence of its own"),
        (
            {"name": "screen", "category": "divergence", "metric": "kl_nats", "at_most": 0.1, "confidence": 0.99},
            "a divergence gate has no confidence of its own",
        ),
        (
            {"name": "loose", "category": "safety", "metric": "score", "margin": 0.05, "confidence": 0.9},
            "gate loose asks for less confidence than the policy's 0.95",
        ),
    ],
)
def test_a_confidence_that_would_weaken_is_refused(tmp_path: Path, gate: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        load_study(written(tmp_path / "a", gate))
    assert any(says in str(problem) and "policy.yaml:" in str(problem) for problem in caught.value.problems)
