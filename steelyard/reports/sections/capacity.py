"""Capacity at the SLO: what each arm can take, beside the baseline, and what a million requests then cost."""

from __future__ import annotations

from typing import Any

from steelyard.capacity_comparisons import METRIC
from steelyard.reports import charts, numerals
from steelyard.reports.capacity import FoundCapacity, found_capacities
from steelyard.reports.facts import Facts
from steelyard.reports.svg import ratio_scale
from steelyard.study_capacity import CapacitySearch


def section(facts: Facts) -> dict[str, Any]:
    """One entry for each capacity the study searches."""
    searches = [CapacitySearch.model_validate(each) for each in facts.asked.get("capacity") or []]
    found = found_capacities(facts.probes, searches)
    return {
        "searches": [_search(facts, asked, [row for row in found if row.scope == asked.scope]) for asked in searches]
    }


def _search(facts: Facts, asked: CapacitySearch, found: list[FoundCapacity]) -> dict[str, Any]:
    of = {row.arm: row for row in found}
    slo = facts.slo(asked.scope)
    limits = ", ".join(
        f"{name} ≤ {numerals.limit(slo[key])}"
        for name, key in (("TTFT", "ttft_s"), ("ITL", "itl_s"), ("E2E", "e2e_s"))
        if key in slo
    )
    sure = next((row.confidence for row in facts.comparisons if row.metric == METRIC), None)
    return {
        "name": asked.scope,
        "limits": limits,
        "share": numerals.percent(asked.share),
        "range": f"{asked.lowest:g} to {asked.highest:g}",
        "step": numerals.percent(asked.resolution - 1),
        "sure": numerals.sure(sure),
        "rows": [_row(facts, asked, arm, of.get(arm)) for arm in facts.arm_names],
        "plot": _plot(facts, asked, of) if of else None,
        "invalid": sum(not probe.valid for probe in facts.probes if probe.scope == asked.scope),
    }


def _row(facts: Facts, asked: CapacitySearch, arm: str, found: FoundCapacity | None) -> dict[str, Any]:
    compared = facts.comparison.get((arm, METRIC, asked.scope))
    price = next((row.usd_per_hour for row in facts.prices if row.used), None)
    rate = found.typical if found else None
    return {
        "arm": arm,
        "base": arm == facts.baseline,
        "rate": numerals.significant(rate),
        "ratio": numerals.ratio(compared.estimate) if compared else None,
        "interval": numerals.interval("ratio", compared.low, compared.high) if compared else None,
        "blocks": found.shown if found else None,
        "probes": numerals.count(found.probes) if found else None,
        "cost": numerals.dollars(price / (rate * 3600) * 1e6) if price is not None and rate else None,
        "reason": f"{arm} was not searched: it was rejected before, or its gates were decided."
        if found is None
        else compared.method
        if compared and compared.estimate is None
        else "The search came to no end.",
    }


def _plot(facts: Facts, asked: CapacitySearch, of: dict[str, FoundCapacity]) -> Any:
    """Each block's ratio to the baseline as a dot, the recorded interval, and the identity control's band behind."""
    base = of[facts.baseline].by_block if facts.baseline in of else {}
    rows, band = [], None
    values: list[float | None] = []
    for arm in facts.judged:
        mine = of[arm.arm].by_block if arm.arm in of else {}
        dots = [rate / reference for block, rate in mine.items() if rate and (reference := base.get(block)) is not None]
        row = facts.comparison.get((arm.arm, METRIC, asked.scope))
        estimate, low, high = (row.estimate, row.low, row.high) if row else (None, None, None)
        if arm.role == "identity" and low is not None and high is not None:
            band = (low, high)
        tone = "quiet" if arm.role != "candidate" else _tone(low, high)
        if high is None:
            # Nothing bounds an arm that held every rate: its interval has no end to draw.
            low = None
        rows.append(
            charts.ForestRow(
                label=arm.arm, estimate=estimate, low=low, high=high, dots=dots,
                value=numerals.ratio(estimate) or "", tone=tone,
                title=f"{arm.arm}: {numerals.known(numerals.ratio(estimate))}, n = {row.n if row else 0} blocks",
                missing="not searched",
            )
        )  # fmt: skip
        values += [estimate, low, high, *dots]
    bounds = {gate.bound for gate in facts.gates if gate.metric == METRIC and gate.scope == asked.scope}
    return charts.forest(
        rows,
        ratio_scale([*values, *bounds], 128, 334),
        title=f"Capacity at the SLO of {asked.workload}, ratio to the baseline",
        write=lambda value: f"{value:g}×",
        reference=1.0,
        bound=next(iter(bounds)) if len(bounds) == 1 else None,
        band=band,
        better="more →",
        description="One row an arm: dots are blocks, the bar the interval. more →",
    )


def _tone(low: float | None, high: float | None) -> str:
    return "good" if low is not None and low > 1 else "bad" if high is not None and high < 1 else "plain"
