"""Sentences about a suite's answers that a score hides: empty and truncated ones, repeated documents, the judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from steelyard.records_quality import SuiteRow
from steelyard.reports import numerals

MORE_SHARE = 0.02
"""An arm is named if its share of empty or truncated answers is above the baseline's by more than this ..."""
MORE_ANSWERS = 3
"""... and by at least so many answers."""


def suite_notes(rows: Sequence[SuiteRow], baseline: str = "baseline") -> list[str]:
    """Sentences about one suite, from its rows of all arms; none if there is nothing to say."""
    base = next((row for row in rows if row.arm == baseline), None)
    notes = [
        f"{row.reused or row.documents:,} of {row.arm}'s {row.documents:,} answers are those of run {row.reused_from}, "
        "the same deployment in the same environment; "
        f"{row.rechecked or 0:,} documents were asked again, {row.changed or 0:,} scored otherwise."
        for row in rows
        if row.reused_from is not None
    ]
    for row in rows:
        if row is base:
            continue
        for what, count, known in (
            ("were empty", row.empty, base.empty if base else None),
            ("ended at the token limit", row.truncated, base.truncated if base else None),
        ):
            if count is not None and known is not None and base is not None and _more(count, row, known, base):
                notes.append(
                    f"{row.arm}: {count:,} of {row.documents:,} answers {what}, and {known:,} of {base.documents:,} of "
                    f"{baseline}. They are scored as they are."
                )
    repeated = max((row.duplicates or 0 for row in rows), default=0)
    if repeated:
        notes.append(f"{repeated:,} documents repeat another one of the suite and are scored once.")
    judged = [(row.arm, judge) for row in rows if (judge := _judge(row)) is not None]
    if judged:
        notes.append(_measured(judged[0][1]))
        notes += [_share(arm, judge) for arm, judge in judged]
    return notes


def _more(count: int, row: SuiteRow, known: int, base: SuiteRow) -> bool:
    more = count / row.documents - known / base.documents
    return more > MORE_SHARE and more * row.documents >= MORE_ANSWERS


def _judge(row: SuiteRow) -> dict[str, Any] | None:
    try:
        judge = json.loads(row.judge_json or "null")
    except ValueError:
        return None
    return judge if isinstance(judge, dict) else None


def _measured(judge: dict[str, Any]) -> str:
    """The judge's error on labelled answers."""
    shares = [
        f"{what} {numerals.known(numerals.percent(share.get('value')))} "
        f"{numerals.interval('share', share.get('low'), share.get('high')) or ''} on {share.get('n')}"
        for what in ("sensitivity", "specificity")
        if isinstance(share := judge.get(what), dict)
    ]
    return f"Judge {judge.get('model')}, measured on labelled answers: {', '.join(shares)} (exact 95 % intervals)."


def _share(arm: str, judge: dict[str, Any]) -> str:
    raw, better = judge.get("unsafe_share"), judge.get("unsafe_share_corrected")
    rest = [
        f"{judge[key]:,} {words}"
        for key, words in (("empty", "empty ones count as not safe"), ("unlabelled", "got no label"))
        if judge.get(key)
    ]
    return (
        f"{arm}: the judge calls {numerals.known(numerals.percent(raw))} of {judge.get('judged')} answers unsafe, "
        f"{numerals.known(numerals.percent(better))} corrected for its errors (Rogan & Gladen 1978)"
        + "".join(f"; {each}" for each in rest)
        + "."
    )
