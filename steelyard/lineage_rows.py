"""Which rows of the same run one row rests on: the way of who reads a verdict down to requests and samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Where = dict[str, Any]
"""Values of columns by which rows are found."""

_BEHIND_COMPARISON = {
    "speed": ("trials", "load_point", "both sides' trials, block by block"),
    "cost": ("unit_costs", "load_point", "what a million tokens cost on either side"),
    "capacity": ("probes", "scope", "the searches of either side"),
    "accuracy": ("sample_pairs", "suite", "each document with both scores"),
    "safety": ("sample_pairs", "suite", "each document with both scores"),
    "canary": ("sample_pairs", "suite", "each document with both scores"),
}


def behind(table: str, row: Mapping[str, Any]) -> list[tuple[str, str, Where]]:
    """The rows of the same run that one row rests on: what they are, their table or view, columns to find them by.

    Nothing for what was measured and not derived.
    """
    arm = {"arm": row["arm"]} if row.get("arm") is not None else {}
    if table == "promotions":
        signed: list[tuple[str, str, Where]] = [("who signed", "sign_offs", {})] if row.get("packet_digest") else []
        return [("its verdict", "verdicts", arm), ("its deployment", "arms", arm), *signed]
    if table == "verdicts":
        return [
            ("its gates", "gate_results", arm), ("its deployment: weights, arguments, engine", "arms", arm),
            ("the baseline's", "arms", {"role": "baseline"}), ("the policy", "studies", {}),
        ]  # fmt: skip
    if table == "gate_results":
        found = {name: row[name] for name in ("arm", "category", "metric", "scope")}
        return [("its comparison", "comparisons", found)]
    if table == "comparisons":
        return _behind_comparison(row, arm)
    if table == "unit_costs":
        return [("its trials", "trials", {**arm, "load_point": row["load_point"]}), ("its price", "prices", {})]
    if table == "trials":
        mine = {"trial_id": row["trial_id"]}
        return [("its requests", "requests", mine), ("the engine's own counters", "engine_metrics", mine)]
    if table in ("suites", "sample_pairs", "flips"):
        return [("its samples", "samples", {**arm, **{n: row[n] for n in ("suite", "doc_hash") if n in row}})]
    if table in ("requests", "engine_metrics"):
        return [("its trial", "trials", {"trial_id": row["trial_id"]})]
    if table == "incidents":
        figure = {name: row[name] for name in ("metric", "scope")}
        return [("what this run measured of it", "comparisons", {**arm, **figure}), ("its deployment", "arms", arm)]
    if table in ("rooflines", "opportunities", "profile_steps", "operators"):
        return _behind_profile(table, row)
    if table in ("samples", "divergences", "probes"):
        return [("its deployment", "arms", arm)]
    if table == "profiles":
        return [("its steps", "profile_steps", _at(row)), ("its deployment", "arms", arm)]
    return []


def _at(row: Mapping[str, Any]) -> Where:
    return {name: row[name] for name in ("arm", "load_point") if name in row}


def _behind_profile(table: str, row: Mapping[str, Any]) -> list[tuple[str, str, Where]]:
    """Of a lever the arm is one that may not exist: what it rests on is the baseline's, at the same load point."""
    profile = ("the profile it is of", "profiles", _at(row))
    if table in ("profile_steps", "operators"):
        return [profile]
    steps = ("its steps", "profile_steps", _at(row))
    roofs = [("what the baseline makes of the machine", "rooflines", _at(row))] if table == "opportunities" else []
    return [profile, steps, *roofs, ("what the machine can do", "ceilings", {})]


def _behind_comparison(row: Mapping[str, Any], arm: Where) -> list[tuple[str, str, Where]]:
    if row["category"] == "divergence":
        return [("the prompts that were screened", "divergences", arm)]
    table, named, what = _BEHIND_COMPARISON[row["category"]]
    where = {named: row["scope"]}
    if table == "sample_pairs":
        return [(what, table, {**arm, **where}), ("the suite as it was asked", "suites", where)]
    return [(what, table, where), ("of the arm alone", table, {**arm, **where})]
