"""Divergence from the baseline, arm by arm: the rows of the screen as the few figures a table has room for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from steelyard.records import ArmRow
from steelyard.records_quality import DivergenceRow
from steelyard.reports import numerals

HEAD = ("arm", "KL, nats/token", "largest", "same top token", "same answers", "first differing token", "prompts")
ROLES = ("candidate", "identity", "known_bad")


@dataclass(frozen=True, slots=True)
class Screened:
    """One arm over its prompts. Means are over the prompts that could be compared; None where none could."""

    arm: str
    prompts: int
    compared: int
    kl_nats: float | None
    kl_nats_max: float | None
    top1_agreement: float | None
    answered: int
    same_answers: int
    first_divergent_token: float | None
    error: str | None

    @property
    def cells(self) -> tuple[str | None, ...]:
        """The row under `HEAD`, None where nothing is known."""
        same = f"{self.same_answers:,} of {self.answered:,}" if self.answered else None
        first = numerals.significant(self.first_divergent_token)
        if first is None and self.answered and self.same_answers == self.answered:
            first = "none differs"
        prompts = f"{self.compared:,}" if self.compared == self.prompts else f"{self.compared:,} of {self.prompts:,}"
        return (
            self.arm, numerals.significant(self.kl_nats), numerals.significant(self.kl_nats_max),
            numerals.percent(self.top1_agreement), same, first, prompts,
        )  # fmt: skip


def screened(rows: Iterable[DivergenceRow], arms: Sequence[ArmRow] = ()) -> list[Screened]:
    """One summary an arm: candidates, the identity, known-bad controls, each by name; arms not in `arms` last."""
    of: dict[str, list[DivergenceRow]] = {}
    for row in rows:
        of.setdefault(row.arm, []).append(row)
    role = {arm.arm: ROLES.index(arm.role) for arm in arms if arm.role in ROLES}
    return [_screened(arm, of[arm]) for arm in sorted(of, key=lambda arm: (role.get(arm, len(ROLES)), arm))]


def _screened(arm: str, rows: Sequence[DivergenceRow]) -> Screened:
    largest = [row.kl_nats_max for row in rows if row.kl_nats_max is not None]
    first = [row.first_divergent_token for row in rows if row.first_divergent_token is not None]
    return Screened(
        arm=arm,
        prompts=len(rows),
        compared=sum(row.kl_nats is not None for row in rows),
        kl_nats=_mean([row.kl_nats for row in rows]),
        kl_nats_max=max(largest, default=None),
        top1_agreement=_mean([row.top1_agreement for row in rows]),
        answered=sum(row.same_answer is not None for row in rows),
        same_answers=sum(row.same_answer is True for row in rows),
        first_divergent_token=statistics.median(first) if first else None,
        error=min((row.error for row in rows if row.error is not None), default=None),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
