"""Whatever stumbles in a survey becomes a reason in its rows, never the end of a night."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steelyard.engines.base import Deployment
from steelyard.errors import CrashedAtStart
from steelyard.levers import survey as module
from steelyard.levers.survey import Surveyed, survey
from steelyard.records_profile import OpportunityRow, ProfileRow
from steelyard.study_file import load_study
from steelyard.study_profile import Profile

LAPTOP = Path(__file__).parents[2] / "studies" / "laptop"
WEIGHTS = Path(__file__).parents[2] / "reference_model" / "weights"


def surveyed(tmp_path: Path) -> list[Any]:
    study = load_study(LAPTOP).study
    base = Deployment(
        arm="baseline", engine="vllm", model_name="m", weights=str(WEIGHTS), tokenizer=str(WEIGHTS), chat_template=None,
        args={}, env={}, url=None, device="cpu", weights_digest="w", tokenizer_digest="t", template_digest=None,
    )  # fmt: skip
    asked = Surveyed(study=study, run_id="run", baseline=base, digest="0" * 64, resolved={"baseline": {}})
    return survey(asked, Profile(), logs=tmp_path, tell=lambda _: None)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (CrashedAtStart("The engine ended.", remedy="Look.", arm="baseline"), "The engine ended."),
        (KeyError("ts"), "the profile could not be evaluated (KeyError: 'ts')"),
    ],
)
def test_an_engine_that_cannot_be_profiled_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(module, "serve", fails)
    rows = surveyed(tmp_path)
    assert {row.error for row in rows if isinstance(row, ProfileRow)} == {says}
    assert all(row.reason for row in rows if isinstance(row, OpportunityRow))


def test_a_prediction_that_stumbles_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_profiles", lambda asked, *_: [
        module.not_profiled("run", "baseline", point.name, asked.digest, module.datetime.now(module.UTC), "none")
        for point in asked.study.load_points
    ])  # fmt: skip
    monkeypatch.setattr(module, "_counted", lambda *_: 1 / 0)
    rows = surveyed(tmp_path)
    told = {row.reason for row in rows if isinstance(row, OpportunityRow) and row.name == "omp-threads"}
    assert told == {"the profile could not be evaluated (ZeroDivisionError: division by zero)"}
