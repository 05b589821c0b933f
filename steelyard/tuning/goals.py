"""What a search maximises, and what its picture shows, as values of single trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from steelyard.records_trials import TrialRow


@dataclass(frozen=True, slots=True)
class Goal:
    """A positive value of a trial; None where the trial does not say. Larger is better."""

    name: str
    says: str
    of: Callable[[TrialRow], float | None]


def slo_tokens(trial: TrialRow) -> float | None:
    """Output tokens/s, times the share of requests that met the SLO with half a request added to either side.

    Half a request (as Haldane 1956 and Anscombe 1956 add to a share) keeps a trial in which none met it comparable: it
    is a very bad figure, and no unknown one.
    """
    if trial.output_tokens_per_s is None or trial.slo_share is None:
        return None
    met = trial.slo_share * trial.requests
    return trial.output_tokens_per_s * (met + 0.5) / (trial.requests + 1)


GOALS: Mapping[str, Goal] = {
    goal.name: goal
    for goal in (
        Goal("slo_tokens_per_s", "output tokens/s of requests that met the SLO", slo_tokens),
        Goal("output_tokens_per_s", "output tokens/s, whatever the SLO", lambda trial: trial.output_tokens_per_s),
    )
}
LATENCY = Goal("e2e_p50_s", "median end-to-end latency", lambda trial: trial.e2e_p50_s)
THROUGHPUT = GOALS["output_tokens_per_s"]
