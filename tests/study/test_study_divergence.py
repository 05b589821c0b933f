"""What a study may ask of the divergence screen, and what goes wrong at which line."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_study import written

from steelyard.errors import InputError
from steelyard.study_divergence import Divergence
from steelyard.study_file import load_study

SCREEN = {"name": "screen", "category": "divergence", "metric": "kl_nats", "at_most": 0.1}


def test_nothing_is_measured_unless_asked_for(tmp_path: Path) -> None:
    assert load_study(written(tmp_path / "a")).study.divergence is None
    assert load_study(written(tmp_path / "b", divergence={})).study.divergence == Divergence()
    assert Divergence() == Divergence(prompts=64, top_k=20, max_tokens=32)


@pytest.mark.parametrize(
    ("screen", "field"),
    [({"top_k": 21}, "top_k"), ({"top_k": 0}, "top_k"), ({"prompts": 1}, "prompts"), ({"max_tokens": 0}, "max_tokens"),
     ({"promts": 8}, "promts")],
)  # fmt: skip
def test_a_wrong_screen_names_its_line(tmp_path: Path, screen: dict[str, int], field: str) -> None:
    with pytest.raises(InputError) as caught:
        load_study(written(tmp_path / "s", divergence=screen))
    (problem,) = caught.value.problems
    assert f"divergence.{field}" in str(problem)
    assert problem.line


def test_a_required_gate_needs_the_measurement(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_study(written(tmp_path / "a", SCREEN))
    (problem,) = caught.value.problems
    assert "requires screen, but the study measures no divergence" in str(problem)
    load_study(written(tmp_path / "b", SCREEN, divergence={"prompts": 8}))
    load_study(written(tmp_path / "c", {**SCREEN, "required": False}))
