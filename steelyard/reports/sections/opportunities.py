"""What each lever should have brought, beside what it did; and what nobody has tried yet."""

from __future__ import annotations

from typing import Any

from steelyard.levers.score import METRIC, Scored, best_of_each, score
from steelyard.records import ComparisonRow
from steelyard.records_profile import OpportunityRow
from steelyard.reports import numerals
from steelyard.reports.charts_profile import Foretold, foretold
from steelyard.reports.facts import Facts

UNKNOWN = "This lever was not timed: it was rejected before, or its engine did not start."
EMPTY = "The study asks for no profile, so nothing was predicted. Write profile: {} into it."
SKIPPED = "Nothing was predicted: trials had been timed before the baseline could be profiled, or the run ended there."
UNSCORED = "Nothing was predicted, so there is no error."


def section(facts: Facts) -> dict[str, Any]:
    """Chart and table of the arms that were predicted, the score of the predictor, and the backlog."""
    found = score(facts.opportunities, facts.comparisons)
    paired = {(each.row.name, each.row.load_point): each for each in found.pairs}
    measured = {(row.arm, row.scope): row for row in facts.comparisons if row.metric == METRIC}
    ranked = best_of_each(facts.opportunities)
    tried = [row for row in ranked if row.tried_by is not None]
    untried = [row for row in ranked if row.tried_by is None]
    shown = [_claimed(facts, row) for row in tried]
    count = len(found.pairs)
    drawn = [_foretold(row, paired) for row in shown if row.predicted is not None]
    return {
        "empty": EMPTY if not facts.asked.get("profile") else SKIPPED,
        "plot": foretold(drawn, "Predicted and measured") if drawn else None,
        "tried": [_line(row, paired, measured) for row in shown],
        "every": [
            _line(row, paired, measured)
            for row in sorted(facts.opportunities, key=lambda row: (row.rank, row.load_point))
            if row.tried_by is not None
        ],
        "untried": [_line(row, paired, measured) for row in untried if row.predicted is not None],
        "unknown": [_line(row, paired, measured) for row in untried if row.predicted is None],
        "pairs": count,
        "inside": found.inside,
        "met": found.met,
        "typical": numerals.percent(found.typical_error),
        "bias": numerals.percent(abs(found.bias)) if found.bias is not None else None,
        "too": "too low" if (found.bias or 0) > 0 else "too high",
    }  # fmt: skip


def _claimed(facts: Facts, row: OpportunityRow) -> OpportunityRow:
    """The row of the arm at the load point where it claims a gain."""
    arm = facts.arm_of.get(row.tried_by or "")
    claimed = [each for each in facts.opportunities if each.name == row.name and arm and each.load_point == arm.claim]
    return claimed[0] if claimed else row


def _foretold(row: OpportunityRow, paired: dict[tuple[str, str], Scored]) -> Foretold:
    scored = paired.get((row.name, row.load_point))
    comparison = scored.comparison if scored else None
    predicted = row.predicted or 1.0
    measured = None
    if comparison is not None and comparison.estimate is not None:
        measured = (comparison.estimate, comparison.low, comparison.high)
    shown = numerals.known(numerals.ratio(predicted))
    said = numerals.known(numerals.ratio(comparison.estimate)) if comparison else "not timed"
    return Foretold(
        label=row.name,
        predicted=(predicted, row.low or predicted, row.high or predicted),
        measured=measured,
        value=f"{shown} → {said}" if comparison else shown,
        tone="quiet" if scored is None else "good" if scored.meets else "bad",
        title=f"{row.name} at {row.load_point}: predicted {shown}, measured {said}",
    )


def _signed(share: float) -> str:
    """A share with its sign, `+27 %`; no sign for what rounds to nothing."""
    whole = round(share * 100)
    return f"{'+' if whole > 0 else '−' if whole < 0 else ''}{abs(whole)} %"


def _line(
    row: OpportunityRow, paired: dict[tuple[str, str], Scored], measured: dict[tuple[str, str], ComparisonRow]
) -> dict[str, Any]:
    scored = paired.get((row.name, row.load_point))
    comparison = measured.get((row.tried_by or "", row.load_point))
    return {
        "name": row.name,
        "point": row.load_point,
        "predicted": numerals.ratio(row.predicted),
        "span": numerals.interval("ratio", row.low, row.high),
        "reason": row.reason or "Nothing was predicted.",
        "measured": numerals.ratio(comparison.estimate) if comparison else None,
        "unscored": UNSCORED if comparison else UNKNOWN,
        "measured_span": numerals.interval("ratio", comparison.low, comparison.high) if comparison else None,
        "unmeasured": UNKNOWN,
        "error": _signed(scored.error) if scored else None,
        "risk": row.risk,
        "cost": numerals.seconds(row.cost_s),
        "why": numerals.sentence(row.mechanism),
        "evidence": row.evidence,
    }
