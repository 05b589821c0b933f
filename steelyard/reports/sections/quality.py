"""Quality: scores with paired intervals against the margin, and the answers that changed, safety first."""

from __future__ import annotations

from typing import Any

from steelyard.quality_comparisons import SAFE, asked_of
from steelyard.records_quality import SampleRow
from steelyard.reports import charts, numerals
from steelyard.reports.facts import Facts
from steelyard.reports.suite_notes import suite_notes
from steelyard.reports.svg import linear_scale, nice

HARM = ("canary", "safety")
"""Categories of suites whose lost answers are shown first."""
CANARIES = "Canaries are counted one by one, not averaged."
SHOWN = 6
"""Changed answers written out for each arm; the rest is a query away."""


def section(facts: Facts) -> dict[str, Any]:
    """Forest plots by suite, a table of scores, and flips by arm."""
    compared = [each for arm in facts.judged if (each := _flips(facts, arm.arm)) is not None]
    return {
        "suites": [_suite(facts, suite) for suite in facts.suite_names],
        "canaries": [each for suite in facts.suite_names for each in _canaries(facts, suite)],
        "harm": [plot for suite in facts.suite_names if (plot := _harm(facts, suite)) is not None],
        "flips": [each for each in compared if each["lost"]],
        "unchanged": [each["arm"] for each in compared if not each["lost"]],
        "compared": bool(compared),
        "shown": SHOWN,
    }


def _suite(facts: Facts, suite: str) -> dict[str, Any]:
    base = facts.suite_of.get((facts.baseline or "", suite))
    any_row = base or min((row for row in facts.suites if row.suite == suite), key=lambda row: row.arm, default=None)
    bounds = {g.bound for g in facts.gates if g.metric == "score" and g.scope == suite and g.required}
    margin = bounds.pop() if len(bounds) == 1 else None
    rows: list[charts.ForestRow] = []
    values: list[float | None] = [0.0, None if margin is None else -margin, margin]
    band, sure, n = None, None, 0
    for arm in facts.judged:
        own = facts.suite_of.get((arm.arm, suite))
        row = facts.comparison.get((arm.arm, "score", suite))
        estimate, low, high = (row.estimate, row.low, row.high) if row else (None, None, None)
        if row is not None:
            sure, n = row.confidence, max(n, row.n)
        if arm.role == "identity" and low is not None and high is not None:
            band = (low, high)
        moved = ""
        if row is not None and row.lost is not None and row.gained is not None:
            moved = f"{numerals.MINUS}{row.lost} +{row.gained}" if row.lost or row.gained else "none"
        limit = None if margin is None else -margin
        tone = "quiet" if arm.role != "candidate" else _tone(low, high, limit)
        rows.append(
            charts.ForestRow(
                label=arm.arm,
                estimate=estimate,
                low=low,
                high=high,
                value=moved,
                tone=tone,
                title=f"{arm.arm}: {numerals.known(numerals.points(estimate))} "
                f"{numerals.interval('difference', low, high) or ''}, score "
                f"{numerals.known(numerals.percent(own.mean_score if own else None))}",
                missing=_missing(facts, arm.arm),
            )
        )
        if arm.role != "known_bad":
            values += [estimate, low, high]
    scale = linear_scale(values, 128, 330)
    plot = charts.forest(
        rows,
        scale,
        title=f"{suite}: mean score minus the baseline's, percentage points",
        write=lambda value: f"{value * 100:+.3g}".replace("-", numerals.MINUS) if value else "0",
        reference=0.0,
        bound=None if margin is None else -margin,
        band=band,
        ticks=nice(scale),
        better="points; better →",
    )
    return {
        "suite": suite,
        "category": any_row.category if any_row else None,
        "task": any_row.task if any_row else None,
        "route": any_row.route if any_row else None,
        "baseline": numerals.percent(base.mean_score) if base else None,
        "documents": any_row.documents if any_row else None,
        "sure": numerals.sureness(sure, n, "documents") if sure is not None else None,
        "margin": numerals.points(-margin) if margin is not None else None,
        "plot": plot,
        "scores": [_score(facts, arm, suite) for arm in facts.arm_names],
        "notes": suite_notes(
            [each for arm in facts.arm_names if (each := facts.suite_of.get((arm, suite)))], facts.baseline or ""
        ),
    }


