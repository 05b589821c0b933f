"""Metrics of the nightly in Prometheus' text format, as a file: a night is a batch job, and has nothing to be scraped.

Point node_exporter's textfile collector, or any other, at the folder. Alert on the age of
`steelyard_night_ended_timestamp_seconds`: a machine that is dead says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steelyard.errors import InfrastructureError
from steelyard.nightly.log import COMPLETE, ENDED, FAILED, LEFT, STOPPED, VOID, Night
from steelyard.nightly.news import Standing

OUTCOMES = (COMPLETE, VOID, FAILED, STOPPED, LEFT)


def write_metrics(
    path: Path, night: Night, *, in_force: Sequence[Standing] | None, open_incidents: int | None, waiting: int,
    warehouse_bytes: int | None,
) -> None:  # fmt: skip
    """Write the file, whole or not at all. What is unknown (None) is left out, never 0."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def gauge(name: str, about: str, value: float | None, **labels: str) -> None:
        if value is not None:
            found = gauges.get(name) or Gauge(name, about, list(labels), registry=registry)
            gauges[name] = found
            (found.labels(**labels) if labels else found).set(value)

    gauges: dict[str, Gauge] = {}
    gauge("steelyard_night_started_timestamp_seconds", "When the newest night began.", night.started_at.timestamp())
    if night.status == ENDED and night.ended_at is not None:
        gauge("steelyard_night_ended_timestamp_seconds", "When the newest night ended.", night.ended_at.timestamp())
    gauge("steelyard_night_under_way", "1 while a night is under way.", float(night.status != ENDED))
    gauge("steelyard_night_resumed", "Kills the newest night was resumed after.", night.resumed)
    gauge(
        "steelyard_night_failures", "Failures of the newest night itself, its studies left aside.", len(night.failures)
    )
    for outcome in OUTCOMES:
        number = sum(step.outcome == outcome for step in night.steps)
        gauge("steelyard_night_studies", "Studies of the newest night by outcome.", number, outcome=outcome)
    for step in night.steps:
        if step.outcome != LEFT:
            about = "Wall time of a study in the newest night."
            gauge("steelyard_study_duration_seconds", about, step.wall_s, study=step.study, decision=step.decision)
        for verdict in sorted(set(step.verdicts.values())):
            number = sum(each == verdict for each in step.verdicts.values())
            about = "Arms by verdict in the newest run of the night."
            gauge("steelyard_study_verdicts", about, number, study=step.study, verdict=verdict)
    if in_force is not None:
        gauge("steelyard_promotions_in_force", "Promotions in force.", len(in_force))
    gauge("steelyard_incidents_open", "Incidents that wait to be confirmed.", open_incidents)
    gauge("steelyard_events_waiting", "Events that some channel has not taken.", waiting)
    gauge("steelyard_warehouse_bytes", "Size of the live warehouse.", warehouse_bytes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise InfrastructureError(
            f"{path} cannot be written ({error.strerror}).", remedy="Check rights and space of the state folder."
        ) from error
