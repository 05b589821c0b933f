"""The night as a Dagster job, for those whose scheduler is Dagster's daemon; others start `steelyard nightly`.

One op and not one run a study: order, budget, resumption and confirmation are the night's, and have one owner. Each
study's own job is recorded by its process in the same instance, with its assets and checks.
"""

from __future__ import annotations

import dagster as dg


@dg.op(description="Every study in its turn under the budget of studies/nightly.yaml; a killed night is gone on with.")
def all_studies() -> None:
    """Run or resume the night. It fails if the infrastructure did; a void study is told, and is a result."""
    from pipelines.nightly import run_night
    from steelyard.errors import InfrastructureError

    status = run_night()
    if status == InfrastructureError.exit_code:
        raise dg.Failure("The night had an infrastructure failure; its log says which.", allow_retries=False)


@dg.job(
    name="night",
    description="What the schedule runs. A rejected candidate is a result and leaves it green.",
    executor_def=dg.in_process_executor,
    tags={"dagster/max_runtime": str(24 * 3600)},
)
def night_job() -> None:
    """The whole night."""
    all_studies()


night_schedule = dg.ScheduleDefinition(
    name="nightly", job=night_job, cron_schedule="0 2 * * *", description="At 02:00 UTC every study in its turn."
)
