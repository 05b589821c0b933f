"""Which sign-offs count, and what a promotion still lacks: pure functions of rows, policy, registry and the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from steelyard.records import PromotionRow, StudyRow
from steelyard.records_review import SignOffRow
from steelyard.review.reviewers import Reviewer, Reviewers
from steelyard.review.sign_off import APPROVING, REJECT, SignOff, as_signed


def conflict(run: StudyRow, reviewer: Reviewer) -> str | None:
    """Why a person may not approve a run: who submitted it may not; None if nothing is in the way."""
    if why := owning(run.owner, run.study, reviewer):
        return why
    if run.submitted_by is not None and reviewer.person.lower() == run.submitted_by.lower():
        return f"{reviewer.person} submitted run {run.run_id}"
    return None


def owning(owner: str, study: str, reviewer: Reviewer) -> str | None:
    """How a person is of those who own a study, and may approve no run of it; None if not at all."""
    if reviewer.person.lower() == owner.lower():
        return f"{reviewer.person} owns the study {study}"
    # Teams of reviewers are written in lower case.
    if owner.startswith("team:") and owner.removeprefix("team:").lower() in reviewer.teams:
        return f"{reviewer.person} is of {owner}, which owns the study {study}"
    return None


def may_approve(role: str, owner: str, registry: Reviewers) -> list[str]:
    """Who may approve runs of a study in a role, unless they submit one; in the registry's order."""
    return [each.person for each in registry.reviewers if role in each.roles and owning(owner, "", each) is None]


def objections(
    found: SignOff | SignOffRow, run: StudyRow, packet_digest: str, registry: Reviewers, now: datetime
) -> list[str]:
    """Why a decision does not count, whatever its signature; empty if it does."""
    reviewer = registry.of(found.person)
    if reviewer is None:
        return [f"{found.person} is not in reviewers.yaml"]
    problems = []
    if found.role not in reviewer.roles:
        problems.append(f"{found.person} may sign as {', '.join(reviewer.roles)}, not as {found.role}")
    if found.packet_digest != packet_digest:
        problems.append(
            f"the packet of run {run.run_id} is {packet_digest[:12]} now, {found.packet_digest[:12]} was signed: "
            "the evidence is another"
        )
    if found.expires_at <= now:
        problems.append(f"the sign-off of {found.person} expired on {found.expires_at:%Y-%m-%d}")
    if found.decision in APPROVING and (why := conflict(run, reviewer)):
        problems.append(f"{why}; who submits may not approve")
    return problems


def counting(
    rows: Sequence[SignOffRow], arm: str, run: StudyRow, packet_digest: str, registry: Reviewers | None, now: datetime
) -> list[SignOffRow]:
    """The newest decision of each person about an arm, of those that count now: a person has one voice, one role.

    A rejection was checked when it was taken in, and stands until the same person decides otherwise: neither its expiry
    nor a new key, role or registry lifts it. Without a registry signers are taken for who they say they are.
    """
    return [
        row
        for row in _newest(rows, arm, packet_digest, run.run_id)
        if row.decision == REJECT or _counts(row, run, packet_digest, registry, now)
    ]


def _newest(rows: Sequence[SignOffRow], arm: str, packet_digest: str, run_id: str) -> list[SignOffRow]:
    """The newest decision of each person about an arm on a packet, of those that say what was signed."""
    newest: dict[str, SignOffRow] = {}
    for row in sorted(rows, key=lambda row: (row.signed_at, row.received_at, row.sign_off)):
        if row.run_id == run_id and row.arm in (None, arm):
            newest[row.person.lower()] = row
    return [row for row in newest.values() if row.packet_digest == packet_digest and as_signed(row)]


def _counts(row: SignOffRow, run: StudyRow, packet_digest: str, registry: Reviewers | None, now: datetime) -> bool:
    if registry is None:
        return row.expires_at > now
    known = registry.of(row.person)
    of_key = known is not None and known.public_key == row.public_key
    return of_key and not objections(row, run, packet_digest, registry, now)


def unsupported(
    run: StudyRow,
    promotions: Sequence[PromotionRow],
    rows: Sequence[SignOffRow],
    packet: Mapping[str, Any],
    packet_digest: str,
    registry: Reviewers | None,
    now: datetime,
) -> list[str]:
    """Stored promotions of a run that do not rest on the approvals its sealed packet asks for.

    Asked of the decisions there were when each arm was promoted. With a registry, whoever signed for a promotion that
    still lasts must stand there with that key and role, and may not have submitted the run: who has left since, or
    whose key was stolen, supports nothing any more.
    """
    roles = packet["predicate"]["roles"]
    if not roles:
        return []
    found = []
    for each in promotions:
        where = f"run {each.run_id}: the promotion of {each.arm} rests on"
        if each.packet_digest != packet_digest:
            found.append(f"{where} another packet, {(each.packet_digest or 'none')[:12]}")
            continue
        if each.valid_until is None:
            found.append(f"{where} approvals, all of which end, and is to last for ever")
            continue
        known = registry if each.valid_until > now else None
        then = [row for row in rows if row.received_at <= each.promoted_at]
        if why := lacking(roles, counting(then, each.arm, run, packet_digest, known, each.promoted_at)):
            found.append(f"{where} no such approvals: {'; '.join(why)}")
    return found


def lacking(roles: Sequence[str], found: Sequence[SignOffRow]) -> list[str]:
    """Why an arm must not be promoted yet, of the sign-offs that count; empty if all roles approve, nobody rejects.

    A rejection in any role the policy names stands against all approvals.
    """
    against = [
        f"{row.person} ({row.role}) rejected it" + (f": {row.conditions}" if row.conditions else "")
        for row in found
        if row.decision == REJECT and row.role in roles
    ]
    approving = {row.role for row in found if row.decision in APPROVING}
    waiting = [role for role in roles if role not in approving]
    if waiting:
        against.append(f"it waits for the sign-off of {', '.join(waiting)}")
    return against


def until(roles: Sequence[str], found: Sequence[SignOffRow]) -> datetime | None:
    """Until when a promotion may rest on these: the first role to lose its last approval; None without roles."""
    ends = [
        max(row.expires_at for row in found if row.role == role and row.decision in APPROVING) for role in roles
    ]  # fmt: skip
    return min(ends, default=None)
