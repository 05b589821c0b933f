"""Speed by load point: paired block plots over the noise floor, latency distributions, and a table of medians."""

from __future__ import annotations

import statistics
from typing import Any

from steelyard.gates.policy import LESS_IS_BETTER
from steelyard.records_trials import RequestRow, TrialRow
from steelyard.reports import charts, numerals
from steelyard.reports.facts import Facts
from steelyard.reports.svg import ratio_scale

LATENCIES = (("TTFT", "ttft_s", "ttft"), ("ITL", "itl_s", "itl"), ("E2E", "e2e_s", "e2e"))
LEAST = 72
"""Requests of a trial below which its 95th percentile is refused (see records_trials.TrialRow)."""


def section(facts: Facts) -> dict[str, Any]:
    """One entry for each load point with trials."""
    points = [point for point in facts.load_points if any(row.load_point == point for row in facts.trials)]
    return {"points": [_point(facts, point) for point in points]}


def is_open(point: str) -> bool:
    """Whether requests arrive by themselves (r6) rather than one after another's end (c8)."""
    return point.rpartition("@")[2].startswith("r")


def _point(facts: Facts, point: str) -> dict[str, Any]:
    load = point.rpartition("@")[2]
    arriving = f"open loop, {load[1:]} arrivals/s" if is_open(point) else f"closed loop, {load[1:]} in flight"
    trials = [row for row in facts.trials if row.load_point == point]
    requests = max((row.requests for row in trials), default=0)
    workload = facts.workload_of.get(point.rpartition("@")[0], {})
    shape = ""
    if workload.get("prompt_tokens") and workload.get("output_tokens"):
        shape = f"{workload['prompt_tokens']:,} tokens in, {workload['output_tokens']:,} out"
    slo = facts.slo(point)
    # Under open-loop arrivals the offered rate sets the throughput, so goodput is what an arm can change.
    metrics = ["goodput_per_s" if is_open(point) else "output_tokens_per_s", "ttft_p50_s", "itl_p50_s"]
    judged = {g.metric for g in facts.gates if g.category == "speed" and g.scope == point}
    metrics += sorted(judged - set(metrics))
    return {
        "name": point,
        "claims": [arm.arm for arm in facts.judged if arm.claim == point],
        "facts": ", ".join(
            part
            for part in (
                arriving,
                shape,
                f"{numerals.plural(len({row.block for row in trials}), 'block')} of {requests:,} requests",
            )
            if part
        ),
        "slo": ", ".join(f"{name} ≤ {numerals.limit(slo[key])}" for name, key, _ in LATENCIES if key in slo),
        "paired": [_paired(facts, point, metric) for metric in metrics],
        "latencies": _latencies(facts, point),
        "table": [_table(facts, point, arm) for arm in facts.arm_names],
        "short": any(row.requests < LEAST for row in trials),
    }


def _paired(facts: Facts, point: str, metric: str) -> dict[str, Any]:
    """Each block's ratio to the baseline as a dot, the recorded interval, and the identity control's band behind."""
    base = {
        row.block: getattr(row, metric) for row in facts.trials_at.get((facts.baseline or "", point), []) if row.valid
    }
    rows, values, band = [], [], None
    judged = [g for g in facts.gates if g.metric == metric and g.scope == point and g.required]
    bounds = {g.bound for g in judged}
    sure: set[float] = set()
    for arm in facts.judged:
        own = [row for row in facts.trials_at.get((arm.arm, point), []) if row.valid]
        dots = [
            value / base[row.block]
            for row in own
            if base.get(row.block) and (value := getattr(row, metric)) is not None and value > 0
        ]
        compared = facts.comparison.get((arm.arm, metric, point))
        estimate, low, high = (compared.estimate, compared.low, compared.high) if compared else (None, None, None)
        if compared is not None:
            sure.add(compared.confidence)
        if arm.role == "identity" and low is not None and high is not None:
            band = (low, high)
        span = numerals.interval("ratio", low, high)
        n = compared.n if compared else 0
        rows.append(
            charts.ForestRow(
                label=arm.arm,
                estimate=estimate,
                low=low,
                high=high,
                dots=dots,
                value=numerals.ratio(estimate) or "",
                tone=_tone(metric, low, high) if arm.role == "candidate" else "quiet",
                title=f"{arm.arm}: {numerals.known(numerals.ratio(estimate))} {span or ''}, n = {n} blocks",
                missing="never served" if arm.status == "failed" else "no valid pair",
            )
        )
        # Known-bad controls do not set the scale: they would squeeze the arms a reader decides about.
        if arm.role != "known_bad":
            values += [estimate, low, high, *dots]
    scale = ratio_scale([*values, *bounds], 128, 334)
    better = "← faster" if metric in LESS_IS_BETTER else "faster →"
    plot = charts.forest(
        rows,
        scale,
        title=f"{numerals.metric(metric)} at {point}, ratio to the baseline",
        write=lambda value: f"{value:g}×",
        reference=1.0,
        bound=next(iter(bounds)) if len(bounds) == 1 else None,
        band=band,
        better=better,
        description=f"One row an arm: dots are blocks, the bar the interval. {better}",
    )
    return {
        "metric": numerals.metric(metric),
        "plot": plot,
        "bound": " and ".join(sorted({numerals.bound(metric, g.bound_kind, g.bound) for g in judged})),
        "sure": numerals.sure(max(sure, default=None)),
    }


