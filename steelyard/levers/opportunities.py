"""The ranked list of what could be tried: arms of the study, and levers of the catalogue that nobody tries yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from steelyard.levers.catalogue import CATALOGUE, Entry, Risk
from steelyard.levers.effects import RESOLVED, Effect, NoModel, changed, effect_of, resolved_value
from steelyard.levers.predict import Prediction, Predictor, Scene, scheduler_of
from steelyard.profiling.operators import CATEGORIES
from steelyard.records_profile import OpportunityRow, ProfileRow, ProfileStepRow
from steelyard.study import Arm, Study
from steelyard.study_weights import WeightTransform
from steelyard.study_weights import steps as weight_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One thing to predict: an arm (of the study, or made of a catalogue entry), and its resolved configuration."""

    name: str
    arm: Arm
    tried: bool
    resolved: Mapping[str, Any]
    risk: str
    needs: str | None = None


def candidates(
    study: Study, resolved: Mapping[str, Mapping[str, Any]], catalogue: Sequence[Entry] = CATALOGUE
) -> list[Candidate]:
    """Every candidate of the study, then catalogue entries for its device that change the baseline and that no
    candidate is. `resolved` holds the configuration each arm's engine resolved, by arm; arms that did not serve lack.
    """
    base, device = study.arms[0], study.hardware.device
    found = [
        Candidate(
            name=arm.name, arm=arm, tried=True, resolved=resolved.get(arm.name, {}),
            risk=risk_of(arm, base, catalogue),
        )
        for arm in study.arms
        if arm.role == "candidate"
    ]  # fmt: skip
    tried = [_change(each.arm, base) for each in found]
    for entry in catalogue:
        if device not in entry.devices or entry.engine != base.engine:
            continue
        arm = _catalogued(entry, base)
        change = _change(arm, base)
        if (change == ({}, {}, ()) and not entry.needs) or change in tried or _has(resolved.get(base.name, {}), entry):
            continue
        name = f"{entry.name} (catalogue)" if any(each.name == entry.name for each in found) else entry.name
        found.append(
            Candidate(
                name=name, arm=arm, tried=False, resolved=_overlaid(resolved.get(base.name, {}), entry.args),
                risk=entry.risk, needs=entry.needs,
            )
        )  # fmt: skip
    return found


def opportunities(
    run_id: str, study: Study, scenes: Sequence[Scene], predictor: Predictor | str, among: Sequence[Candidate],
    resolved: Mapping[str, Any], profiles: Mapping[str, ProfileRow], steps: Sequence[ProfileStepRow], now: datetime,
) -> list[OpportunityRow]:  # fmt: skip
    """A row for each candidate and scene, ranked. `predictor` is a reason where there is none; nothing is predicted
    then, and the list still says what there is. `resolved` is the baseline's configuration.
    """
    shares = {
        scene.point.name: shares_of([row for row in steps if row.load_point == scene.point.name]) for scene in scenes
    }
    rows = []
    cost = _cost_s(study, profiles)
    for each in among:
        effect, whole = _effect(each, study, resolved)
        for scene in scenes:
            prediction, reason = None, whole
            if effect is not None and not isinstance(predictor, str):
                try:
                    prediction = predictor.predict(scene, effect, scheduler_of(each.resolved))
                except NoModel as error:
                    reason = str(error)
            elif isinstance(predictor, str):
                reason = whole or predictor
            rows.append((each, effect, scene, prediction, reason))
    best = {
        each.name: max((row[3].ratio for row in rows if row[0] is each and row[3] is not None), default=0.0)
        for each in among
    }
    order = sorted(best, key=lambda name: (-best[name], name))
    return [
        OpportunityRow(
            run_id=run_id, name=each.name, load_point=scene.point.name, tried_by=each.name if each.tried else None,
            lever=each.arm.lever, rank=order.index(each.name) + 1,
            mechanism="; ".join(effect.why) if effect else (each.arm.note or "not known"),
            evidence=evidence(effect, shares[scene.point.name], prediction),
            predicted=prediction.ratio if prediction else None, low=prediction.low if prediction else None,
            high=prediction.high if prediction else None, reason=None if prediction else reason, risk=each.risk,
            cost_s=cost, predicted_at=now,
        )
        for each, effect, scene, prediction, reason in rows
    ]  # fmt: skip


