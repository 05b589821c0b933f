"""The study that judges what a search found: winner and fallback alone, under the source's suites and gates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steelyard.comparisons import trials_by_point
from steelyard.confirmation import awaits_confirmation
from steelyard.digest import digest
from steelyard.errors import InputError
from steelyard.records import TrialRow
from steelyard.records_search import SearchRow, StackRow
from steelyard.stats.paired import mean_interval
from steelyard.study_derived import data_of, write_study
from steelyard.study_file import LoadedStudy

TUNED, SAFE = "tuned", "tuned-safe"
SUFFIX = "-tuned"


def write_confirmation(
    source: Path, loaded: LoadedStudy, search: SearchRow, rows: Sequence[StackRow], trials: Sequence[TrialRow],
    folder: Path,
) -> Path:  # fmt: skip
    """Write it into `folder` and return its file.

    Its seed follows from the search, so prompts, arrivals, orders and draws of documents are others, and the same
    command resumes it. The claim is the load point where the search saw the largest gain. Of a campaign only the
    winner is judged: it is this study that confirms it. Raises InputError if what was made is no study.
    """
    data = data_of(source, loaded)
    study = loaded.study
    claim = claimed(search, trials)
    arms = [(TUNED, search.winner), (SAFE, search.fallback)]
    if awaits_confirmation(study, loaded.policy):
        arms = arms[:1]
    stacks = {row.arm: row for row in rows}
    data |= {
        "study": f"{study.study}{SUFFIX}",
        "description": f"Judges the stack that a search found best for {study.study}, afresh.",
        "seed": int(digest([search.run_id, search.winner, "judged afresh"])[:8], 16),
        "reuse_baseline": False,
        "candidates": [_candidate(name, stacks[arm], search, claim, loaded) for name, arm in arms if arm is not None],
    }
    data.pop("profile", None)
    try:
        return write_study(data, loaded, folder, {})
    except InputError as error:
        raise InputError(
            f"The study that would judge the winner is no valid study: {error}",
            remedy=f"Give the study a shorter name: {SUFFIX} is added to it.",
        ) from error


def claimed(search: SearchRow, trials: Sequence[TrialRow]) -> str:
    """The load point where the winner's output tokens/s are the largest multiple of the baseline's."""
    gains: dict[str, float] = {}
    for point, by_arm in trials_by_point(search.run_id, trials).items():
        ours, theirs = (
            mean_interval(
                [row.output_tokens_per_s for row in by_arm.get(arm or "", []) if row.valid and row.output_tokens_per_s],
                0.9,
            ).value
            for arm in (search.winner, "baseline")
        )
        if ours is not None and theirs is not None:
            gains[point] = ours / theirs
    return max(gains, key=lambda point: gains[point], default=search.load_points[0])


def _candidate(name: str, row: StackRow, search: SearchRow, claim: str, loaded: LoadedStudy) -> dict[str, Any]:
    change: Mapping[str, Any] = json.loads(row.change_json)
    workload, _, load = claim.partition("@")
    weights = [_absolute(step, loaded.root) for step in change.get("weights", ())]
    said = " + ".join([*row.pulled, *(f"{key} {value}" for key, value in json.loads(row.numbers_json).items())])
    return {
        "name": name, "lever": "combined", "note": f"{said}, found by search {search.run_id} as {row.arm}.",
        "claim": {"workload": workload, "load": load},
        **{key: dict(change[key]) for key in ("args", "env") if key in change},
        **({"weights": weights} if weights else {}),
    }  # fmt: skip


def _absolute(step: Mapping[str, Any], root: Path) -> dict[str, Any]:
    adapter = step.get("adapter")
    known = isinstance(adapter, str) and (root / adapter).exists()
    return {**step, **({"adapter": str((root / str(adapter)).resolve())} if known else {})}