def _tone(metric: str, low: float | None, high: float | None) -> str:
    above, below = low is not None and low > 1, high is not None and high < 1
    good, bad = (below, above) if metric in LESS_IS_BETTER else (above, below)
    return "good" if good else "bad" if bad else "plain"


def latencies(facts: Facts, trials: list[TrialRow]) -> tuple[dict[str, list[float]], int]:
    """Sorted TTFT, ITL and E2E of the requests that ended well, seconds, and how many were sent in all.

    TTFT and E2E run from the scheduled moment under open-loop arrivals, from sending in a closed loop.
    """
    found: dict[str, list[float]] = {"ttft": [], "itl": [], "e2e": []}
    sent = 0
    for trial in trials:
        requests: list[RequestRow] = facts.requests_of.get(trial.trial_id, [])
        sent += len(requests)
        arrives = is_open(trial.load_point)
        for row in requests:
            start = row.scheduled_s if arrives else row.sent_s
            if row.status != "ok" or start is None or row.first_token_s is None or row.end_s is None:
                continue
            found["ttft"].append(row.first_token_s - start)
            found["e2e"].append(row.end_s - start)
            if row.token_times_s and row.output_tokens is not None and row.output_tokens > 1:
                found["itl"].append((row.token_times_s[-1] - row.token_times_s[0]) / (row.output_tokens - 1))
    for values in found.values():
        values.sort()
    return found, sent


def _latencies(facts: Facts, point: str) -> list[dict[str, Any]]:
    valid = {arm: [row for row in facts.trials_at.get((arm, point), []) if row.valid] for arm in facts.arm_names}
    of = {arm: latencies(facts, trials) for arm, trials in valid.items()}
    # Of thinned requests all failed ones are left and few good ones: their shares would say nothing.
    if facts.baseline is None or facts.thinnings or not any(sent for _, sent in of.values()):
        return []
    base, base_sent = of[facts.baseline]
    slo = facts.slo(point)
    ends = {}
    for _, _, key in LATENCIES:
        every = [
            value
            for found, _ in of.values()
            if found[key]
            for value in (found[key][0], found[key][int(0.995 * (len(found[key]) - 1))])
        ]
        ends[key] = (min(every, default=0.1), max(every, default=1.0))
    cells = []
    for arm in facts.judged:
        found, sent = of[arm.arm]
        if not sent:
            continue
        curves = [
            charts.Curve(
                name=name,
                base=base[key],
                base_sent=base_sent,
                arm=found[key],
                arm_sent=sent,
                slo=slo.get(limit),
                said=_moved(valid[facts.baseline], valid[arm.arm], f"{key}_p50_s"),
                scale=ends[key],
            )
            for name, limit, key in LATENCIES
        ]
        tone = "arm" if arm.role == "candidate" else "ctl"
        title = f"{arm.arm} at {point}: share of requests by TTFT, ITL and E2E, the baseline behind"
        cells.append({"arm": arm.arm, "plot": charts.ecdfs(curves, title, tone), "sent": sent})
    return cells


def _median(trials: list[TrialRow], column: str) -> float | None:
    values = [value for row in trials if (value := getattr(row, column)) is not None]
    return statistics.median(values) if values else None


def _tail(trials: list[TrialRow], key: str) -> tuple[str | None, bool, str | None]:
    """The 95th percentile of the trial in the middle, whether it may be refused, and that trial's own bounds of it."""
    known = [row for row in trials if getattr(row, f"{key}_p95_s") is not None]
    if not known:
        return None, True, None
    middle = sorted(known, key=lambda row: getattr(row, f"{key}_p95_s"))[(len(known) - 1) // 2]
    low, high = (numerals.seconds(getattr(middle, f"{key}_p95_{end}_s")) for end in ("low", "high"))
    bounds = None if low is None else f"{low} to {'beyond the longest' if high is None else high}"
    return numerals.seconds(getattr(middle, f"{key}_p95_s")), True, bounds


def _moved(base: list[TrialRow], arm: list[TrialRow], column: str) -> str:
    left, right = _median(base, column), _median(arm, column)
    return f"p50 {numerals.known(numerals.seconds(left))} → {numerals.known(numerals.seconds(right))}"


def _table(facts: Facts, point: str, arm: str) -> dict[str, Any]:
    every = facts.trials_at.get((arm, point), [])
    trials = [row for row in every if row.valid]
    row = facts.arm_of[arm]
    none = f"{arm} never served." if row.status == "failed" else f"No valid trial of {arm} at {point}."

    def cell(text: str | None, refused: bool = False, bounds: str | None = None) -> dict[str, Any]:
        reason = f"Too few requests: a trial needs {LEAST} for a 95th percentile." if refused and trials else none
        word = "too few" if refused and trials else "n/a"
        return {"text": text, "reason": reason, "word": word, "bounds": bounds}

    cells = [
        cell(numerals.significant(_median(trials, "output_tokens_per_s"))),
        cell(numerals.significant(_median(trials, "goodput_per_s"))),
        cell(numerals.percent(_median(trials, "slo_share"))),
    ]
    for _, _, key in LATENCIES:
        cells.append(cell(numerals.seconds(_median(trials, f"{key}_p50_s"))))
        cells.append(cell(*_tail(trials, key)))
    failed = sum(trial.failed for trial in trials)
    sent = sum(trial.requests for trial in trials)
    return {
        "arm": arm,
        "role": row.role,
        "cells": cells,
        "blocks": f"{len(trials)} of {len(every)}" if every else "none",
        "failed": f"{failed:,} of {sent:,}" if sent else None,
        "none": none,
    }
