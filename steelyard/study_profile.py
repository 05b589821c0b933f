"""What a study asks of the baseline's profile."""

from __future__ import annotations

from pydantic import Field

from steelyard.study_base import Frozen


class Profile(Frozen):
    """Where the baseline's time goes, what the machine could do, and what each lever should bring, before any is timed.

    Needs vLLM started by Steelyard; a few seconds a load point, outside of all trials. Nothing of it decides a verdict.
    """

    steps: int = Field(
        200,
        ge=20,
        le=2000,
        description="Steps of the engine that are traced at each load point, about; two rounds of the concurrency at "
        "least, and no more than one trial takes.",
    )
