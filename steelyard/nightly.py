"""What holds for all nights of a place: `studies/nightly.yaml`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from steelyard.errors import InputError
from steelyard.study_base import Frozen
from steelyard.study_file import all_at_once, validated
from steelyard.yaml_lines import read

NIGHTLY = "nightly.yaml"


class Retention(Frozen):
    """Which raw request rows may go. Trials, samples, verdicts and every aggregate are kept for ever."""

    after_days: int = Field(
        ge=1,
        description="Age of a run, in days, from which its request rows are thinned. Runs that a decision rests on "
        "today (the newest complete one of a study, and each with a promotion in force) keep them all.",
    )
    keep: float = Field(
        0.1, ge=0, lt=1, description="Share of a trial's good requests that stays, evenly; failed ones all stay."
    )


class Nightly(Frozen):
    """What holds for all nights of a place, beside its studies."""

    retention: Retention | None = Field(None, description="Thinning of raw request rows; none: they are all kept.")


def load_nightly(path: Path) -> Nightly:
    """Read the file. Raises one InputError whose `problems` are all its problems; it must be there."""
    document = read(path, "nightly")
    problems: list[InputError] = list(document.problems)
    nightly = validated(document, Nightly, problems)
    if problems or nightly is None:
        raise all_at_once(path, problems)
    return nightly
