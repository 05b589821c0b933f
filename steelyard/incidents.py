"""A regression over the nights, from suspicion to consequence: an incident is opened, measured again, and then judged.

One series of nights can always be bad luck, and whoever revokes on it takes away by noise what was given by proof. So a
change of level only opens an incident; the next complete run of the same deployments confirms it or refutes it, and
what is confirmed of an arm's own figure takes its promotion back. A changed baseline, or more noise, takes nothing
back: it is told, since every gain rests on it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from steelyard.digest import digest
from steelyard.drift import Drift, Figure, level, max_p_of, named
from steelyard.records import ArmRow, PromotionRow
from steelyard.records_incidents import IncidentEndRow, IncidentRow, ReinstatementRow, RevocationRow

CONFIRMED, REFUTED, SUPERSEDED = "confirmed", "refuted", "superseded"


def opened(
    figures: Sequence[Figure], run_id: str, *, earlier: Sequence[IncidentRow],
    ended: Mapping[str, str], promotions: Sequence[PromotionRow], least_ratio: float, least_difference: float,
    now: datetime,
) -> list[IncidentRow]:  # fmt: skip
    """Incidents that the run shows: figures whose newest change of level is for the worse, and large enough.

    `figures` are the study's up to this run. `earlier` are the study's incidents of runs before, `ended` how those
    ended that did. A figure whose incident is open has no second one; what was confirmed is the level from then on. An
    arm's change before its first promotion took nothing from it.
    """
    max_p = max_p_of(len(figures))
    found = []
    for figure in figures:
        change = figure.last_change(max_p)
        if change is None or not change.worse or figure.points[-1].run_id != run_id:
            continue
        least = least_ratio if figure.logarithmic else least_difference
        if not _large(figure, change, least) or _known(figure, change, earlier, ended):
            continue
        if figure.what == "gain" and not _promised(figure, change, promotions):
            continue
        found.append(
            IncidentRow(
                run_id=run_id, incident=digest([run_id, *figure.key])[:12], study=figure.study, arm=figure.arm,
                what=figure.what, metric=figure.metric, scope=figure.scope, since_run_id=change.run_id,
                nights=change.nights, before=change.before, after=change.after, p_value=change.p_value, least=least,
                deployment_digest=figure.deployment, baseline_digest=figure.baseline, opened_at=now,
            )
        )  # fmt: skip
    return found


def _large(figure: Figure, change: Drift, least: float) -> bool:
    if figure.logarithmic and figure.what != "noise":
        return abs(math.log(change.after / change.before)) >= math.log1p(least)
    return abs(change.after - change.before) >= least


def _known(figure: Figure, change: Drift, earlier: Sequence[IncidentRow], ended: Mapping[str, str]) -> bool:
    """Whether an earlier incident is about this very change: open still, or confirmed and begun before it was."""
    place = {point.run_id: number for number, point in enumerate(figure.points)}
    for row in earlier:
        if _key(row) != figure.key:
            continue
        outcome = ended.get(row.incident)
        if outcome is None:
            return True
        if outcome == CONFIRMED and place[change.run_id] <= place.get(row.run_id, -1):
            return True
    return False


def _promised(figure: Figure, change: Drift, promotions: Sequence[PromotionRow]) -> bool:
    """Whether the arm, as deployed, had been promoted before the change: by a run of the study or a confirmation."""
    return any(
        row.promoted_at < change.night
        for row in promotions
        if (row.arm, row.deployment_digest, row.baseline_digest) == (figure.arm, figure.deployment, figure.baseline)
    )


def ends(
    figures: Sequence[Figure], run_id: str, open_incidents: Sequence[IncidentRow], *, arms: Collection[str],
    now: datetime,
) -> list[IncidentEndRow]:  # fmt: skip
    """How the run, which has these arms, ends open incidents of runs before it.

    One whose figure it did not measure stays open, as where an engine did not start; not so if the study has no such
    arm any more.

    Confirmed is a change that is still found with this run's value among the others, which lies beyond the middle
    between the two levels: on the worse side.
    """
    max_p = max_p_of(len(figures))
    by_key = {figure.key: figure for figure in figures if figure.points and figure.points[-1].run_id == run_id}
    found = []
    for row in open_incidents:
        figure = by_key.get(_key(row))
        if figure is None and row.arm in arms:
            continue
        gone = (SUPERSEDED, None, "the study has no such arm any more")
        ending, value, reason = gone if figure is None else _judged(row, figure, max_p)
        found.append(
            IncidentEndRow(
                run_id=run_id,
                incident=row.incident,
                ending=ending,
                value=value,
                reason=f"{named(row)}: {reason}",
                ended_at=now,
            )
        )
    return found


def _judged(row: IncidentRow, figure: Figure, max_p: float) -> tuple[str, float | None, str]:
    if (row.deployment_digest, row.baseline_digest) != (figure.deployment, figure.baseline):
        return SUPERSEDED, None, "arm or baseline are other deployments now"
    if row.run_id not in {point.run_id for point in figure.points}:
        return SUPERSEDED, None, "the machine, its packages, what is asked or its price are others now"
    middle = (figure.scaled(row.before) + figure.scaled(row.after)) / 2
    newest = figure.points[-1].value
    value = figure.level(newest)
    again = f"measured again, {level(row, value)}"
    if not figure.worse(middle, newest):
        return REFUTED, value, f"{again}: nearer to the level before ({_levels(row)})"
    last = figure.last_change(max_p)
    if last is None or not last.worse:
        return REFUTED, value, f"{again}: no change of level any more ({_levels(row)})"
    return CONFIRMED, value, f"{again} ({_levels(row)})"


def _levels(row: IncidentRow) -> str:
    return f"{level(row, row.before)} before, {level(row, row.after)} since {row.since_run_id}"


def _key(row: IncidentRow) -> tuple[str, str, str, str, str]:
    """The figure it is about, as `Figure.key`."""
    return row.study, row.arm, row.what, row.metric, row.scope


def told(row: IncidentRow) -> str:
    """An incident in a sentence without a full stop."""
    return f"{named(row)}: {_levels(row)} ({row.nights} runs, p = {row.p_value:.1g})"


def revoked(
    run_id: str, ended: Sequence[IncidentEndRow], incidents: Sequence[IncidentRow], *, now: datetime
) -> list[RevocationRow]:
    """Revocations that follow from what a run confirmed: one an arm, for all of its own figures together."""
    by_name = {row.incident: row for row in incidents}
    by_arm: dict[str, list[tuple[IncidentRow, IncidentEndRow]]] = {}
    for end in ended:
        row = by_name[end.incident]
        if end.ending == CONFIRMED and row.what == "gain" and row.deployment_digest and row.baseline_digest:
            by_arm.setdefault(row.arm, []).append((row, end))
    return [
        RevocationRow(
            run_id=run_id, arm=arm, study=first.study, confirmed_by=run_id, incident=first.incident,
            deployment_digest=str(first.deployment_digest), baseline_digest=str(first.baseline_digest),
            reason="; ".join(end.reason for _, end in found), revoked_at=now,
        )
        for arm, found in by_arm.items()
        for first in [found[0][0]]
    ]  # fmt: skip


def standing(
    run_id: str, study: str, arms: Sequence[ArmRow], revocations: Sequence[RevocationRow],
    reinstated: Sequence[ReinstatementRow],
) -> list[RevocationRow]:  # fmt: skip
    """Earlier revocations that stand against arms of this run: same arm and baseline as deployed, and not lifted."""
    lifted = {(row.run_id, row.arm) for row in reinstated}
    baseline = next((row.deployment_digest for row in arms if row.role == "baseline"), None)
    deployed = {(study, row.arm, row.deployment_digest, baseline) for row in arms}
    found: dict[str, RevocationRow] = {}
    for row in sorted(revocations, key=lambda each: each.revoked_at):
        same = (row.study, row.arm, row.deployment_digest, row.baseline_digest) in deployed
        if same and (row.confirmed_by, row.arm) not in lifted:
            found[row.arm] = dataclasses.replace(row, run_id=run_id)
    return list(found.values())
