"""The study that judges what a search found: winner and fallback alone, under the source's suites and gates."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steelyard.digest import digest
from steelyard.errors import InputError
from steelyard.records_search import SearchRow, StackRow
from steelyard.records_trials import TrialRow
from steelyard.stats.incomplete_blocks import Comparing, Observation
from steelyard.study_derived import data_of, write_study
from steelyard.study_file import LoadedStudy
from steelyard.tuning.outcome import said
from steelyard.tuning.stack import BASELINE
from steelyard.tuning.terms import CONFIDENCE

TUNED, SAFE = "tuned", "tuned-safe"
SUFFIX = "-tuned"


def check_confirmable(source: Path, loaded: LoadedStudy) -> None:
    """Find out before the search whether its winner could be judged. InputError if not.

    A policy whose winners are confirmed on sealed documents keeps its own way: a search has chosen among many, and no
    document may be asked for the second time.
    """
    if loaded.policy.confirm == "winner":
        raise InputError(
            "The policy has winners confirmed on sealed documents, which a search must not spend.",
            remedy="Search with --no-confirm, write the stack into the study as a candidate, run and confirm it.",
        )
    some = loaded.study.candidates[0]
    claim = {"workload": some.claim.workload, "load": some.claim.load}
    change = some.model_dump(mode="json", exclude_none=True, include={"engine", "args", "env", "weights"})
    weights = change.get("weights")
    if weights is not None:
        change["weights"] = [
            _absolute(each, loaded.root) for each in (weights if isinstance(weights, list) else [weights])
        ]
    with tempfile.TemporaryDirectory() as folder:
        _write(source, loaded, 0, [{"name": TUNED, "lever": "combined", "claim": claim, **change}], Path(folder))


def write_confirmation(
    source: Path, loaded: LoadedStudy, search: SearchRow, rows: Sequence[StackRow], trials: Sequence[TrialRow],
    folder: Path,
) -> Path:  # fmt: skip
    """Write it into `folder` and return its file.

    Its seed follows from the search, so prompts, arrivals, orders and draws of documents are others, and the same
    command resumes it. The claim is the load point where the search saw the largest gain. Raises InputError if what was
    made is no study.
    """
    claim = claimed(loaded, search, trials)
    stacks = {row.arm: row for row in rows}
    arms = [(TUNED, search.winner), (SAFE, search.fallback)]
    candidates = [_candidate(name, stacks[arm], search, claim, loaded) for name, arm in arms if arm is not None]
    return _write(source, loaded, int(digest([search.run_id, search.winner])[:8], 16), candidates, folder)


def _write(source: Path, loaded: LoadedStudy, seed: int, candidates: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    data = data_of(source, loaded)
    data |= {
        "study": f"{loaded.study.study}{SUFFIX}",
        "description": f"Judges the stack that a search found best for {loaded.study.study}, afresh.",
        "seed": seed, "reuse_baseline": False, "candidates": [dict(each) for each in candidates],
    }  # fmt: skip
    data.pop("profile", None)
    try:
        return write_study(data, loaded, folder, {})
    except InputError as error:
        raise InputError(
            f"The study that would judge the winner is no valid study: {error}",
            remedy=f"It is made of this one, with {SUFFIX} added to its name: change what is named, or --no-confirm.",
        ) from error


def claimed(loaded: LoadedStudy, search: SearchRow, trials: Sequence[TrialRow]) -> str:
    """The load point where the winner's output tokens/s are the largest multiple of the baseline's; of a study that
    gates capacities, among workloads whose capacity is searched.
    """
    searched = {each.workload for each in loaded.study.capacity}
    gated = any(gate.category == "capacity" and gate.on == "claimed" for gate in loaded.policy.gates)
    gains: dict[str, float] = {}
    for point in search.load_points:
        if gated and point.partition("@")[0] not in searched:
            continue
        seen = [
            Observation(config=row.arm, stratum=point, block=row.block, value=row.output_tokens_per_s)
            for row in trials
            if row.load_point == point and row.valid and row.output_tokens_per_s
        ]
        gains[point] = Comparing(seen).ratio(search.winner or "", BASELINE, CONFIDENCE).value or 0.0
    return max(gains, key=lambda point: gains[point], default=search.load_points[0])


def _candidate(name: str, row: StackRow, search: SearchRow, claim: str, loaded: LoadedStudy) -> dict[str, Any]:
    change: Mapping[str, Any] = json.loads(row.change_json)
    workload, _, load = claim.partition("@")
    weights = [_absolute(step, loaded.root) for step in change.get("weights", ())]
    return {
        "name": name, "lever": "combined", "note": f"{said(row)}, found by search {search.run_id} as {row.arm}.",
        "claim": {"workload": workload, "load": load},
        **{key: dict(change[key]) for key in ("args", "env") if key in change},
        **({"weights": weights} if weights else {}),
    }  # fmt: skip


def _absolute(step: Mapping[str, Any], root: Path) -> dict[str, Any]:
    adapter = step.get("adapter")
    known = isinstance(adapter, str) and (root / adapter).exists()
    return {**step, **({"adapter": str((root / str(adapter)).resolve())} if known else {})}