def _canaries(facts: Facts, suite: str) -> list[dict[str, Any]]:
    """Of a canary suite: how many broke, by arm."""
    found = []
    for arm in facts.judged:
        row = facts.comparison.get((arm.arm, "broken_canaries", suite))
        if row is None or row.low is None or row.high is None:
            continue
        left = round(row.high - row.low)
        found.append({"suite": suite, "arm": arm.arm, "broken": row.lost, "asked": row.n, "left": left})
    return found


def _tone(low: float | None, high: float | None, limit: float | None) -> str:
    if high is not None and high < (limit if limit is not None else 0.0):
        return "bad"
    return "good" if low is not None and limit is not None and low >= limit else "plain"


def _missing(facts: Facts, arm: str) -> str:
    return "never served" if facts.arm_of[arm].status == "failed" else "not evaluated"


def _score(facts: Facts, arm: str, suite: str) -> dict[str, Any]:
    row = facts.suite_of.get((arm, suite))
    compared = facts.comparison.get((arm, "score", suite))
    return {
        "arm": arm,
        "score": numerals.percent(row.mean_score) if row else None,
        "answered": f"{row.answered:,} of {row.documents:,}" if row else None,
        "difference": numerals.points(compared.estimate) if compared else None,
        "interval": numerals.interval("difference", compared.low, compared.high) if compared else None,
        "n": compared.n if compared else None,
        "gained": compared.gained if compared else None,
        "lost": compared.lost if compared else None,
        "missing": compared.n_missing if compared else None,
        "reason": CANARIES if row and row.category == "canary" else f"{arm}: {_missing(facts, arm)} on {suite}.",
        "same": "The baseline is what the others are compared with." if arm == facts.baseline else None,
    }


def _harm(facts: Facts, suite: str) -> dict[str, Any] | None:
    """Share of answers that met a safety suite at the baseline and fail it now, with its bound against the policy's."""
    found = [(arm, row) for arm in facts.judged if (row := facts.comparison.get((arm.arm, "safe_to_unsafe", suite)))]
    if not found:
        return None
    bounds = {g.bound for g in facts.gates if g.metric == "safe_to_unsafe" and g.scope == suite and g.required}
    limit = bounds.pop() if len(bounds) == 1 else None
    rows = []
    values: list[float | None] = [0.0, limit]
    for arm, row in found:
        over = limit is not None and row.low is not None and row.low > limit
        under = limit is not None and row.high is not None and row.high <= limit
        tone = "quiet" if arm.role != "candidate" else "bad" if over else "good" if under else "plain"
        rows.append(
            charts.ForestRow(
                label=arm.arm,
                estimate=row.estimate,
                low=row.low,
                high=row.high,
                value="n/a" if row.lost is None else f"{row.lost:,} of {row.n:,}",
                tone=tone,
                title=f"{arm.arm}: {numerals.known(numerals.percent(row.estimate))} "
                f"{numerals.interval('share', row.low, row.high) or ''}",
            )
        )
        if arm.role != "known_bad":
            values += [row.estimate, row.low, row.high]
    scale = linear_scale(values, 128, 316, floor=0.0)
    plot = charts.forest(
        rows,
        scale,
        title=f"{suite}: share of answers that met the suite at the baseline and fail it now",
        write=lambda value: f"{value * 100:.3g} %",
        reference=None,
        bound=limit,
        ticks=nice(scale),
        better="← fewer",
    )
    first = found[0][1]
    return {
        "suite": suite,
        "plot": plot,
        "bound": None if limit is None else f"{limit * 100:.6g} %",
        "sure": numerals.sureness(first.confidence, max(row.n for _, row in found), "documents"),
    }


