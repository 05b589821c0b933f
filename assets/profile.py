"""The baseline's first profile: phase seconds from the engine's own counters, per load point."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from steelyard.records import EngineMetricRow, TrialRow

PHASES = {
    "queue": "vllm:request_queue_time_seconds_sum",
    "prefill": "vllm:request_prefill_time_seconds_sum",
    "decode": "vllm:request_decode_time_seconds_sum",
}


def phase_seconds(metrics: Sequence[EngineMetricRow], trials: Sequence[TrialRow]) -> dict[str, dict[str, float | None]]:
    """Seconds requests spent in each phase, summed over blocks, by load point. None where the engine does not say."""
    point_of = {trial.trial_id: trial.load_point for trial in trials}
    found: dict[str, dict[str, float]] = defaultdict(dict)
    names = {metric: phase for phase, metric in PHASES.items()}
    for row in metrics:
        if row.metric in names and row.trial_id in point_of:
            phases = found[point_of[row.trial_id]]
            phases[names[row.metric]] = phases.get(names[row.metric], 0.0) + row.value
    points = dict.fromkeys(trial.load_point for trial in trials)
    return {point: {phase: found[point].get(phase) for phase in PHASES} for point in points}


def profile_markdown(phases: Mapping[str, Mapping[str, float | None]]) -> str:
    """A table with a share of the requests' time beside each figure."""
    lines = ["| load point | queue | prefill | decode |", "|---|---|---|---|"]
    for point, seconds in phases.items():
        total = sum(value for value in seconds.values() if value is not None)
        cells = [
            f"{value:.2f} s ({value / total:.0%})" if value is not None and total > 0 else "n/a"
            for value in seconds.values()
        ]
        lines.append(f"| {point} | {' | '.join(cells)} |")
    return "\n".join(lines)
