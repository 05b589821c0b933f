"""What holds for all nights of a place: `studies/nightly.yaml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from steelyard.durations import seconds
from steelyard.errors import InputError
from steelyard.study_base import Frozen, Name
from steelyard.study_file import all_at_once, validated
from steelyard.study_rules import Misfit, Misfits
from steelyard.yaml_lines import read

MOST_S = 366 * 86400.0


def _duration(text: str) -> str:
    try:
        seconds(text, most_s=MOST_S)
    except ValueError as error:
        raise Misfits(Misfit(f"{error}.", "Write 90s, 30m, 1h30m or 7d; a year at most.", ())) from error
    return text


Duration = Annotated[str, AfterValidator(_duration)]


class Retention(Frozen):
    """Which raw request rows may go. Trials, samples, verdicts and every aggregate are kept for ever."""

    after_days: int = Field(
        ge=1,
        description="Age of a run, in days, from which its request rows are thinned. Runs that a decision rests on "
        "today (the newest complete one of a study, and each with a promotion in force) keep them all.",
    )
    keep: float = Field(
        0.1, ge=0, lt=1, description="Share of a trial's good requests that stays, evenly; failed ones all stay."
    )


class Drifting(Frozen):
    """How large a change of level over the nights must be to matter, however certain it is."""

    least_ratio: float = Field(
        0.05, gt=0, description="Of a ratio or rate, as a share of its level; of noise, in shares of the estimate."
    )
    least_difference: float = Field(0.01, gt=0, description="Of a difference or a share, such as a score's.")


class Webhook(Frozen):
    """Where events are sent as JSON by POST. The text is under `text`, which chat systems show."""

    url: str | None = Field(None, pattern=r"^https?://", description="Address; or name a variable that holds it.")
    url_env: str | None = Field(None, description="Environment variable that holds the address, if it is a secret.")
    secret_env: str | None = Field(
        None,
        description="Environment variable with a secret: each request then carries `X-Steelyard-Signature`, `sha256=` "
        "and the HMAC of its body.",
    )

    @model_validator(mode="after")
    def _one_address(self) -> Webhook:
        if (self.url is None) == (self.url_env is None):
            raise Misfits(Misfit("a webhook has exactly one address.", "Give one of url, url_env.", ("url",)))
        return self


class Mail(Frozen):
    """Where events are sent as e-mail through SMTP."""

    host: str = Field(min_length=1, description="SMTP server.")
    port: int = Field(587, ge=1, le=65535, description="Its port.")
    security: Literal["starttls", "tls", "none"] = Field("starttls", description="How the connection is secured.")
    sender: str = Field(pattern=r"^\S+@\S+$", description="Address in From.")
    to: tuple[Annotated[str, Field(pattern=r"^\S+@\S+$")], ...] = Field(min_length=1, description="Addresses in To.")
    user_env: str | None = Field(None, description="Environment variable with the user name; none: no login.")
    password_env: str | None = Field(None, description="Environment variable with the password.")

    @model_validator(mode="after")
    def _both_or_none(self) -> Mail:
        if (self.user_env is None) != (self.password_env is None):
            raise Misfits(
                Misfit("a login has a user and a password.", "Give both user_env and password_env.", ("user_env",))
            )
        return self


class Notify(Frozen):
    """Who is told. At once: promoted, revoked, void, infrastructure failure. Everything else waits for the digest."""

    webhook: Webhook | None = Field(None, description="A webhook.")
    mail: Mail | None = Field(None, description="E-mail.")
    digest: bool = Field(True, description="One summary at the end of every night.")


class Nightly(Frozen):
    """What holds for all nights of a place, beside its studies."""

    studies: tuple[Name, ...] = Field(
        (),
        description="Studies in the order in which they are run; those not named follow by the name of their folder.",
    )
    skip: tuple[Name, ...] = Field((), description="Studies that the nightly leaves alone.")
    budget: Duration = Field(
        "8h", description="Wall time of a night. What does not fit is put off, and comes first in the next night."
    )
    valid_for: Duration = Field(
        "18h",
        description="How long a complete run stands: a study is not run again before, unless it, its machine, its "
        "packages or its weights changed, or an incident waits to be confirmed. Drift is seen over nights: what runs "
        "once a week is watched once a week.",
    )
    retention: Retention | None = Field(None, description="Thinning of raw request rows; none: they are all kept.")
    dagster_days: int | None = Field(
        90, ge=1,
        description="Days after which Dagster's own event log of a run is purged, the newest run of each job excepted. "
        "It holds no evidence. null: never.",
    )  # fmt: skip
    drift: Drifting = Field(
        default_factory=lambda: Drifting.model_validate({}), description="Which changes over the nights matter."
    )
    notify: Notify = Field(default_factory=lambda: Notify.model_validate({}), description="Who is told of what.")

    @property
    def budget_s(self) -> float:
        """The budget in seconds."""
        return seconds(self.budget, most_s=MOST_S)

    @property
    def valid_for_s(self) -> float:
        """How long a complete run stands, in seconds."""
        return seconds(self.valid_for, most_s=MOST_S)


def load_nightly(path: Path) -> Nightly:
    """Read the file. Raises one InputError whose `problems` are all its problems; it must be there."""
    document = read(path, "nightly")
    problems: list[InputError] = list(document.problems)
    nightly = validated(document, Nightly, problems)
    if problems or nightly is None:
        raise all_at_once(path, problems)
    return nightly


def nightly_settings(path: Path) -> Nightly:
    """The file, or what holds without one."""
    return load_nightly(path) if path.is_file() else Nightly.model_validate({})


def from_environment(name: str, field: str) -> str:
    """A value that a settings file names only. Raises InputError if the variable is not set."""
    value = os.environ.get(name, "")
    if not value:
        raise InputError(
            f"The environment variable {name} is not set.",
            remedy="Set it where the nightly starts, such as in its systemd unit.",
            field=field,
        )
    return value
