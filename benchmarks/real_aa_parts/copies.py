"""A study whose every candidate is the baseline again, by the policy, workloads and suites of an existing one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from steelyard.study_file import load_study, study_path

MARK = "seed"
"""Argument that makes a copy another deployment in name. Greedy answers draw nothing, and an engine with it is launched
as the baseline is, which an unknown environment variable would prevent."""


def write_copies(source: Path, folder: Path, *, arms: int, seed: int) -> Path:
    """Write the study with `arms` candidates into `folder` and return its file. Claims go round the load points.

    Raises InputError if the source, or what was made of it, is no valid study.
    """
    loaded = load_study(source)
    points = loaded.study.load_points
    data: dict[str, Any] = yaml.safe_load(study_path(source).read_text("utf-8"))
    data["study"], data["seed"] = f"{data['study']}-aa", seed
    data["description"] = "The baseline against itself: whatever is promoted here is noise."
    # Copies are no further attempts of each other, and every run asks its own baseline.
    data["reuse_baseline"] = False
    judges = [suite["judge"] for suite in data["suites"] if "judge" in suite]
    for part in (data["model"], *data["suites"], *judges):
        for key in ("weights", "tokenizer", "chat_template", "path", "calibration", "template"):
            if isinstance(part.get(key), str) and (loaded.root / part[key]).exists():
                part[key] = str((loaded.root / part[key]).resolve())
    data["candidates"] = [
        {
            "name": f"copy-{number + 1}",
            "lever": "combined",
            "args": {MARK: number + 1},
            "claim": {"workload": point.workload.name, "load": point.load.name},
        }
        for number in range(arms)
        for point in (points[number % len(points)],)
    ]
    data["controls"] = [{"name": "identity", "kind": "identity"}]
    folder.mkdir(parents=True, exist_ok=True)
    for key in ("policy", "prices"):
        content = getattr(loaded, key).model_dump(mode="json", exclude_none=True)
        if key == "policy":
            content["attempts"] = "free"
        (folder / f"{key}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
        data[key] = f"{key}.yaml"
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), "utf-8")
    load_study(path)
    return path
