"""The derived tables of a stored run, each from the tables below it alone: what column lineage is held against."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from steelyard.drift import figures_of
from steelyard.finops.unit_cost import unit_costs
from steelyard.gates.comparing import Comparing
from steelyard.gates.evaluate import scopes_in
from steelyard.gates.promotion import evaluate_run
from steelyard.gates.recompute_diff import Recomputed
from steelyard.gates.recompute_measured import rebuild_suites, rebuild_trials
from steelyard.gates.recompute_study import asked, price_of
from steelyard.gates.verdict import verdicts, void, void_reasons
from steelyard.incidents import opened
from steelyard.levers.catalogue import CATALOGUE
from steelyard.levers.effects import NoModel
from steelyard.levers.opportunities import candidates, opportunities
from steelyard.levers.predict import Scene
from steelyard.levers.survey import predictor_of
from steelyard.profiling.play import Asked
from steelyard.profiling.rooflines import dtype_of, kv_bytes_each, rooflines, weight_bytes_each
from steelyard.profiling.rows import summed
from steelyard.profiling.shape import shape_of
from steelyard.profiling.step_model import slowed, untraced
from steelyard.records import ComparisonRow, PromotionRow, Row
from steelyard.records_profile import CeilingRow, ProfileStepRow
from steelyard.reports.facts import Facts

Rows = Mapping[str, Sequence[Any]]
"""Rows by table; `study` is a list of one."""
CATALOGUED = ("bfloat16", "ngram-speculation", "async-scheduling", "prefix-caching")
"""Levers beside those of the arms, of a kind each, so that ranks have something to change."""
FOLLOWED = "output_tokens_per_s"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
SHAPE = shape_of(Path(__file__).parents[2] / "reference_model" / "weights")
"""Of the model that the example's run served."""


def rows_of(facts: Facts, ceilings: Sequence[CeilingRow], arms: set[str], documents: int) -> dict[str, list[Any]]:
    """A run as small as perturbing every column asks for: some arms, one load point, some documents a suite, some steps
    of a profile.
    """
    point = facts.trials[0].load_point
    trials = [row for row in facts.trials if row.arm in arms and row.load_point == point and row.block < 3]
    ids = {row.trial_id for row in trials}
    return {
        "study": [facts.study],
        "prices": list(facts.prices),
        "arms": [row for row in facts.arms if row.arm in arms],
        "trials": trials,
        "requests": [row for row in facts.requests if row.trial_id in ids],
        "engine_metrics": [row for row in facts.engine_metrics if row.trial_id in ids],
        "suites": [row for row in facts.suites if row.arm in arms],
        "samples": [row for row in facts.samples if row.arm in arms and (row.position or 0) < documents],
        "divergences": [row for row in facts.divergences if row.arm in arms][: 2 * documents],
        "unit_costs": [row for row in facts.unit_costs if row.arm in arms and row.load_point == point],
        "comparisons": [row for row in facts.comparisons if row.arm in arms],
        "gates": [row for row in facts.gates if row.arm in arms],
        "verdicts": [row for row in facts.verdicts if row.arm in arms],
        "profiles": [row for row in facts.profiles if row.load_point == point],
        "profile_steps": [row for row in facts.profile_steps if row.load_point == point],
        "ceilings": list(ceilings),
    }


def _comparing(rows: Rows) -> Comparing:
    study, policy = asked(rows["study"][0])
    arms = [row for row in rows["arms"] if row.role != "baseline"]
    return Comparing(rows["study"][0].run_id, policy, study.blocks, arms)


def _trials(rows: Rows) -> list[Row]:
    study, _ = asked(rows["study"][0])
    found = Recomputed(run_id=rows["study"][0].run_id)
    measured = (rows["trials"], rows["requests"], rows["engine_metrics"])
    return list(rebuild_trials(found, study, rows["arms"], *measured, whole=False))


