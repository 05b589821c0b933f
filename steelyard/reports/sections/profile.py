"""Where the baseline's own time goes: phases of a request, work of a step, and how far from the machine's ceilings."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from steelyard.profiling.operators import CATEGORIES
from steelyard.profiling.phases import phase_seconds
from steelyard.profiling.step_model import slowed, untraced
from steelyard.records_profile import CeilingRow, ProfileRow, ProfileStepRow, RooflineRow
from steelyard.reports import charts, numerals
from steelyard.reports.charts_profile import RoofPoint, roof, shares
from steelyard.reports.facts import Facts
from steelyard.reports.markdown_profile import giga

COLOURS = {"queue": "p1", "prefill": "p2", "decode": "p3"}
OPERATORS_SHOWN = 12


def section(facts: Facts) -> dict[str, Any]:
    """Phases and counters from the trials; steps, operators and rooflines from the profile, where there is one."""
    return {
        **phases(facts),
        "work": _work(facts),
        "batches": [_batch(row) for row in _in_order(facts, facts.profiles)],
        "roof": _roof(facts),
        "operators": _operators(facts),
    }


def phases(facts: Facts) -> dict[str, Any]:
    """Mean seconds a request of the baseline spends in each phase, and its caches, by the engine's own counters."""
    stacks, table = [], []
    for point in facts.load_points:
        trials = [row for row in facts.trials_at.get((facts.baseline or "", point), []) if row.valid]
        measured = [row for row in trials if row.trial_id in facts.metrics_of]
        completed = sum(row.completed for row in measured)
        if not measured or not completed:
            continue
        total: dict[str, float] = defaultdict(float)
        gauges: dict[str, float] = {}
        for trial in measured:
            for name, value in facts.metrics_of[trial.trial_id].items():
                total[name] += value
                gauges[name] = max(gauges.get(name, value), value)
        spent = phase_seconds(total, completed)
        parts = [(name, value, COLOURS[name]) for name, value in spent.items() if value is not None]
        if parts:
            stacks.append(charts.Stack(label=point, parts=parts))
        row = _counters(point, total, gauges, len(measured), completed)
        row["phases"] = [numerals.seconds(value) for value in spent.values()]
        table.append(row)
    return {
        "plot": charts.stacked(stacks, "Mean time of a baseline request by phase") if stacks else None,
        "phases": list(COLOURS.items()),
        "table": table,
    }


def _counters(
    point: str, total: dict[str, float], gauges: dict[str, float], trials: int, completed: int
) -> dict[str, Any]:
    queried = total.get("prefix_cache_queries")
    hits = total.get("prefix_cache_hits")
    drafted = total.get("spec_decode_num_draft_tokens")
    accepted = total.get("spec_decode_num_accepted_tokens")
    preempted = total.get("num_preemptions")
    peak = gauges.get("kv_cache_usage_perc")
    return {
        "point": point,
        "trials": trials,
        "completed": f"{completed:,}",
        "hits": numerals.percent(hits / queried) if hits is not None and queried else None,
        "preempted": numerals.count(round(preempted)) if preempted is not None else None,
        "accepted": numerals.percent(accepted / drafted) if accepted is not None and drafted else None,
        "kv": numerals.percent(peak),
    }


def _in_order(facts: Facts, rows: Any) -> list[Any]:
    order = {point: place for place, point in enumerate(facts.load_points)}
    return sorted(rows, key=lambda row: (order.get(row.load_point, len(order)), getattr(row, "phase", "") != "prefill"))


def _work(facts: Facts) -> dict[str, Any]:
    """Seconds of an output token by kind of work, tracing taken out of Python's: a bar for each load point."""
    steps: dict[str, list[ProfileStepRow]] = defaultdict(list)
    for row in facts.profile_steps:
        steps[row.load_point].append(row)
    stacks = []
    slow = slowed({row.load_point: row for row in facts.profiles})
    for profile in _in_order(facts, facts.profiles):
        rows = untraced(steps.get(profile.load_point, []), slow)
        if not rows or not profile.output_tokens:
            continue
        scale = 1 / profile.output_tokens
        parts = [
            (name, sum(getattr(row, f"{name}_s") for row in rows) * scale, f"k-{name}") for name in CATEGORIES
        ]  # fmt: skip
        stacks.append(charts.Stack(label=profile.load_point, parts=[part for part in parts if part[1] > 0]))
    seen = {name for stack in stacks for name, _, _ in stack.parts}
    return {
        "plot": shares(stacks, "Time of an output token by kind of work") if stacks else None,
        "kinds": [(name, f"k-{name}") for name in CATEGORIES if name in seen],
        "missing": "; ".join(sorted({row.error for row in facts.profiles if row.error})) or None,
    }


