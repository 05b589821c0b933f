"""Rows about what changed over the nights: incidents, how they ended, and promotions taken back because of one.

Each belongs to the run that wrote it, so that nothing is ever changed afterwards: an incident to the run that showed
it, its end to the run that confirmed or refuted it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from steelyard.records_base import ARM, DIGEST, RUN, Row, col

_INCIDENT = "Name of the incident: the first 12 characters of a sha256 over run and figure."
_LEVEL = "A ratio or the baseline's own value as geometric mean, a difference or share as mean, noise as share."


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow(Row):
    TABLE = "incidents"
    KEY = ("run_id", "incident")
    MEANING = (
        "A figure that changed its level for the worse over the nights, as a run showed. The next complete run "
        "confirms or refutes it. Of the baseline and of noise the arm is the identity control, which shows both."
    )

    run_id: str = col(RUN)
    incident: str = col(_INCIDENT)
    study: str = col("Name of the study.")
    arm: str = col(ARM)
    what: str = col("gain (the arm's comparison), baseline (the baseline's own value) or noise (of the comparison).")
    metric: str = col("Metric, as in comparisons.")
    scope: str = col("Load point, suite or whatever the metric is about.")
    since_run_id: str = col("First run at the new level.")
    nights: int = col("Runs at the new level, this one included.", "runs")
    before: float = col("Level before. " + _LEVEL)
    after: float = col("Level after.")
    p_value: float = col("Two-sided, corrected for having chosen the split.", "0..1")
    least: float = col("Least change that counts, by nightly.yaml: a share of the level, or a difference.")
    deployment_digest: str | None = col(DIGEST)
    baseline_digest: str | None = col("Deployment digest of the baseline.")
    opened_at: datetime = col("When.", "UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentEndRow(Row):
    TABLE = "incident_ends"
    KEY = ("run_id", "incident")
    MEANING = "How an incident ended: the run named measured the figure afresh."

    run_id: str = col(RUN)
    incident: str = col(_INCIDENT)
    ending: str = col("confirmed, refuted, or superseded where arm or baseline are other deployments now.")
    value: float | None = col("The figure in this run; NULL where it is not of the same deployments.")
    reason: str = col("Why, in a sentence.")
    ended_at: datetime = col("When.", "UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationRow(Row):
    TABLE = "revocations"
    KEY = ("run_id", "arm")
    MEANING = (
        "Promotions of an arm taken back, because a regression of its own was confirmed: by this run, or by an earlier "
        "one whose revocation stands in this one. It holds for arm and baseline as deployed, and for promotions "
        "to come, until one of the two is another deployment or the arm is reinstated."
    )

    run_id: str = col(RUN)
    arm: str = col(ARM)
    study: str = col("Name of the study.")
    confirmed_by: str = col("Run that confirmed the regression.")
    incident: str = col(_INCIDENT)
    deployment_digest: str = col(DIGEST)
    baseline_digest: str = col("Deployment digest of the baseline.")
    reason: str = col("Why, in a sentence.")
    revoked_at: datetime = col("When.", "UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinstatementRow(Row):
    TABLE = "reinstatements"
    KEY = ("run_id", "arm")
    MEANING = (
        "A revocation by this run that a person has lifted: from then on a complete run may promote the arm again."
    )

    run_id: str = col(RUN)
    arm: str = col(ARM)
    reinstated_by: str = col("Who lifted it.")
    reason: str = col("Why, in the words of who did.")
    reinstated_at: datetime = col("When.", "UTC")


INCIDENT_ROWS: tuple[type[Row], ...] = (IncidentRow, IncidentEndRow, RevocationRow, ReinstatementRow)
