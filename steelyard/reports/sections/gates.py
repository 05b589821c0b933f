"""Every gate of every arm, each drawn as its interval against its bound."""

from __future__ import annotations

from collections import Counter
from typing import Any

from steelyard.gates.policy import CATEGORIES
from steelyard.records import GateRow
from steelyard.reports import charts, numerals
from steelyard.reports.facts import Facts
from steelyard.reports.svg import Scale, linear_scale, ratio_scale

OUTCOMES = ("fail", "inconclusive", "pass")
AGREEMENT = ("top1_agreement", "same_answer")
TONES = {"pass": "good", "fail": "bad", "inconclusive": "plain"}


def section(facts: Facts) -> dict[str, Any]:
    """Arms in the order of the verdict table, gates by weight: required first, failures first."""
    scales = _scales(facts)
    arms = []
    for arm in facts.judged:
        gates = sorted(
            facts.gates_of.get(arm.arm, []),
            key=lambda g: (not g.required, OUTCOMES.index(g.outcome), CATEGORIES.index(g.category), g.gate, g.scope),
        )
        verdict = facts.verdict_of.get(arm.arm)
        tally = Counter(gate.outcome for gate in gates)
        arms.append(
            {
                "arm": arm.arm,
                "role": arm.role,
                "verdict": verdict.verdict if verdict else "none",
                "note": arm.note,
                "error": arm.error,
                "reasons": verdict.reasons if verdict else [],
                "gates": [_gate(facts, gate, scales) for gate in gates],
                "tally": ", ".join(
                    f"{tally[outcome]} {word}"
                    for outcome, word in (("fail", "failed"), ("inconclusive", "inconclusive"), ("pass", "passed"))
                    if tally[outcome]
                ),
            }
        )
    return {"arms": arms}


def _scales(facts: Facts) -> dict[str, Scale]:
    """One scale for each metric over the whole page, so that two rows may be compared by eye."""
    values: dict[str, list[float | None]] = {}
    kinds: dict[str, str] = {}
    for gate in facts.gates:
        kinds[gate.metric] = kind = numerals.gate_kind(gate.metric, gate.bound_kind)
        own = values.setdefault(gate.metric, [_no_effect(gate.metric, kind)])
        own.append(-gate.bound if gate.bound_kind == "margin" else gate.bound)
        # A known-bad control is wrong by so much that its rows would squeeze all others; its intervals clip instead.
        if (row := facts.arm_of.get(gate.arm)) is None or row.role != "known_bad":
            own += [gate.estimate, gate.low, gate.high]
    scales = {}
    for metric, kind in kinds.items():
        if kind == "ratio":
            scales[metric] = ratio_scale(values[metric], 6, 214, most=4.0)
        else:
            floor = None if kind == "difference" else 0.0
            scales[metric] = linear_scale(values[metric], 6, 214, floor=floor)
    return scales


def _no_effect(metric: str, kind: str) -> float:
    """Where an arm that changes nothing stands."""
    return 1.0 if kind == "ratio" or metric in AGREEMENT else 0.0


def _gate(facts: Facts, gate: GateRow, scales: dict[str, Scale]) -> dict[str, Any]:
    kind = numerals.gate_kind(gate.metric, gate.bound_kind)
    limit = -gate.bound if gate.bound_kind == "margin" else gate.bound
    span = numerals.interval(kind, gate.low, gate.high)
    value = numerals.of_kind(kind, gate.estimate)
    plot = charts.interval_plot(
        scales[gate.metric],
        estimate=gate.estimate,
        low=gate.low,
        high=gate.high,
        bound=limit,
        wrong="right" if gate.bound_kind == "at_most" else "left",
        tone=TONES[gate.outcome],
        title=f"{gate.gate} on {gate.scope}: {numerals.known(value)} {span or ''}, bound "
        f"{numerals.bound(gate.metric, gate.bound_kind, gate.bound)}",
        reference=_no_effect(gate.metric, kind),
    )
    return {
        "gate": gate.gate,
        "metric": numerals.metric(gate.metric),
        "scope": gate.scope,
        "required": gate.required,
        "benefit": gate.benefit,
        "outcome": gate.outcome,
        "sentence": numerals.sentence(gate.reason),
        "bound": numerals.bound(gate.metric, gate.bound_kind, gate.bound),
        "value": value,
        "interval": span,
        "sure": numerals.sureness(facts.confidence_of(gate.arm, gate.metric, gate.scope), gate.n),
        "missing": numerals.sentence(gate.reason),
        "plot": plot,
    }
