"""Every study this project ships can be read, and says what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from steelyard.deployments import deployments
from steelyard.errors import InputError
from steelyard.study_file import load_study

STUDIES = Path(__file__).parents[2] / "studies"
SHIPPED = sorted(path.parent.name for path in STUDIES.glob("*/study.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_valid(name: str) -> None:
    study = load_study(STUDIES / name).study
    assert study.description
    assert any(control.kind == "identity" for control in study.controls)


def test_the_gpu_twins_pull_the_same_levers() -> None:
    speed, quality = (load_study(STUDIES / name).study for name in ("h200", "h200-quality"))
    assert len(speed.candidates) >= 8
    assert [each.name for each in speed.candidates] == [each.name for each in quality.candidates]
    assert [each.args for each in speed.candidates] == [each.args for each in quality.candidates]
    assert {each.lever for each in speed.candidates} >= {
        "batching", "compilation", "cache", "quantization", "speculation", "attention", "combined",
    }  # fmt: skip


def test_random_weights_need_a_configuration_only(tmp_path: Path) -> None:
    loaded = load_study(STUDIES / "h200")
    ready = deployments(loaded, weights_into=tmp_path)
    digests = {each.weights_digest for each in ready}
    assert len(digests) == 1
    assert None not in digests
    # A study that loads weights anywhere is held to have some.
    for change in ({"weights": {"method": "int8_w8a8"}}, {"args": {"load_format": "auto"}}):
        data = yaml.safe_load((STUDIES / "h200" / "study.yaml").read_text())
        data["candidates"][0] |= change
        data["model"] = {name: str(STUDIES / "h200" / value) if name != "name" else value
                         for name, value in data["model"].items()}  # fmt: skip
        data |= {"policy": str(STUDIES / "h200" / "policy.yaml"), "prices": str(STUDIES / "laptop" / "prices.yaml")}
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(data))
        with pytest.raises(InputError, match="holds no"):
            load_study(tmp_path)
