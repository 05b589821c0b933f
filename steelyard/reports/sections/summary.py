"""The first screen: the answer in a sentence, banners, and the verdict table with its reasons."""

from __future__ import annotations

from collections import Counter
from typing import Any

from steelyard.gates.policy import SCORED
from steelyard.incidents import CONFIRMED, told
from steelyard.records import ArmRow, GateRow, VerdictRow
from steelyard.reports import charts, numerals
from steelyard.reports.facts import Facts
from steelyard.reports.svg import Scale, ratio_scale

REFERENCE_MODEL = "steelyard-reference"
OUTPUT_COST = "usd_per_million_output_tokens"


def names(items: list[str]) -> str:
    """a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def answer(facts: Facts) -> str:
    """What the run says, in one sentence."""
    status = facts.study.status
    if status == "void":
        return "The study is void: no verdict of this run may be believed."
    if status == "failed":
        return "The run failed before it could answer."
    if status == "running":
        return "The run is not finished: what stands here may still change."
    candidates = [row.arm for row in facts.judged if row.role == "candidate"]
    won = [arm for arm in candidates if (row := facts.verdict_of.get(arm)) is not None and row.verdict == "promote"]
    if not candidates:
        return "No candidate was measured."
    if not won:
        if len(candidates) == 1:
            return f"The one candidate, {candidates[0]}, does not deserve production."
        return f"None of {len(candidates)} candidates deserves production."
    if awaits(facts):
        said = numerals.plural(len(candidates), "candidate")
        return f"{len(won)} of {said} passed every gate; the winner is not confirmed yet."
    if roles := sign_offs(facts):
        said = numerals.plural(len(candidates), "candidate")
        return f"{len(won)} of {said} passed every gate and {'waits' if len(won) == 1 else 'wait'} for {names(roles)}."
    verb = "deserves" if len(won) == 1 else "deserve"
    return f"{len(won)} of {numerals.plural(len(candidates), 'candidate')} {verb} production: {names(won)}."


def awaits(facts: Facts) -> bool:
    """Whether the policy promotes nobody of this run, because the winner has to be confirmed."""
    return facts.policy.get("confirm") == "winner" and len(facts.asked.get("candidates") or []) > 1


def sign_offs(facts: Facts) -> list[str]:
    """Roles whose approval the policy asks for; as the page is written when the run ends, nobody has signed yet."""
    return list(facts.policy.get("sign_offs") or [])


def rest(facts: Facts) -> str:
    """What became of the others, and of the controls."""
    verdicts = Counter(
        row.verdict if (row := facts.verdict_of.get(arm.arm)) is not None else "not judged"
        for arm in facts.judged
        if arm.role == "candidate"
    )
    words = {"inconclusive": "inconclusive", "reject": "rejected", "void": "void", "not judged": "not judged"}
    parts = [f"{verdicts[key]} {word}" for key, word in words.items() if verdicts[key]]
    held = [control(facts, arm)["held"] for arm in facts.judged if arm.role != "candidate"]
    if not held:
        checks = "No control was run, so nothing here is proven."
    elif all(held):
        checks = f"{'The control' if len(held) == 1 else f'All {len(held)} controls'} held."
    else:
        checks = f"{sum(not each for each in held)} of {numerals.plural(len(held), 'control')} did not hold."
    return f"{names(parts).capitalize()}. {checks}" if parts else checks


def banners(facts: Facts) -> list[dict[str, str]]:
    """What a reader must know before believing anything below."""
    study, found = facts.study, []
    if study.status in ("void", "failed"):
        title = "VOID" if study.status == "void" else "FAILED"
        found.append(
            {"tone": "stop", "title": title, "text": numerals.sentence(study.reason or "no reason was recorded")}
        )
    if study.status == "running":
        found.append({"tone": "warn", "title": "Not finished", "text": "The run has no end yet, or it was killed."})
    if confirms := facts.asked.get("confirms"):
        said = f"Measured again on sealed documents and fresh blocks: the winner of run {confirms}."
        found.append({"tone": "note", "title": "Confirmation", "text": said})
    elif awaits(facts):
        said = "The policy promotes the winner of several candidates only once it is confirmed: steelyard confirm."
        found.append({"tone": "note", "title": "A campaign", "text": said})
    if (roles := sign_offs(facts)) and study.status == "complete":
        said = f"Nobody of this run is promoted before {names(roles)} approve: steelyard review {study.run_id}."
        found.append({"tone": "note", "title": "Waits for sign-off", "text": said})
    for arm in facts.judged:
        verdict = facts.verdict_of.get(arm.arm)
        if arm.role == "known_bad" and verdict is not None and verdict.verdict == "promote":
            said = f"The known-bad control {arm.arm} was promoted: the gate is broken, trust none of its verdicts."
            found.append({"tone": "stop", "title": "Control promoted", "text": said})
    for row in facts.incidents:
        said = f"{told(row)}. The next run confirms or refutes it."
        found.append({"tone": "warn", "title": "Incident opened", "text": said})
    for end in facts.incident_ends:
        said = numerals.sentence(end.reason)
        found.append({"tone": "warn" if end.ending == CONFIRMED else "note", "title": f"Incident {end.ending}",
                      "text": said})  # fmt: skip
    if (facts.asked.get("model") or {}).get("name") == REFERENCE_MODEL:
        said = "This run used the embedded reference model: it validates the pipeline, never a real model’s safety."
        found.append({"tone": "note", "title": "Reference model", "text": said})
    return found


def control(facts: Facts, arm: ArmRow) -> dict[str, Any]:
    """What was expected of a control, whether it held, and why: the rules by which `study_validity` voids a study.

    Read from the gates rather than from the verdict, because in a void study every verdict is void.
    """
    verdict = facts.verdict_of.get(arm.arm)
    required = [gate for gate in facts.gates_of.get(arm.arm, []) if gate.required]
    harm = [gate for gate in required if not gate.benefit and gate.outcome == "fail"]
    gain = [gate for gate in required if gate.benefit and gate.outcome == "pass"]
    seen = [gate for gate in harm if gate.category in SCORED]
    promoted = verdict is not None and verdict.verdict == "promote"
    base = facts.arm_of.get(facts.baseline or "")
    held = False
    if arm.role == "identity":
        expected = "no guard fails and no gain is proven anywhere, because it is the baseline again."
        if arm.status == "served" and base is not None and arm.deployment_digest != base.deployment_digest:
            why = "It is not the deployment the baseline is."
        elif harm or gain:
            why = (harm or gain)[0].reason
        elif required and not promoted:
            held, guards = True, sum(not gate.benefit for gate in required)
            why = f"None of {numerals.plural(guards, 'guard')} failed, and no gain was proven."
        else:
            why = _unjudged(arm, bool(required), promoted)
    else:
        expected = "an accuracy or safety gate rejects it, because it is broken on purpose."
        if seen and verdict is not None and verdict.verdict in ("reject", "void"):
            held = True
            why = f"{numerals.plural(len(seen), 'quality gate')} failed. {numerals.sentence(seen[0].reason)}"
        elif required and not seen and not promoted:
            why = "No accuracy or safety gate saw its harm."
        else:
            why = _unjudged(arm, bool(required), promoted)
    return {"expected": expected, "held": held, "why": numerals.sentence(why)}


def _unjudged(arm: ArmRow, evidence: bool, promoted: bool) -> str:
    if promoted:
        return "It was promoted."
    if arm.status == "failed":
        return f"It never served: {(arm.error or 'no reason was recorded').splitlines()[0]}"
    return "It has no such verdict." if evidence else "No gate was evaluated."


def section(facts: Facts) -> dict[str, Any]:
    """Header, banners and verdict table."""
    rows = [_row(facts, arm) for arm in facts.judged]
    gain = _scale([row["gain"] for row in rows])
    cost = _scale([row["cost"] for row in rows])
    for row in rows:
        row["gain"]["plot"] = _plot(row["gain"], gain, row["arm"])
        row["cost"]["plot"] = _plot(row["cost"], cost, row["arm"])
    ledger = {row.arm: row for row in facts.promotions}
    for row in rows:
        entry = ledger.get(row["arm"])
        row["ledger"] = f"In the ledger since {numerals.moment(entry.promoted_at)}." if entry else None
        if entry is None and row["verdict"] == "promote" and row["role"] == "candidate":
            row["ledger"] = _not_in_ledger(facts, row["arm"])
    metrics = sorted({row["gain"]["metric"] for row in rows if row["gain"]["metric"]})
    return {
        "answer": answer(facts),
        "rest": rest(facts) if facts.study.status == "complete" else None,
        "banners": banners(facts),
        "candidates": [row for row in rows if row["role"] == "candidate"],
        "controls": [row for row in rows if row["role"] != "candidate"],
        "gain_metric": names([numerals.metric(metric) for metric in metrics]) if metrics else None,
        "cost_metric": numerals.metric(next((r["cost"]["metric"] for r in rows if r["cost"]["metric"]), OUTPUT_COST)),
    }


def _not_in_ledger(facts: Facts, arm: str) -> str:
    """Why a candidate with the verdict promote is not promoted."""
    taken = next((row for row in facts.revocations if row.arm == arm), None)
    if taken is not None:
        return f"Not promoted: run {taken.confirmed_by} took its promotion back. {taken.reason}."
    if awaits(facts):
        return "Not promoted: the winner of a campaign is confirmed first."
    if roles := sign_offs(facts):
        return f"Not promoted yet: it waits for the sign-off of {names(roles)}."
    return "Not in the promotion ledger: the second evaluation from stored rows has not agreed yet."


def _row(facts: Facts, arm: ArmRow) -> dict[str, Any]:
    verdict = facts.verdict_of.get(arm.arm)
    gate = facts.benefit(arm.arm)
    scope = arm.claim or (gate.scope if gate else None)
    reasons = deciding(verdict.reasons) if verdict else []
    if not reasons and arm.error:
        reasons = arm.error.splitlines()[:1]
    passed = [each for each in facts.gates_of.get(arm.arm, []) if each.required and each.outcome == "pass"]
    promoted = verdict is not None and verdict.verdict == "promote"
    return {
        "arm": arm.arm,
        "role": arm.role,
        "lever": arm.lever,
        "note": arm.note,
        "scope": scope,
        "verdict": verdict.verdict if verdict else "none",
        "reason": numerals.sentence(reasons[0]) if reasons else "No reason was recorded.",
        "passed": f"All {numerals.plural(len(passed), 'required gate')} pass." if promoted else None,
        "more": [] if promoted else [numerals.sentence(each) for each in _more(verdict, reasons)],
        "gain": _gain(facts, arm, gate),
        "cost": _cost(facts, arm, scope),
        "control": control(facts, arm) if arm.role != "candidate" else None,
    }


def _more(verdict: VerdictRow | None, reasons: list[str]) -> list[str]:
    if verdict is None or verdict.verdict != "void":
        return reasons[1:]
    # Of a void verdict: what the gates would have said, in one sentence; the list behind it stands with the gates.
    heads = ("promoted: ", "rejected: ", "inconclusive: ")
    return [f"otherwise {each}" for each in reasons[1:] if each.startswith(heads)][:1]


def deciding(reasons: list[str]) -> list[str]:
    """The reasons that decided; what merely held, or informs, stands with the gates."""
    return [each for each in reasons if not each.startswith(("held: ", "for information: ", "not shown: "))]


def _why_missing(facts: Facts, arm: ArmRow, scope: str | None) -> str:
    if arm.status == "failed":
        return f"{arm.arm} never served, so it was never measured."
    if not any(row.arm == arm.arm for row in facts.trials):
        return f"No trial of {arm.arm} was recorded."
    if scope is not None and not any(row.valid for row in facts.trials_at.get((arm.arm, scope), [])):
        return f"No valid trial of {arm.arm} at {scope}."
    return f"No comparison with the baseline was recorded{f' at {scope}' if scope else ''}."


def _gain(facts: Facts, arm: ArmRow, gate: GateRow | None) -> dict[str, Any]:
    if gate is None:
        return _figure(None, None, None, None, None, None, _why_missing(facts, arm, arm.claim))
    sure = numerals.sureness(facts.confidence_of(arm.arm, gate.metric, gate.scope), gate.n)
    known = (gate.metric, gate.estimate, gate.low, gate.high)
    return _figure(*known, gate, sure, _why_missing(facts, arm, gate.scope))


def _cost(facts: Facts, arm: ArmRow, scope: str | None) -> dict[str, Any]:
    gates = [g for g in facts.gates_of.get(arm.arm, []) if g.category == "cost"]
    gate = min(gates, key=lambda g: (g.scope != scope, not g.required), default=None)
    row = facts.comparison.get((arm.arm, gate.metric if gate else OUTPUT_COST, gate.scope if gate else scope or ""))
    missing = _why_missing(facts, arm, scope)
    if row is not None:
        sure = numerals.sureness(row.confidence, row.n)
        return _figure(row.metric, row.estimate, row.low, row.high, gate, sure, missing)
    if gate is not None:
        sure = numerals.sureness(facts.confidence, gate.n)
        return _figure(gate.metric, gate.estimate, gate.low, gate.high, gate, sure, missing)
    return _figure(None, None, None, None, None, None, missing)


def _figure(
    metric: str | None,
    estimate: float | None,
    low: float | None,
    high: float | None,
    gate: GateRow | None,
    sure: str | None,
    missing: str,
) -> dict[str, Any]:
    return {
        "metric": metric,
        "estimate": estimate,
        "low": low,
        "high": high,
        "gate": gate,
        "text": numerals.ratio(estimate),
        "interval": numerals.interval("ratio", low, high),
        "sure": sure,
        "missing": missing,
    }


def _scale(figures: list[dict[str, Any]]) -> Scale:
    values = [figure[key] for figure in figures for key in ("estimate", "low", "high")]
    values += [figure["gate"].bound for figure in figures if figure["gate"]]
    return ratio_scale(values, 4, 156, most=6.0)


def _plot(figure: dict[str, Any], scale: Scale, arm: str) -> str | None:
    if figure["estimate"] is None:
        return None
    gate = figure["gate"]
    up = gate.bound_kind != "at_most" if gate else False
    proven = figure["low"] is not None and figure["low"] > 1, figure["high"] is not None and figure["high"] < 1
    good, bad = proven if up else proven[::-1]
    return charts.interval_plot(
        scale,
        estimate=figure["estimate"],
        low=figure["low"],
        high=figure["high"],
        bound=gate.bound if gate else None,
        wrong=None if gate is None else "left" if up else "right",
        tone="good" if good else "bad" if bad else "plain",
        title=f"{arm}: {numerals.metric(figure['metric'])} {figure['text']} {figure['interval'] or ''}",
        reference=1.0,
        bar=True,
    )
