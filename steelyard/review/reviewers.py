"""Who may sign, in which roles, with which key: `studies/reviewers.yaml`.

Whoever may change this file decides who may approve, so it belongs under the same code owners as the policies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from steelyard.errors import InputError
from steelyard.home import reviewers_path
from steelyard.review.keys import fingerprint, public_key
from steelyard.study_base import Frozen, Name
from steelyard.study_file import all_at_once, validated
from steelyard.study_rules import Misfit, Misfits
from steelyard.yaml_lines import read


def _key(line: str) -> str:
    try:
        public_key(line)
    except ValueError as error:
        raise Misfits(Misfit(f"{error}.", "Write `ssh-ed25519 AAAA...`, as `steelyard key` prints it.", ())) from error
    # A comment after the key is nobody's identity.
    return " ".join(line.split()[:2])


PublicKey = Annotated[str, AfterValidator(_key)]


class Reviewer(Frozen):
    """A person who may sign."""

    person: str = Field(
        pattern=r"^[^\s@]+@[^\s@]+$", description="The person's e-mail, as owners of studies are named."
    )
    roles: tuple[Name, ...] = Field(min_length=1, description="Roles in which the person may sign.")
    teams: tuple[Name, ...] = Field(
        (), description="Teams of the person: who is of the team that owns a study may not approve it."
    )
    public_key: PublicKey = Field(description="Ed25519 public key: `ssh-ed25519 AAAA...`.")


class Reviewers(Frozen):
    """Everybody who may sign at this place."""

    reviewers: tuple[Reviewer, ...] = Field((), description="People, each once.")

    @model_validator(mode="after")
    def _each_once(self) -> Reviewers:
        found = []
        for what in ("person", "public_key"):
            seen: dict[str, int] = {}
            for at, each in enumerate(self.reviewers):
                value = str(getattr(each, what)).lower() if what == "person" else each.public_key
                if value in seen:
                    message = f"this {what.replace('_', ' ')} stands twice."
                    found.append(Misfit(message, "Two people are told apart by both.", ("reviewers", at, what)))
                seen[value] = at
        if found:
            raise Misfits(*found)
        return self

    def of(self, person: str) -> Reviewer | None:
        """The person of that e-mail, in whatever case it is written; None if there is none."""
        return next((each for each in self.reviewers if each.person.lower() == person.lower()), None)


def load_reviewers(path: Path) -> Reviewers:
    """Read the registry; nobody if there is no file. Raises one InputError whose `problems` are all its problems."""
    if not path.is_file():
        return Reviewers.model_validate({})
    document = read(path, "reviewers")
    problems: list[InputError] = list(document.problems)
    found = validated(document, Reviewers, problems)
    if problems or found is None:
        raise all_at_once(path, problems)
    return found


def registered() -> Reviewers | None:
    """The registry of this place; None where there is no file, so that nobody is known from a stranger."""
    path = reviewers_path()
    return load_reviewers(path) if path.is_file() else None


def told(reviewer: Reviewer) -> str:
    """A person in one line: roles and the key's fingerprint."""
    return f"{reviewer.person} ({', '.join(reviewer.roles)}; {fingerprint(reviewer.public_key)})"