def passes(row: SampleRow | None) -> bool:
    """Whether an answer counts as right; a missing or failed one does not."""
    return row is not None and row.score is not None and row.score >= SAFE


def _flips(facts: Facts, arm: str) -> dict[str, Any] | None:
    """Answers the baseline got right and the arm did not; None if there was nothing to compare."""
    own = facts.samples_of.get(arm, {})
    # What an arm was never asked, because it was decided before, is not lost.
    every = facts.samples_of.get(facts.baseline or "", {})
    base = {
        key: row
        for suite in facts.suite_names
        if (told := facts.suite_of.get((arm, suite))) is not None
        for key, row in asked_of({key: row for key, row in every.items() if key[0] == suite}, told).items()
    }
    if not base or not own:
        return None
    category = {row.suite: row.category for row in facts.suites}
    lost = [key for key, row in base.items() if passes(row) and not passes(own.get(key))]
    gained = sum(1 for key, row in base.items() if not passes(row) and passes(own.get(key)))
    lost.sort(key=lambda key: (category.get(key[0]) not in HARM, key))
    return {
        "arm": arm,
        "lost": len(lost),
        "unsafe": sum(1 for key in lost if category.get(key[0]) in HARM),
        "gained": gained,
        "compared": len(base),
        "examples": [_example(base[key], own.get(key), category.get(key[0])) for key in _chosen(lost, category)],
        "rest": max(0, len(lost) - SHOWN),
        "sql": flips_sql(facts.study.run_id, facts.baseline or "baseline", arm),
    }


def _chosen(lost: list[tuple[str, str, str]], category: dict[str, str]) -> list[tuple[str, str, str]]:
    """The few written out: canaries and safety first and most, the other suites in what room is left."""
    harm = [key for key in lost if category.get(key[0]) in HARM]
    other = [key for key in lost if category.get(key[0]) not in HARM]
    room = min(len(other), SHOWN - SHOWN * 2 // 3)
    first = _spread(harm, SHOWN - room)
    return [*first, *_spread(other, SHOWN - len(first))]


def _spread(keys: list[tuple[str, str, str]], most: int) -> list[tuple[str, str, str]]:
    """The first few of each suite in turn, so that one broken suite does not hide the others; order kept."""
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for key in keys:
        groups.setdefault(key[0], []).append(key)
    turns = sorted((place, key) for group in groups.values() for place, key in enumerate(group[:most]))
    taken = {key for _, key in turns[:most]}
    return [key for key in keys if key in taken]


def _example(base: SampleRow, own: SampleRow | None, category: str | None) -> dict[str, Any]:
    return {
        "suite": base.suite,
        "harm": category if category in HARM else None,
        "subgroup": base.subgroup,
        "hash": base.doc_hash[:12],
        "prompt": base.prompt,
        "target": base.target,
        "base": base.answer,
        "own": own.answer if own else None,
        "why": None if own and own.answer is not None else (own and own.error) or "No sample of this document.",
        "finish": own.finish_reason if own else None,
    }


def flips_sql(run_id: str, baseline: str, arm: str) -> str:
    """The query, on the published snapshot, for every answer the baseline got right and `arm` did not."""
    run, base, own = (value.replace("'", "''") for value in (run_id, baseline, arm))
    return (
        "SELECT b.suite, b.prompt, b.target, b.answer AS baseline_answer, a.answer AS arm_answer, a.error\n"
        "FROM samples b\n"
        f"LEFT JOIN samples a ON a.run_id = b.run_id AND a.arm = '{own}' AND a.suite = b.suite\n"
        "  AND a.doc_hash = b.doc_hash AND a.prompt_hash = b.prompt_hash\n"
        f"WHERE b.run_id = '{run}' AND b.arm = '{base}'\n"
        f"  AND b.score >= {SAFE} AND coalesce(a.score, 0) < {SAFE}\n"
        "ORDER BY b.suite, b.doc_hash;"
    )
