"""The page of a search: what it found, what each lever does alone and in the stack, and every stack it measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.records import StudyRow, VerdictRow
from steelyard.records_profile import OpportunityRow
from steelyard.records_search import SearchRow, StackRow
from steelyard.reports import numerals
from steelyard.reports.charts_search import Choice, front
from steelyard.reports.page import rendered, write
from steelyard.tuning.goals import GOALS
from steelyard.tuning.outcome import choices_of, interaction, left_out, said
from steelyard.tuning.predictions import span_of
from steelyard.tuning.request import SEARCH_SHARE

STAGES = {
    "start": "Begun with", "screen": "Levers alone", "stack": "Levers together", "numbers": "Numbers",
}  # fmt: skip
UNTRIED = "It was not tried alone, or it cannot be pulled alone."
FOUND_BEST = "what the search found best"
OFF_FRONT = "another one's estimates are better, by no more than could be told apart or at another goal"
NOT_LEFT_OUT = "It was never left out: the stack has no other lever, or the budget was spent."


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The run that judged a search's winner, and its verdicts."""

    run: StudyRow
    verdicts: Sequence[VerdictRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A search with all that is shown of it. `predictions` are of the survey it was ordered by."""

    search: SearchRow
    rows: Sequence[StackRow]
    predictions: Sequence[OpportunityRow]
    judged: Judged | None

    @property
    def winner(self) -> StackRow | None:
        """The last row of the winner."""
        found = [row for row in self.rows if row.arm == self.search.winner]
        return next((row for row in reversed(found)), None)


def build(found: Searched, out: Path) -> Path:
    """Write the page of a search, whole or not at all, and return its file. Raises InfrastructureError if it cannot."""
    return write(render(found), out)


def render(found: Searched) -> str:
    """The page as text."""
    search = found.search
    return rendered(
        "search.html.j2", search=search, answer=answer(found), lede=lede(found), plot=_plot(found),
        levers=lever_lines(found), rounds=_rounds(found), left_out=json.loads(search.left_out_json).items(),
        goal=GOALS[search.goal].says, budget=numerals.seconds(SEARCH_SHARE * search.budget_s),
        spent=numerals.seconds(search.spent_s),
        points=", ".join(search.load_points), when=numerals.moment(search.searched_at),
        measured=len({row.arm for row in found.rows if row.blocks_measured}),
        front=_front(found),
    )  # fmt: skip


def answer(found: Searched) -> str:
    """What the search found, in a sentence."""
    row = found.winner
    if row is None:
        return "No lever pays here"
    return f"{said(row)}: {numerals.ratio(row.total) or 'n/a'} the baseline"


def lede(found: Searched) -> str:
    """What became of the winner: judged, and how; or why not."""
    search, judged = found.search, found.judged
    ended = f" The search ended early: {search.stopped}." if search.stopped else ""
    if search.winner is None:
        return f"Nothing that could be pulled beat the baseline beyond doubt.{ended}"
    if judged is None:
        return f"Nobody has judged it yet: a search believes what helps it to search.{ended}"
    verdicts = "; ".join(f"{row.arm}: {row.verdict}" for row in judged.verdicts if row.role == "candidate")
    return f"Judged afresh by run {judged.run.run_id}: {verdicts}.{ended}"


def _plot(found: Searched) -> Any:
    choices = [
        Choice(
            mark=row.arm if shown(row, found.search) or (len(row.pulled) == 1 and row.numbers_json == "{}") else "",
            latency=row.latency_ratio, throughput=row.tokens_ratio, risk=row.answer_risk, on_front=row.on_front,
            title=f"{said(row)}: tokens/s {numerals.ratio(row.tokens_ratio)}, latency "
            f"{numerals.ratio(row.latency_ratio)}, risk {row.answer_risk}",
        )
        for row in choices_of(found.rows)
        if row.latency_ratio is not None and row.tokens_ratio is not None
    ]  # fmt: skip
    return front(choices, "Throughput and latency of every stack") if choices else None


def shown(row: StackRow, search: SearchRow) -> bool:
    """Whether a stack is a choice to name: on the front, or the winner, which noise may keep off it."""
    return row.on_front or row.arm == search.winner


def _front(found: Searched) -> list[dict[str, Any]]:
    winner = found.search.winner
    return [
        {
            **_line(row),
            "note": None if row.arm != winner else FOUND_BEST if row.on_front else f"{FOUND_BEST}; {OFF_FRONT}",
        }
        for row in choices_of(found.rows)
        if shown(row, found.search)
    ]


def lever_lines(found: Searched) -> list[dict[str, Any]]:
    """Each lever that was tried: what was expected, what it did alone, and in the winner."""
    inside = left_out(found.rows, found.search.winner or "")
    lines = []
    # By what the lever is: what a round says of it later is said of a stack.
    for row in {row.pulled[-1]: row for row in found.rows if row.stage == "screen" and row.pulled}.values():
        lever = row.pulled[-1]
        without = inside.get(lever)
        both = interaction(row, without) if without is not None else None
        lines.append(
            {
                "name": lever, "risk": row.answer_risk, "fate": row.fate, "reason": row.reason,
                "predicted": _predicted(found, lever),
                "alone": numerals.ratio_within(row.total, row.total_low, row.total_high),
                "inside": _inverse(without), "interaction": numerals.ratio_within(*both) if both else None,
                "taken": lever in inside, "untried": UNTRIED, "not_left_out": NOT_LEFT_OUT if lever in inside else
                "It is no part of the stack.",
            }
        )  # fmt: skip
    return sorted(lines, key=lambda each: not each["taken"])


def _predicted(found: Searched, lever: str) -> str | None:
    span = span_of(lever, found.search.load_points, found.predictions)
    return None if span is None else numerals.ratio_within(span[1], span[0], span[2])


def _inverse(row: StackRow | None) -> str | None:
    if row is None or row.gain is None:
        return None
    low = 1 / row.gain_high if row.gain_high else None
    high = 1 / row.gain_low if row.gain_low else None
    return numerals.ratio_within(1 / row.gain, low, high)


def _rounds(found: Searched) -> list[dict[str, Any]]:
    """Every round with its stacks."""
    rounds: list[dict[str, Any]] = []
    for row in found.rows:
        if not rounds or rounds[-1]["number"] != row.round:
            rounds.append({"number": row.round, "stage": STAGES[row.stage], "against": row.against, "lines": []})
        rounds[-1]["lines"].append(_line(row))
    return rounds


def _line(row: StackRow) -> dict[str, Any]:
    return {
        "arm": row.arm, "said": said(row), "varied": row.varied, "blocks": row.blocks_measured, "fate": row.fate,
        "gain": numerals.ratio_within(row.gain, row.gain_low, row.gain_high),
        "total": numerals.ratio_within(row.total, row.total_low, row.total_high),
        "tokens": numerals.ratio(row.tokens_ratio), "latency": numerals.ratio(row.latency_ratio),
        "cost": numerals.dollars(row.usd_per_million), "risk": row.answer_risk, "reason": row.reason,
    }  # fmt: skip
