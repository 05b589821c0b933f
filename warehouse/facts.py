"""The rows of one run as the report wants them."""

from __future__ import annotations

from typing import Any

from steelyard.errors import InputError
from steelyard.records import ROWS, StudyRow
from steelyard.reports.facts import Facts
from warehouse.store import Store

BUNDLE = {
    "arms": "arms",
    "trials": "trials",
    "requests": "requests",
    "engine_metrics": "engine_metrics",
    "suites": "suites",
    "samples": "samples",
    "divergences": "divergences",
    "probes": "probes",
    "comparisons": "comparisons",
    "gates": "gate_results",
    "verdicts": "verdicts",
    "prices": "prices",
    "unit_costs": "unit_costs",
    "promotions": "promotions",
    "profiles": "profiles",
    "profile_steps": "profile_steps",
    "operators": "operators",
    "ceilings": "ceilings",
    "rooflines": "rooflines",
    "opportunities": "opportunities",
    "wall_times": "wall_times",
    "thinnings": "thinnings",
    "incidents": "incidents",
    "incident_ends": "incident_ends",
    "revocations": "revocations",
    "reinstatements": "reinstatements",
}
"""Field of `Facts` -> table."""


def load_facts(store: Store, run_id: str) -> Facts:
    """Every row of a run. InputError if the warehouse has no such run."""
    studies = store.read(StudyRow, run_id=run_id)
    if not studies:
        raise InputError(f"There is no run {run_id}.", remedy="`SELECT run_id FROM studies` lists the runs.")
    classes = {row_class.TABLE: row_class for row_class in ROWS}
    bundle: dict[str, Any] = {field: store.read(classes[table], run_id=run_id) for field, table in BUNDLE.items()}
    return Facts(study=studies[0], **bundle)
