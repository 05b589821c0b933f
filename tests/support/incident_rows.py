"""An incident that was confirmed, what it took back, and that a person lifted it: one row of each table."""

from __future__ import annotations

from datetime import datetime

from steelyard.digest import digest
from steelyard.records_base import Row
from steelyard.records_incidents import IncidentEndRow, IncidentRow, ReinstatementRow, RevocationRow


def incident_rows(run_id: str, now: datetime) -> list[Row]:
    """Rows of one run, and of a study of their own: no test of nights and promotions sees them."""
    name = digest(run_id)[:12]
    return [
        IncidentRow(
            run_id=run_id, incident=name, study="elsewhere", arm="int8", what="gain",
            metric="output_tokens_per_s", scope="chat@c2", since_run_id="run-0", nights=2, before=1.8, after=1.5,
            p_value=1e-5, least=0.05, deployment_digest="a" * 64, baseline_digest="b" * 64, opened_at=now,
        ),
        IncidentEndRow(
            run_id=run_id, incident=name, ending="confirmed", value=1.5, reason="It's measured.", ended_at=now
        ),
        RevocationRow(
            run_id=run_id, arm="int8", study="elsewhere", confirmed_by=run_id, incident=name,
            deployment_digest="a" * 64, baseline_digest="b" * 64, reason="It's measured.", revoked_at=now,
        ),
        ReinstatementRow(
            run_id=run_id, arm="int8", reinstated_by="ops@example.org", reason="Known; agreed.", reinstated_at=now
        ),
    ]  # fmt: skip
