"""A study made from another one: the same model, workloads, suites and prices; other arms, in a folder elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from steelyard.study_file import LoadedStudy, load_study, study_path

_PATHS = ("weights", "tokenizer", "chat_template", "path", "calibration", "template", "adapter", "serve_weights")


def data_of(source: Path, loaded: LoadedStudy) -> dict[str, Any]:
    """The study's YAML as data, with the paths of model, suites, judges and arms made absolute."""
    data: dict[str, Any] = yaml.safe_load(study_path(source).read_text("utf-8"))
    judges = [suite["judge"] for suite in data["suites"] if "judge" in suite]
    arms = [*data["candidates"], *data["controls"]]
    weights = [step for arm in arms for step in _listed(arm.get("weights"))]
    faults = [arm["faults"] for arm in arms if "faults" in arm]
    for part in (data["model"], *data["suites"], *judges, *arms, *weights, *faults):
        for key in _PATHS:
            if isinstance(part.get(key), str) and (loaded.root / part[key]).exists():
                part[key] = str((loaded.root / part[key]).resolve())
    return data


def _listed(value: Any) -> list[dict[str, Any]]:
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]


def write_study(data: Mapping[str, Any], loaded: LoadedStudy, folder: Path, policy: Mapping[str, Any]) -> Path:
    """Write study, policy (the source's, with `policy` over it) and price book; the study's file.

    Raises InputError if what was made is no valid study.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "policy": {**loaded.policy.model_dump(mode="json", exclude_none=True), **policy},
        "prices": loaded.prices.model_dump(mode="json", exclude_none=True),
    }
    for key, content in contents.items():
        (folder / f"{key}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    path = folder / "study.yaml"
    whole = {**data, **{key: f"{key}.yaml" for key in contents}}
    path.write_text(yaml.safe_dump(whole, sort_keys=False), "utf-8")
    load_study(path)
    return path
