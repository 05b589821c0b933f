"""Whether stored comparisons are what the stored measurements give: computed again from them, field by field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from steelyard.finops.price_book import Price
from steelyard.finops.unit_cost import unit_costs
from steelyard.gates.comparing import Comparing
from steelyard.gates.policy import Policy
from steelyard.records import ArmRow, ComparisonRow, UnitCostRow
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.records_trials import ProbeRow, TrialRow
from steelyard.study_capacity import CapacitySearch

REL_TOL = 1e-12
"""How far apart two floats may be and still be the same figure: another order of a sum, never another measurement."""

Key = tuple[str, ...]
R = TypeVar("R", UnitCostRow, ComparisonRow)


def recompute_problems(
    run_id: str,
    policy: Policy,
    *,
    blocks: int,
    arms: Sequence[ArmRow],
    trials: Sequence[TrialRow],
    suites: Sequence[SuiteRow],
    samples: Sequence[SampleRow],
    costs: Sequence[UnitCostRow],
    comparisons: Sequence[ComparisonRow],
    price: Price | None,
    divergences: Sequence[DivergenceRow] = (),
    probes: Sequence[ProbeRow] = (),
    searches: Sequence[CapacitySearch] = (),
) -> list[str]:
    """Where unit costs or comparisons are missing, surplus or other than trials, samples, suites, divergences give.

    Empty if all agree in every field, floats to a relative 1e-12. `blocks` are those the study asked for. Without a
    `price` the stored unit costs are taken as they are; with one they are computed again, and the cost comparisons from
    them. Rows of other runs are ignored. Every arm of the run but the baseline is expected to be compared, served or
    not. What the measurements themselves were made of (requests, answers) is not looked at.
    """
    mine = [arm for arm in arms if arm.run_id == run_id]
    baselines = [arm.arm for arm in mine if arm.role == "baseline"]
    if len(baselines) != 1:
        return [f"run {run_id} has {len(baselines)} baselines; nothing can be computed again"]
    given: list[UnitCostRow] = [row for row in costs if row.run_id == run_id]
    found: list[str] = []
    if price is not None:
        priced = unit_costs(run_id, mine, trials, price, policy.confidence)
        found += _differences(priced, given, _cost_key, _cost_name)
        given = priced
    comparing = Comparing(run_id, policy, blocks, [arm for arm in mine if arm.role != "baseline"], baselines[0])
    again = [
        *comparing.speed(trials),
        *comparing.cost(given, trials),
        *comparing.quality(samples, suites),
        *comparing.divergence(divergences),
        *comparing.capacity(probes, searches),
    ]
    stored = [row for row in comparisons if row.run_id == run_id]
    return found + _differences(again, stored, _comparison_key, _comparison_name)


def _cost_key(row: UnitCostRow) -> Key:
    return row.arm, row.load_point


def _cost_name(key: Key) -> str:
    return f"{key[0]}: unit cost at {key[1]}"


def _comparison_key(row: ComparisonRow) -> Key:
    return row.arm, row.category, row.metric, row.scope


def _comparison_name(key: Key) -> str:
    return f"{key[0]}: {key[1]} comparison of {key[2]} at {key[3]}"


def _differences(
    again: Iterable[R], stored: Sequence[R], key: Callable[[R], Key], name: Callable[[Key], str]
) -> list[str]:
    fresh: Mapping[Key, R] = {key(row): row for row in again}
    kept: Mapping[Key, R] = {key(row): row for row in stored}
    found = [f"{name(each)} is not stored" for each in sorted(fresh.keys() - kept.keys())]
    found += [f"{name(each)} is stored without measurements" for each in sorted(kept.keys() - fresh.keys())]
    for each in sorted(fresh.keys() & kept.keys()):
        columns = [field.name for field in dataclasses.fields(fresh[each])]
        pairs = [(column, getattr(kept[each], column), getattr(fresh[each], column)) for column in columns]
        wrong = [(column, then, now) for column, then, now in pairs if not _same(then, now)]
        if wrong:
            column, then, now = wrong[0]
            found.append(f"{name(each)} is stored with {column} {then}, its measurements give {now}")
    if len(kept) != len(stored):
        places = [key(row) for row in stored]
        found += [f"{name(each)} is stored {places.count(each)} times" for each in kept if places.count(each) > 1]
    return found


def _same(then: Any, now: Any) -> bool:
    if type(then) is float or type(now) is float:
        return then is not None and now is not None and (then == now or math.isclose(then, now, rel_tol=REL_TOL))
    return bool(then == now)