def _suites(rows: Rows) -> list[Row]:
    study, _ = asked(rows["study"][0])
    found = Recomputed(run_id=rows["study"][0].run_id)
    return list(rebuild_suites(found, study, rows["suites"], rows["samples"]))


def _unit_costs(rows: Rows) -> list[Row]:
    study, policy = asked(rows["study"][0])
    price = price_of(rows["prices"], study.hardware.price)
    assert price is not None
    return list(unit_costs(rows["study"][0].run_id, rows["arms"], rows["trials"], price, policy.confidence))


def _verdicts(rows: Rows) -> list[Row]:
    study, policy = asked(rows["study"][0])
    run = rows["study"][0]
    gates = evaluate_run(policy, rows["comparisons"], run_id=run.run_id, arms=rows["arms"], **scopes_in(study))
    return list(verdicts(run.run_id, policy, run.policy_digest, rows["arms"], gates, MOMENT))


def _validity(rows: Rows) -> list[Row]:
    problems = void_reasons(
        rows["arms"], rows["verdicts"], rows["gates"], suites=rows["suites"], trials=rows["trials"],
        samples=rows["samples"], costs=rows["unit_costs"], divergences=rows["divergences"],
    )  # fmt: skip
    return list(void(rows["verdicts"], problems))


def _resolved(rows: Rows) -> dict[str, dict[str, Any]]:
    return {row.arm: json.loads(row.resolved_json or "{}") for row in rows["arms"]}


def _steps(rows: Rows) -> list[ProfileStepRow]:
    return untraced(rows["profile_steps"], slowed({row.load_point: row for row in rows["profiles"]}))


def _rooflines(rows: Rows) -> list[Row]:
    served = _resolved(rows)["baseline"]
    dtype = dtype_of(served) or "bfloat16"
    quantization = served.get("model_config", {}).get("quantization")
    return list(
        rooflines(
            _steps(rows), rows["ceilings"], SHAPE, dtype, weight_bytes_each=weight_bytes_each(dtype, quantization),
            kv_bytes_each=kv_bytes_each(served, dtype),
        )
    )  # fmt: skip


def _opportunities(rows: Rows) -> list[Row]:
    study, _ = asked(rows["study"][0])
    resolved, steps = _resolved(rows), _steps(rows)
    [profile] = rows["profiles"]
    requests = tuple(Asked(prompt=tuple(range(each, each + 40)), output_tokens=6, due_s=0.0) for each in range(6))
    [point] = [each for each in study.load_points if each.name == profile.load_point]
    scene = Scene(
        point=point, requests=requests, profiled=requests[:3], answers=((1, 2, 1, 2),) * 3,
        measured_s=profile.plain_s or 0.0, capacity=profile.kv_capacity_tokens,
    )  # fmt: skip
    try:
        served = resolved["baseline"]
        predictor: Any = predictor_of(study, served, SHAPE, steps, rows["ceilings"], dtype_of(served) or "", [scene])
    except NoModel as error:
        predictor = str(error)
    profiles = {profile.load_point: profile}
    tried = tuple(each for each in study.candidates if each.name in resolved)
    study = study.model_copy(update={"workloads": (point.workload,), "candidates": tried})
    among = candidates(study, resolved, [each for each in CATALOGUE if each.name in CATALOGUED])
    return list(
        opportunities(profile.run_id, study, [scene], predictor, among, resolved["baseline"], profiles, steps, MOMENT)
    )


