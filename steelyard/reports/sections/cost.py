"""Cost by load point."""

from __future__ import annotations

from typing import Any

from steelyard.records import UnitCostRow
from steelyard.reports import charts, numerals
from steelyard.reports.facts import Facts
from steelyard.reports.svg import log_scale, nice


def section(facts: Facts) -> dict[str, Any]:
    """Prices, and unit costs at every load point that has any."""
    points = [point for point in facts.load_points if any(row.load_point == point for row in facts.unit_costs)]
    return {
        "prices": [
            {
                "price": row.price,
                "usd": numerals.dollars(row.usd_per_hour),
                "source": row.source,
                "dated": row.dated.isoformat(),
                "note": row.note,
                "used": row.used,
            }
            for row in sorted(facts.prices, key=lambda row: (not row.used, row.price))
        ],
        "points": [_point(facts, point) for point in points],
    }


def _point(facts: Facts, point: str) -> dict[str, Any]:
    rows, table, values = [], [], []
    confidences = {row.confidence for row in facts.unit_costs if row.load_point == point}
    base = facts.cost_of.get((facts.baseline or "", point))
    for arm in facts.arm_names:
        cost = facts.cost_of.get((arm, point))
        role = facts.arm_of[arm].role
        table.append(_line(facts, arm, point, cost))
        out = cost.usd_per_million_output_tokens if cost else None
        second = None
        if cost is not None and cost.usd_per_million_slo_tokens is not None:
            second = (cost.usd_per_million_slo_tokens, cost.slo_low, cost.slo_high)
            values += [value for value in second if value is not None]
        if cost is not None:
            values += [value for value in (out, cost.output_low, cost.output_high) if value is not None]
        rows.append(
            charts.ForestRow(
                label=arm,
                estimate=out,
                low=cost.output_low if cost else None,
                high=cost.output_high if cost else None,
                value=numerals.dollars(out) or "",
                tone="plain" if role in ("candidate", "baseline") else "quiet",
                title=f"{arm}: {numerals.known(numerals.dollars(out))} per million output tokens",
                missing="not measured",
                second=second,
            )
        )
    scale = log_scale(values, 128, 322)
    reference = base.usd_per_million_output_tokens if base else None
    plot = charts.forest(
        rows,
        scale,
        title=f"Unit cost at {point}",
        write=lambda value: f"${value:g}",
        reference=reference,
        ticks=nice(scale),
        better="← cheaper",
    )
    sure = numerals.sure(max(confidences, default=None))
    return {"name": point, "plot": plot, "table": table, "sure": sure}


def _line(facts: Facts, arm: str, point: str, cost: UnitCostRow | None) -> dict[str, Any]:
    failed = facts.arm_of[arm].status == "failed"
    none = f"{arm} never served." if failed else f"No valid trial of {arm} at {point}."
    if cost is None:
        unknown = dict.fromkeys(("out", "out_span", "slo", "slo_span", "blocks"))
        return {"arm": arm, **unknown, "reason": none, "slo_reason": none}
    return {
        "arm": arm,
        "out": numerals.dollars(cost.usd_per_million_output_tokens),
        "out_span": numerals.costs(cost.output_low, cost.output_high),
        "slo": numerals.dollars(cost.usd_per_million_slo_tokens),
        "slo_span": numerals.costs(cost.slo_low, cost.slo_high),
        "blocks": cost.blocks,
        "reason": none,
        "slo_reason": "No request met the SLO, so no token of one has a price.",
    }
