"""The packet of a run: one statement that names every verdict and the digest of every table behind it.

It is an in-toto Statement (v1): its subjects are the candidates, by deployment digest. The digest of its canonical JSON
is what a reviewer signs; whatever row of the run changes, this digest changes with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from steelyard.digest import digest
from steelyard.records import ArmRow, StudyRow, VerdictRow
from steelyard.records_base import Row
from steelyard.review.evidence import evidence_of, moment

STATEMENT = "https://in-toto.io/Statement/v1"
PACKET = "urn:steelyard:packet:1"


def packet(rows: Mapping[type[Row], Sequence[Row]]) -> dict[str, Any]:
    """The packet of the run whose rows these are, one `StudyRow` among them."""
    [run] = rows[StudyRow]
    assert isinstance(run, StudyRow)
    return of_evidence(run, rows.get(ArmRow, ()), rows.get(VerdictRow, ()), evidence_of(rows))  # type: ignore[arg-type]


def of_evidence(
    run: StudyRow, arms: Sequence[ArmRow], verdicts: Sequence[VerdictRow], evidence: Mapping[str, Any]
) -> dict[str, Any]:
    """The packet from a run's row, arms and verdicts, and the digests of its tables."""
    candidates = sorted((arm for arm in arms if arm.role == "candidate"), key=lambda arm: arm.arm)
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": arm.arm, "digest": {"sha256": arm.deployment_digest}}
            for arm in candidates
            if arm.deployment_digest
        ],
        "predicateType": PACKET,
        "predicate": {
            "run_id": run.run_id,
            "study": run.study,
            "status": run.status,
            "owner": run.owner,
            "submitted_by": run.submitted_by,
            "started_at": moment(run.started_at),
            "finished_at": moment(run.finished_at) if run.finished_at else None,
            "study_digest": run.study_digest,
            "policy_digest": run.policy_digest,
            "roles": roles_of(run),
            "verdicts": {row.arm: row.verdict for row in sorted(verdicts, key=lambda row: row.arm)},
            "evidence": dict(sorted(evidence.items())),
        },
    }


def roles_of(run: StudyRow) -> list[str]:
    """Roles whose approval the run's own policy asks for before anything is promoted."""
    return list(json.loads(run.policy_json).get("sign_offs", ()))


def longest(run: StudyRow) -> timedelta:
    """How long a sign-off may count at most, by the run's own policy."""
    return timedelta(days=json.loads(run.policy_json).get("sign_off_days", 90))


def packet_digest(found: Mapping[str, Any]) -> str:
    """sha256 of a packet's canonical JSON: what is signed."""
    return digest(found)
