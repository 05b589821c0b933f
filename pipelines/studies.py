"""The studies of the folder that can be run here, whatever state the others are in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from assets.common import asset_safe
from steelyard.environment import accelerator
from steelyard.errors import InputError
from steelyard.home import studies_path
from steelyard.study_file import LoadedStudy, load_study
from steelyard.yaml_lines import read

TEMPLATE = "template"

log = logging.getLogger(__name__)


def found_studies(tell: Callable[[str], None] = log.warning) -> list[LoadedStudy]:
    """Studies in the folder, by name of their own folder; `tell` is given what is left out, and why.

    A study that cannot be used is left out and told of: one half-edited file must not take the
    nightly away from every other study. A folder whose name ends with `template` is there to be copied, not to be run,
    and a study for a GPU is none for a machine without one.
    """
    folder = studies_path()
    if not folder.is_dir():
        tell(f"No study is loaded: there is no folder {folder}. Correct STEELYARD_STUDIES.")
    return distinct(loadable(sorted(folder.glob("*/study.yaml")), tell), tell)


def misnamed(names: Iterable[str]) -> list[str]:
    """Those of the names that no study file of the folder has, whether it can be used here or not."""
    there = set()
    for path in studies_path().glob("*/study.yaml"):
        with suppress(InputError):
            there.add(read(path, "study").data.get("study"))
    return [name for name in names if name not in there]


def loadable(paths: Iterable[Path], tell: Callable[[str], None] = log.warning) -> list[tuple[Path, LoadedStudy]]:
    """Each study that is valid, with its file."""
    found = []
    for path in paths:
        if path.parent.name.endswith(TEMPLATE):
            log.debug("%s is a template, and is not loaded.", path)
            continue
        try:
            loaded = load_study(path.parent)
            if loaded.study.hardware.device == "cuda" and accelerator() is None:
                log.info("%s is for a GPU, which this machine has not, and is not loaded.", path)
                continue
            found.append((path, loaded))
        except (InputError, OSError, UnicodeError) as error:
            tell(f"STUDY SKIPPED: {path} cannot be used, and will not run until it is corrected.\n{error}")
    return found


def distinct(
    studies: Iterable[tuple[Path, LoadedStudy]], tell: Callable[[str], None] = log.warning
) -> list[LoadedStudy]:
    """The first of each name as Dagster writes it: two studies of one name would be one graph of assets."""
    first: dict[str, tuple[Path, LoadedStudy]] = {}
    for path, loaded in studies:
        name = loaded.study.study
        taken_by, taken = first.setdefault(asset_safe(name), (path, loaded))
        if taken is not loaded:
            tell(
                f"STUDY SKIPPED: {path}: study: {name} is the same to Dagster as the study {taken.study.study} of "
                f"{taken_by}. Give it a name that differs in more than - and _."
            )
    return [loaded for _, loaded in first.values()]
