"""When a verdict no longer holds: its engine, driver, weights or policy are not those of today.

A verdict is about what was measured. If the arm or the baseline is served by another engine version, from other
weights, on another driver or machine type, or if the policy changed, nobody has measured that yet: the verdict expires,
and the next complete run of the study gives a new one. The view `promotions_in_force` applies the same rules in SQL.

What is no reason: another host of the same type, newer packages of the pipeline itself, other prices, other workloads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.records import ArmRow, StudyRow, VerdictRow

COMPUTING = ("flashinfer-python", "tokenizers", "torch", "transformers", "triton")
"""Packages under an engine that change what it computes; its own version is the arm's `engine_version`."""

_MACHINE = (("accelerator", "accelerator"), ("driver_version", "driver"), ("cpu_model", "processor"),
            ("platform", "platform"))  # fmt: skip
_SERVED = (("engine", "engine"), ("engine_version", "engine version"), ("weights_digest", "weights"),
           ("tokenizer_digest", "tokenizer"), ("template_digest", "chat template"))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a verdict is about, or what there is today: a run's own row, its arms and (where known) its verdicts."""

    study: StudyRow
    arms: Sequence[ArmRow]
    verdicts: Sequence[VerdictRow] = ()


def expiry_problems(arm: str, *, then: Standing, now: Standing) -> list[str]:
    """Why the verdict on an arm in the run `then` no longer holds; empty if it does.

    `now` is the newest complete run of the study, or rows freshly resolved from the study as it stands. A later verdict
    of reject ends an earlier one too; an inconclusive one does not, because it refutes nothing.
    """
    found = _judged_again(arm, now)
    if then.study.policy_digest != now.study.policy_digest:
        found.append(
            f"the policy changed: {_short(then.study.policy_digest)}, now {_short(now.study.policy_digest)}"
        )  # fmt: skip
    for column, what in _MACHINE:
        before, today = getattr(then.study, column), getattr(now.study, column)
        if before != today:
            found.append(f"the {what} changed: {before or 'none'}, now {today or 'none'}")
    if _computing(then.study) != _computing(now.study):
        before, today = (" ".join(f"{n} {v}" for n, v in _computing(each.study)) or "none" for each in (then, now))
        found.append(f"packages under the engine changed: {before}, now {today}")
    baselines = [next((row for row in each.arms if row.role == "baseline"), None) for each in (then, now)]
    own = [next((row for row in each.arms if row.arm == arm), None) for each in (then, now)]
    return [*found, *_served_otherwise(arm, *own), *_served_otherwise("the baseline", *baselines)]


def _judged_again(arm: str, now: Standing) -> list[str]:
    rejected = any(row.arm == arm and row.verdict == "reject" for row in now.verdicts)
    return [f"run {now.study.run_id} rejected {arm}"] if rejected else []


def _served_otherwise(who: str, then: ArmRow | None, now: ArmRow | None) -> list[str]:
    """How a deployment differs from the one that was judged. Without a digest on either side nothing is known."""
    if then is None or then.deployment_digest is None:
        return [f"{who} has no recorded deployment"]
    if now is None:
        return [f"{who} is no longer in the study"]
    if now.status != "served" or now.deployment_digest is None:
        return [f"{who} no longer serves"]
    found = []
    for column, what in _SERVED:
        before, today = getattr(then, column), getattr(now, column)
        if before != today:
            shown = [_short(value) if column.endswith("_digest") else value or "none" for value in (before, today)]
            found.append(f"the {what} of {who} changed: {shown[0]}, now {shown[1]}")
    if not found and then.deployment_digest != now.deployment_digest:
        changed = f"{_short(then.deployment_digest)}, now {_short(now.deployment_digest)}"
        found.append(f"arguments, environment or configuration of {who} changed: deployment {changed}")
    return found


def _computing(study: StudyRow) -> list[tuple[str, str]]:
    packages = json.loads(study.packages_json)
    return [(name, packages[name]) for name in COMPUTING if name in packages]


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
