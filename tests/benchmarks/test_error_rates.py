"""The error-rates bench: it judges as production does, and says what it found in one JSON line."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from benchmarks import error_rates
from benchmarks.error_rates_parts import quality, report, speed


def test_a_small_run_agrees_with_production_and_writes_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clustered = quality.Cell(0.02, 0.02, 4, 0.5)
    monkeypatch.setattr(quality, "CELLS", (quality.Cell(0.02, 0.01), clustered))
    monkeypatch.setattr(speed, "CELLS", (speed.SpeedCell(0.08, "normal", 1.3),))
    assert error_rates.main(["--studies", "40", "--out", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["disagreements_with_production"] == 0
    assert said["cells"] == 5
    assert said["min_power"] > 0.6
    assert said["max_false_promotion"] < 0.2
    assert set(said["rivals"]) == {
        "t interval", "point threshold", "Tango", "Tango at every look", "Welch t on runs", "mean of runs",
    }  # fmt: skip
    page = (tmp_path / report.PAGE).read_text()
    assert clustered.name in page
    ET.fromstring((tmp_path / report.PICTURE).read_text())


def test_simulated_decisions_that_production_would_not_make_are_counted() -> None:
    cell = quality.Cell(0.02, 0.02)
    rng = np.random.default_rng(1)
    each = quality.draw(cell, 0.0, quality.CHECKED, rng)
    _, passed = quality.ours(cell, each, 0.0)
    assert quality.disagreements(cell, each, passed) == 0
    assert quality.disagreements(cell, each, ~passed) == quality.CHECKED
