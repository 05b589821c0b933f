"""Names and settings every asset of a study shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from steelyard import __version__
from steelyard.study_file import LoadedStudy

GROUPS = ("asked", "served", "measured", "compared", "judged", "released")
"""Stages from left to right; the number keeps Dagster's alphabetical list in that order."""


def key(loaded: LoadedStudy, name: str) -> dg.AssetKey:
    """Asset keys carry the study, so that many studies live in one graph."""
    return dg.AssetKey([asset_safe(loaded.study.study), asset_safe(name)])


def asset_safe(name: str) -> str:
    """A name as Dagster allows it in keys."""
    return name.replace("-", "_")


def group(loaded: LoadedStudy, stage: str) -> str:
    """Group of a stage, such as `laptop_3_measured`."""
    return f"{asset_safe(loaded.study.study)}_{GROUPS.index(stage) + 1}_{stage}"


def common(loaded: LoadedStudy, stage: str, *kinds: str) -> Mapping[str, Any]:
    """Settings of every asset of a stage."""
    return {
        "group_name": group(loaded, stage),
        "kinds": set(kinds),
        "owners": [loaded.study.owner],
        "code_version": __version__,
    }
