"""A first profile: the seconds requests spend in queue, prefill and decode, from the engine's own counters.

vLLM exports each phase as a histogram per request; the differences of its `_sum` over a trial add up to the seconds all
its requests spent there. Dividing by completed requests gives the mean time of a request in each phase.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from steelyard.records_trials import EngineMetricRow, TrialRow

PHASES = {
    "queue": "request_queue_time_seconds_sum",
    "prefill": "request_prefill_time_seconds_sum",
    "decode": "request_decode_time_seconds_sum",
}
"""Phase -> metric, without the engine's prefix."""


def plain_name(metric: str) -> str:
    """A metric's name without the engine's own prefix (`vllm:`) and a trailing `_total`."""
    return metric.rpartition(":")[2].removesuffix("_total")


def phase_seconds(metrics: Mapping[str, float], completed: int) -> dict[str, float | None]:
    """Mean seconds of a request in each phase; None for a phase the engine does not give.

    `metrics` are summed over trials, by plain name; `completed` are the requests behind them, at least 1.
    """
    return {phase: metrics[name] / completed if name in metrics else None for phase, name in PHASES.items()}


def profile(metrics: Sequence[EngineMetricRow], trials: Sequence[TrialRow]) -> dict[str, dict[str, float | None]]:
    """`phase_seconds` by load point, over valid trials with completed requests."""
    measured = {row.trial_id for row in metrics}
    trial_of = {trial.trial_id: trial for trial in trials if trial.valid and trial.trial_id in measured}
    total: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in metrics:
        if row.trial_id in trial_of:
            total[trial_of[row.trial_id].load_point][plain_name(row.metric)] += row.value
    completed: dict[str, int] = defaultdict(int)
    for trial in trial_of.values():
        completed[trial.load_point] += trial.completed
    return {point: phase_seconds(total[point], number) for point, number in completed.items() if number}
