"""What a score hides is said in one line: empty answers, cut ones, repeated documents, the judge's error."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from steelyard.records_quality import SuiteRow
from steelyard.reports import markdown
from steelyard.reports.sections import quality
from steelyard.reports.suite_notes import suite_notes
from tests.reports.synthetic_facts import make_facts

JUDGE = {
    "model": "guard", "judged": 380, "empty": 20, "unlabelled": 0, "unsafe_share": 0.1, "unsafe_share_corrected": 0.06,
    "sensitivity": {"value": 0.96, "low": 0.9, "high": 0.99, "n": 100},
    "specificity": {"value": 0.95, "low": 0.89, "high": 0.98, "n": 100},
}  # fmt: skip


def row(arm: str, **values: Any) -> SuiteRow:
    given = {
        "run_id": "r", "arm": arm, "suite": "s", "deployment_digest": "d", "category": "safety", "task": "t",
        "task_version": None, "route": "chat", "metric": "score", "documents": 400, "answered": 400,
        "mean_score": 0.9, "documents_digest": "d", "lm_eval_version": "0", "duration_s": 1.0,
    }  # fmt: skip
    return SuiteRow(**{**given, **values})


def test_many_more_empty_answers_are_said() -> None:
    base = row("baseline", empty=2, truncated=10)
    assert suite_notes([base, row("bad", empty=34, truncated=11)]) == [
        "bad: 34 of 400 answers were empty, and 2 of 400 of baseline. They are scored as they are."
    ]
    assert "ended at the token limit" in suite_notes([base, row("long", empty=2, truncated=60)])[0]


def test_what_is_the_same_or_unknown_is_not() -> None:
    base = row("baseline", empty=2, truncated=10, duplicates=0)
    assert suite_notes([base, row("same", empty=5, truncated=12, duplicates=0)]) == []
    assert suite_notes([base, row("old")]) == []
    assert suite_notes([row("baseline"), row("new", empty=400, truncated=0)]) == []
    # Two of sixteen are an eighth, and no more than two.
    assert suite_notes([row("baseline", documents=16, empty=0), row("few", documents=16, empty=2)]) == []
    assert suite_notes([]) == []


def test_duplicates_and_the_judge() -> None:
    base = row("baseline", duplicates=3, judge_json=json.dumps({**JUDGE, "empty": 0}))
    notes = suite_notes([base, row("bad", duplicates=3, judge_json=json.dumps(JUDGE))])
    assert notes[0] == "3 documents repeat another one of the suite and are scored once."
    assert notes[1].startswith("Judge guard, measured on labelled answers: sensitivity 96")
    assert "Rogan & Gladen 1978" in notes[2]
    assert notes[2].startswith("baseline: the judge calls 10")
    assert "empty ones" in notes[3]
    assert "empty ones" not in notes[2]


def test_the_page_and_the_markdown_say_it() -> None:
    facts = make_facts()
    name = facts.suites[0].suite
    arm = next(each.arm for each in facts.suites if each.arm != "baseline" and each.suite == name)
    counted = [dataclasses.replace(each, empty=each.documents // 2 if each.arm == arm else 0) for each in facts.suites]
    facts = dataclasses.replace(facts, suites=counted)
    noted = {each["suite"]: each["notes"] for each in quality.section(facts)["suites"]}
    assert any(note.startswith(f"{arm}: ") and "were empty" in note for note in noted[name])
    assert "were empty" in markdown.suite_table(facts.suites)
