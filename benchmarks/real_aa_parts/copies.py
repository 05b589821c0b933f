"""A study whose every candidate is the baseline again, by the policy, workloads and suites of an existing one."""

from __future__ import annotations

from pathlib import Path

from steelyard.study_derived import data_of, write_study
from steelyard.study_file import load_study

MARK = "seed"
"""Argument that makes a copy another deployment in name. Greedy answers draw nothing, and an engine with it is launched
as the baseline is, which an unknown environment variable would prevent."""


def write_copies(source: Path, folder: Path, *, arms: int, seed: int) -> Path:
    """Write the study with `arms` candidates into `folder` and return its file. Claims go round the load points.

    Raises InputError if the source, or what was made of it, is no valid study.
    """
    loaded = load_study(source)
    points = loaded.study.load_points
    data = data_of(source, loaded)
    data["study"], data["seed"] = f"{data['study']}-aa", seed
    data["description"] = "The baseline against itself: whatever is promoted here is noise."
    # Every run asks its own baseline. What the baseline's profile promises to copies of it is known.
    data["reuse_baseline"] = False
    data.pop("profile", None)
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
    # Copies are no further attempts of each other.
    return write_study(data, loaded, folder, {"attempts": "free"})
