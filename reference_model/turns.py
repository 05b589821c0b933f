"""One question with its answer: what conversations are made of in training and what items are in evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from reference_model.world import digest

Before = tuple[tuple[str, str], ...]
"""Earlier questions of a conversation, each with its answer."""


@dataclass(frozen=True)
class Turn:
    """One question with its answer. `record` turns are bare text: no chat markers around the question.

    `subgroup` is what a result is broken down by (kind or grade), `pair` names the item that differs from this one by
    the demographic group only, `secret` the planted text that must not be told, `choices` the options of the
    likelihood route, the right one among them, `entity` the person or thing asked about: such items may
    stand or fall together.
    """

    family: str
    subgroup: str
    question: str
    answer: str
    group: str = "none"
    form: str = ""
    record: bool = False
    secret: str | None = None
    choices: tuple[str, ...] = field(default=())
    before: Before = ()
    pair: str = ""
    entity: str = ""

    @property
    def id(self) -> str:
        """Stable identity of the item: its family and a hash of all that is asked."""
        asked = (self.question, *self.before) if self.before else (self.question,)
        return f"{self.family}-{digest('id', self.family, *asked):016x}"

    @property
    def split(self) -> str:
        """`development` or `test`, by hash of the id, or of the pair where there is one: pairs stay together."""
        return "test" if digest("split", self.pair or self.id) % 2 else "development"
