"""The page of a packet, for who signs: verdicts, gates, every harmful flip with both answers, subgroups, known limits.

It loads nothing and runs nothing. The packet itself stands in it as the text whose sha256 is what is signed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steelyard.digest import canonical, digest
from steelyard.quality_comparisons import SAFE, asked_of
from steelyard.records_quality import SampleRow
from steelyard.reports import numerals
from steelyard.reports.facts import Facts
from steelyard.reports.page import rendered, write
from steelyard.reports.sections.quality import HARM, passes

Key = tuple[str, str, str]


def build(facts: Facts, packet: Mapping[str, Any], out: Path) -> Path:
    """Write the page of a run's packet, whole or not at all. The same facts give the same bytes."""
    return write(render(facts, packet), out)


def render(facts: Facts, packet: Mapping[str, Any]) -> str:
    """The page as text."""
    said = packet["predicate"]
    return rendered(
        "packet.html.j2",
        study=facts.study,
        description=facts.asked.get("description"),
        digest=digest(dict(packet)),
        packet_json=canonical(dict(packet)),
        said=said,
        arms=[_arm(facts, arm.arm) for arm in facts.judged],
        flips=[each for arm in facts.judged for each in harmful(facts, arm.arm)],
        subgroups=subgroups(facts),
        limits=limits(facts),
        evidence=said["evidence"],
        baseline=facts.baseline,
        began=numerals.moment(facts.study.started_at),
    )


def _arm(facts: Facts, arm: str) -> dict[str, Any]:
    row, verdict, gates = facts.arm_of[arm], facts.verdict_of.get(arm), facts.gates_of.get(arm, [])
    reasons = verdict.reasons if verdict else []
    return {
        "arm": arm,
        "role": row.role,
        "lever": row.lever,
        "note": row.note,
        "deployment": row.deployment_digest,
        "verdict": verdict.verdict if verdict else "none",
        # The deciding one, and what no gate says; the others stand with their gates.
        "reasons": [*reasons[:1], *(each for each in reasons[1:] if not any(each.endswith(g.reason) for g in gates))],
        "gates": gates,
    }


def harmful(facts: Facts, arm: str) -> list[dict[str, Any]]:
    """Every document of a safety or canary suite that held at the baseline and does not at the arm: all of them."""
    own = facts.samples_of.get(arm, {})
    category = {row.suite: row.category for row in facts.suites}
    return [
        {
            "arm": arm, "suite": key[0], "category": category[key[0]], "subgroup": row.subgroup,
            "hash": row.doc_hash[:12], "prompt": row.prompt, "target": row.target, "base": row.answer,
            "own": own[key].answer if key in own else None,
            "why": (own[key].error if key in own else None) or "No sample of this document.",
        }
        for key, row in sorted(_asked(facts, arm).items())
        if category.get(key[0]) in HARM and passes(row) and not passes(own.get(key))
    ]  # fmt: skip


def subgroups(facts: Facts) -> list[dict[str, Any]]:
    """Of each suite whose documents have subgroups: answers that hold, by subgroup, at the baseline and at each arm."""
    found = []
    for suite in facts.suite_names:
        counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for arm in facts.judged:
            own = facts.samples_of.get(arm.arm, {})
            for key, row in _asked(facts, arm.arm).items():
                if key[0] == suite and row.subgroup is not None:
                    count = counts[row.subgroup, arm.arm]
                    count[0] += 1
                    count[1] += passes(row)
                    count[2] += passes(own.get(key))
        if counts:
            rows = [
                {"subgroup": group, "arm": arm, "n": n, "base": base, "own": own, "change": own - base}
                for (group, arm), (n, base, own) in sorted(counts.items())
            ]
            found.append({"suite": suite, "rows": rows})
    return found


def _asked(facts: Facts, arm: str) -> dict[Key, SampleRow]:
    """Baseline samples of what the arm was asked: documents it was decided before are not lost by it."""
    every = facts.samples_of.get(facts.baseline or "", {})
    return {
        key: row
        for suite in facts.suite_names
        if (told := facts.suite_of.get((arm, suite))) is not None
        for key, row in asked_of({key: row for key, row in every.items() if key[0] == suite}, told).items()
    }


def limits(facts: Facts) -> list[str]:
    """What this run cannot say, from its own rows."""
    found = []
    if "reference" in str((facts.asked.get("model") or {}).get("name", "")):
        found.append("The embedded reference model: this validates the pipeline, and no real model's safety.")
    silent = sorted(row.arm for row in facts.arms if row.status == "failed")
    if silent:
        found.append(f"Never served, so nothing is known of {', '.join(silent)}.")
    invalid = sum(not row.valid for row in facts.trials)
    if invalid:
        found.append(f"{invalid} of {len(facts.trials)} trials are invalid; they are kept, and not compared.")
    open_gates = sorted(
        {f"{row.arm}: {row.gate} at {row.scope}" for row in facts.gates if row.outcome == "inconclusive"}
    )
    if open_gates:
        found.append(f"Left open by the measurement: {'; '.join(open_gates)}.")
    short = [row for row in facts.suites if row.answered < row.documents]
    if short:
        told = ", ".join(f"{row.arm} {row.suite} {row.answered} of {row.documents}" for row in short)
        found.append(f"Suites not answered in full (an arm that is decided is asked no more): {told}.")
    if not any(row.category == "safety" for row in facts.suites):
        found.append("No safety suite was asked.")
    if facts.study.git_commit is None or facts.study.git_commit.endswith("-dirty"):
        found.append("Steelyard ran from a checkout with changes, or outside git.")
    if facts.study.submitted_by is None:
        found.append("Nobody is named who submitted the run: the conflict rule knows the study's owner only.")
    found.append(f"An answer holds at a score of {SAFE:g} or more; what a scorer does not see is not seen here.")
    return found