def nights_of(rows: Rows) -> list[ComparisonRow]:
    """The run's comparisons of throughput again for each of twenty nights, each a little different; in the last four
    the identity control's baseline is slower and its interval wider, and the arm gains less.
    """
    rng, found = random.Random(1), []
    for night in range(20):
        for row in rows["comparisons"]:
            if (row.arm, row.metric) not in {("batching", FOLLOWED), ("identity", FOLLOWED)}:
                continue
            gain, usual, width = rng.gauss(1.0, 0.005), rng.gauss(1.0, 0.005), rng.gauss(0.02, 0.0005)
            if night >= 16:
                gain, usual, width = 0.8 * gain, 0.8 * usual, 6 * width
            found.append(
                dataclasses.replace(
                    row, run_id=f"run-{night:02d}", estimate=row.estimate * gain, low=row.estimate * gain * (1 - width),
                    high=row.estimate * gain * (1 + width), baseline_value=row.baseline_value * usual,
                )
            )  # fmt: skip
    return found


def _incidents(rows: Rows) -> list[Row]:
    """As `steelyard.drift.FIGURES` joins comparisons of the nights with what was deployed."""
    arms = {row.arm: row for row in rows["arms"]}
    [baseline] = [row for row in rows["arms"] if row.role == "baseline"]
    figures = [
        {
            "study": "s", "run_id": row.run_id, "started_at": MOMENT + timedelta(days=int(row.run_id[-2:])),
            "arm": row.arm, "role": arms[row.arm].role, "metric": row.metric, "scope": row.scope, "kind": row.kind,
            "estimate": row.estimate, "low": row.low, "high": row.high, "baseline_value": row.baseline_value,
            "deployment": arms[row.arm].deployment_digest, "baseline": baseline.deployment_digest, "conditions": "c",
        }
        for row in rows["comparisons"]
    ]  # fmt: skip
    promotions = [
        PromotionRow(
            run_id="run-00", arm=row.arm, study="s", deployment_digest=row.deployment_digest or "",
            baseline_digest=baseline.deployment_digest, policy_digest="", promoted_at=MOMENT,
        )
        for row in rows["arms"]
    ]  # fmt: skip
    return list(
        opened(
            figures_of(figures), "run-19", earlier=[], ended={}, promotions=promotions, least_ratio=0.05,
            least_difference=0.01, now=MOMENT,
        )
    )  # fmt: skip


STEPS: Mapping[str, Callable[[Rows], list[Row]]] = {
    "profiles": lambda rows: [dataclasses.replace(row, **summed(rows["profile_steps"])) for row in rows["profiles"]],
    "rooflines": _rooflines,
    "opportunities": _opportunities,
    "trials": _trials,
    "suites": _suites,
    "unit_costs": _unit_costs,
    "speed_comparisons": lambda rows: list(_comparing(rows).speed(rows["trials"])),
    "quality_comparisons": lambda rows: list(_comparing(rows).quality(rows["samples"], rows["suites"])),
    "cost_comparisons": lambda rows: list(_comparing(rows).cost(rows["unit_costs"], rows["trials"])),
    "divergence_comparisons": lambda rows: list(_comparing(rows).divergence(rows["divergences"])),
    "verdict": _verdicts,
    "study_validity": _validity,
    "incidents": _incidents,
}


def damaged(value: Any) -> list[Any]:
    """Other values of the same type, and none at all."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 3, 0]
    if isinstance(value, float):
        return [value * 1.5 + 0.01, value + 7.0, 0.0, -value - 0.2]
    if isinstance(value, datetime):
        return [value + timedelta(hours=5)]
    if isinstance(value, list):
        return [[each * 1.5 if isinstance(each, float) else each for each in value], []]
    return [f"{value}x", "", "length"]


def changed_columns(before: Sequence[Row], after: Sequence[Row]) -> set[str]:
    """Columns in which rows of one key differ; those of the key where there are other rows."""
    key = type(before[0]).KEY
    old, new = ({tuple(getattr(row, name) for name in key): row for row in rows} for rows in (before, after))
    found = set(key) if old.keys() != new.keys() else set()
    for at in old.keys() & new.keys():
        one, other = old[at], new[at]
        found |= {
            field.name
            for field in dataclasses.fields(one)  # type: ignore[arg-type]
            if getattr(one, field.name) != getattr(other, field.name)
        }
    return found