def _batch(row: ProfileRow) -> dict[str, Any]:
    hits = (
        row.cache_hit_tokens / row.cache_queried_tokens if row.cache_queried_tokens and row.cache_hit_tokens else None
    )
    return {
        "point": row.load_point,
        "reason": row.error or "The trace does not tell.",
        "steps": numerals.count(row.steps),
        "costs": row.error or "Under arrivals a pass takes as long either way.",
        "sequences": numerals.significant(row.sequences, 2),
        "seats": numerals.count(row.max_sequences),
        "kv": numerals.whole(row.kv_tokens),
        "capacity": numerals.count(row.kv_capacity_tokens),
        "hits": "0 %" if row.cache_queried_tokens and not row.cache_hit_tokens else numerals.percent(hits),
        "preempted": numerals.count(row.preemptions),
        "overhead": numerals.percent(row.overhead),
    }


def _roof(facts: Facts) -> dict[str, Any]:
    """The roofline of all load points, and its figures beside their ceilings."""
    rows: list[RooflineRow] = _in_order(facts, facts.rooflines)
    points, table = [], []
    for number, row in enumerate(rows, 1):
        moved = None if row.weight_bytes is None or row.kv_bytes is None else row.weight_bytes + row.kv_bytes
        rate = row.operations / row.seconds
        if moved:
            points.append(
                RoofPoint(
                    mark=str(number), intensity=row.operations / moved, rate=rate, css=row.phase,
                    title=f"{row.load_point} {row.phase}: {giga(rate)} Gop/s, "
                    f"{numerals.known(numerals.percent(row.mfu))} of the peak",
                )
            )  # fmt: skip
        table.append(
            {
                "mark": number,
                "point": row.load_point,
                "phase": row.phase,
                "steps": numerals.count(row.steps),
                "share": numerals.seconds(row.seconds),
                "rate": giga(rate),
                "mfu": numerals.percent(row.mfu),
                "bytes": giga(moved / row.seconds if moved else None),
                "mbu": numerals.percent(row.mbu),
                "unknown": "Weights are quantized, or the trace does not tell how long sequences were.",
                "over": (row.mfu or 0) > 1 or (row.mbu or 0) > 1,
            }
        )
    ceilings = [(row.peak_operations_per_s, row.peak_bytes_per_s) for row in rows]
    peak, bandwidth = ceilings[0] if ceilings else (None, None)
    plot = roof(points, peak, bandwidth, "Roofline of the baseline") if points and peak and bandwidth else None
    return {"plot": plot, "table": table, "peaks": _peaks(facts.ceilings)}


def _peaks(rows: Any) -> list[dict[str, Any]]:
    """The ceilings in words: matrix peaks by data type, and reads by size."""
    found: list[CeilingRow] = [row for row in rows if row.kind in ("peak", "read")]
    return [
        {
            "what": f"{row.dtype} matrix product" if row.kind == "peak" else f"reads of {row.size / 1e6:.0f} MB",
            "rate": f"{giga(row.value)} {'Gop/s' if row.kind == 'peak' else 'GB/s'}",
        }
        for row in sorted(found, key=lambda row: (row.kind, -row.value))
    ]


def _operators(facts: Facts) -> list[dict[str, Any]]:
    """The operators that took most, over all load points."""
    total: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in facts.operators:
        spent = total[row.category, row.operator]
        spent[0] += row.seconds
        spent[1] += row.calls
    whole = sum(row.until_next_s - row.idle_s for row in facts.profile_steps)
    order = sorted(total.items(), key=lambda item: (-item[1][0], item[0]))[:OPERATORS_SHOWN]
    return [
        {
            "operator": name, "category": category, "calls": numerals.count(round(calls)),
            "each": numerals.seconds(seconds / calls) if calls else None,
            "share": numerals.percent(seconds / whole) if whole else None,
        }
        for (category, name), (seconds, calls) in order
    ]  # fmt: skip