def _effect(each: Candidate, study: Study, resolved: Mapping[str, Any]) -> tuple[Effect | None, str | None]:
    if each.needs:
        return None, f"it needs {each.needs}"
    if each.tried and not each.resolved:
        return None, "its engine did not start"
    try:
        return effect_of(each.arm, study.arms[0], each.resolved, resolved, device=study.hardware.device), None
    except NoModel as error:
        return None, str(error)


def shares_of(steps: Sequence[ProfileStepRow]) -> dict[str, float]:
    """Share of each category in the time of these steps, idle time left out."""
    total = sum(row.until_next_s - row.idle_s for row in steps)
    if total <= 0:
        return {}
    return {name: sum(getattr(row, f"{name}_s") for row in steps) / total for name in CATEGORIES}


def evidence(effect: Effect | None, shares: Mapping[str, float], prediction: Prediction | None) -> str:
    """The figures behind a prediction, in a sentence."""
    parts = []
    names = sorted(effect.factors if effect else (), key=lambda name: -shares.get(name, 0.0))
    if effect and effect.products:
        names = ["gemm", *(name for name in names if name != "gemm")]
    if effect and effect.schedules and not names:
        names = ["host", "scheduling"]
    parts += [f"{name} {_percent(shares[name])}" for name in names[:3] if name in shares]
    text = "of the time: " + ", ".join(parts) if parts else ""
    if prediction is not None:
        if effect and effect.schedules:
            ours, theirs = prediction.ours, prediction.baseline
            text += f"; {theirs.sequences:.1f} requests in a step, {ours.sequences:.1f} with it"
            text += f"; steps {len(theirs.batches)} to {len(ours.batches)}"
            if ours.cached_tokens:
                text += f"; {_percent(ours.cached_tokens / ours.prompt_tokens)} of prompt tokens known"
        if prediction.accepted is not None:
            text += f"; {prediction.accepted:.2f} tokens a decoding step by replaying answers"
    return text.lstrip("; ") or "no figure of the profile speaks of it"


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


def risk_of(arm: Arm, base: Arm, catalogue: Sequence[Entry]) -> str:
    """The gravest risk of the catalogue's entries that an arm's changes contain; unknown if they contain none.

    An entry is contained if the arm changes the same argument; of two entries with other values, the one with the
    arm's own value counts.
    """
    order = get_args(Risk)
    found: list[str] = []
    for name in changed(arm.args, base.args):
        same = [each for each in catalogue if name in each.args]
        exact = [each for each in same if each.args[name] == arm.args.get(name)]
        found += [max((each.risk for each in exact or same), key=order.index)] if same else []
    for name in changed(arm.env, base.env):
        found += [each.risk for each in catalogue if name in each.env]
    if arm.weights is not None:
        found.append("approximation")
    return max(found, key=order.index) if found else "unknown"


def _catalogued(entry: Entry, base: Arm) -> Arm:
    return base.model_copy(
        update={
            "name": entry.name, "role": "candidate", "lever": entry.kind, "note": entry.changes,
            "args": {**base.args, **entry.args}, "env": {**base.env, **entry.env},
            "weights": WeightTransform.model_validate(dict(entry.weights)) if entry.weights else base.weights,
        }
    )  # fmt: skip


def _change(arm: Arm, base: Arm) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    return (
        {name: arm.args.get(name) for name in sorted(changed(arm.args, base.args))},
        {name: arm.env.get(name) for name in sorted(changed(arm.env, base.env))},
        tuple(str(step) for step in weight_steps(arm.weights)),
    )


def _has(resolved: Mapping[str, Any], entry: Entry) -> bool:
    """Whether the baseline resolved to what the entry asks for, as far as it can be seen."""
    if not entry.args or entry.env or entry.weights:
        return False
    return all(name in RESOLVED and resolved_value(resolved, name, {}) == value for name, value in entry.args.items())


def _overlaid(resolved: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """The baseline's configuration as it would resolve with these arguments, where that is known."""
    made = {section: dict(fields) if isinstance(fields, Mapping) else fields for section, fields in resolved.items()}
    for name, value in args.items():
        section, key = RESOLVED.get(name, ("", ""))
        if isinstance(made.get(section), dict):
            made[section][key] = value
    return made


def _cost_s(study: Study, profiles: Mapping[str, ProfileRow]) -> float | None:
    """Seconds of trials an arm as fast as the baseline needs for all blocks of the study."""
    total = 0.0
    for point in study.load_points:
        row = profiles.get(point.name)
        if row is None or row.plain_s is None or not row.requests:
            return None
        total += row.plain_s * point.workload.requests / row.requests
    return total * study.blocks
