"""Capacities on the page and in Markdown: figures where a search found something, reasons where it did not."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from page_reader import Page

from steelyard.capacity_comparisons import compare_capacity
from steelyard.load.capacity import Step, next_step
from steelyard.records_trials import ProbeRow
from steelyard.reports.capacity import found_capacities
from steelyard.reports.markdown import capacity_table
from steelyard.reports.page import render
from steelyard.study_capacity import CapacitySearch

SEARCH = CapacitySearch(workload="chat", lowest=2.0, highest=64.0, resolution=1.1)
TRUTH = {"baseline": 10.0, "bf16": 21.0, "identity": 10.0, "batching": 500.0, "int8-w8a8": 1.0}


def searched(run_id: str, arm: str, block: int, truth: float) -> list[ProbeRow]:
    probes: list[ProbeRow] = []
    while isinstance(step := next_step(SEARCH, probes), Step):
        probes.append(
            ProbeRow(
                run_id=run_id, arm=arm, scope=SEARCH.scope, block=block, number=len(probes), deployment_digest="d" * 64,
                position=0, rate=step.rate, started_at=datetime(2026, 11, 22, tzinfo=UTC), duration_s=2.0,
                requests=48, failed=0, error=None,
                met=48 if step.rate <= truth else 0, saturated=False, due_s=[], ttft_s=[], itl_s=[], e2e_s=[],
                output_tokens_per_s=None, lateness_p95_s=None, client_cpu_share=None, valid=True, invalid_reasons=[],
            )
        )  # fmt: skip
    return probes


@pytest.fixture
def capacity(facts: Any) -> Any:
    run_id = facts.study.run_id
    probes = [
        row
        for arm, truth in TRUTH.items()
        for block in range(3)
        for row in searched(run_id, arm, block, truth * (1 + 0.11 * block))
    ]
    compared = compare_capacity(
        run_id, probes, [SEARCH], arms=[arm for arm in TRUTH if arm != "baseline"], confidence=0.95
    )
    asked = {**json.loads(facts.study.study_json), "capacity": [SEARCH.model_dump(mode="json")]}
    study = dataclasses.replace(facts.study, study_json=json.dumps(asked))
    return dataclasses.replace(facts, study=study, probes=probes, comparisons=[*facts.comparisons, *compared])


def test_the_page_shows_every_arm_with_a_figure_or_a_reason(capacity: Any) -> None:
    html = render(capacity)
    page = Page(html)
    assert page.problems == []
    assert "Capacity at the SLO: chat@slo" in page.seen
    section = html[html.index("<h3>Capacity at the SLO") :]
    section = section[: section.index("</table>")]
    rows = re.findall(r'<tr[^>]*><th scope="row">([^<]+)</th>(.*?)</tr>', section, flags=re.DOTALL)
    of = {arm: [re.sub("<[^>]+>", "", cell).strip() for cell in cells.split("</td>")] for arm, cells in rows}
    assert set(of) == {arm.arm for arm in capacity.arms}
    assert of["bf16"][1].startswith("2.1")
    assert of["batching"][4].startswith("≥ ")
    assert of["batching"][2].endswith(", ∞)")
    assert of["int8-w8a8"][4] == "none, none, none"
    assert of["int8-w8a8"][1] == "n/a"
    assert "the SLO did not hold even at the lowest rate" in section
    never = next(arm for arm in of if arm not in TRUTH)
    assert of[never][0] == "n/a"
    assert "was not searched" in section


def test_without_a_search_there_is_no_section(facts: Any) -> None:
    assert "Capacity at the SLO" not in render(facts)


def test_markdown_has_a_line_an_arm(capacity: Any) -> None:
    text = capacity_table(capacity.probes, [SEARCH])
    assert text.count("chat@slo") == len(TRUTH)
    assert "| bf16 |" in text
    found = {row.arm: row for row in found_capacities(capacity.probes, [SEARCH])}
    assert found["int8-w8a8"].typical is None
    assert found["batching"].typical == pytest.approx(SEARCH.rates[-1])


def test_a_percentile_stands_with_its_bounds(facts: Any) -> None:
    known = {"ttft_p95_s": 0.2, "ttft_p95_low_s": 0.15, "ttft_p95_high_s": None}
    trials = [
        dataclasses.replace(row, **known) if row.arm == "bf16" else dataclasses.replace(row, itl_p95_s=None)
        for row in facts.trials
    ]
    html = render(dataclasses.replace(facts, trials=trials))
    assert "200 ms<br><small>150 ms to beyond the longest</small>" in html
    assert "too few" in html


def test_a_campaign_says_that_nobody_is_promoted_yet(facts: Any) -> None:
    policy = {**json.loads(facts.study.policy_json), "confirm": "winner"}
    asked = {**json.loads(facts.study.study_json), "candidates": [{"name": "one"}, {"name": "other"}]}
    study = dataclasses.replace(facts.study, policy_json=json.dumps(policy), study_json=json.dumps(asked))
    won = [dataclasses.replace(row, verdict="promote") if row.arm == "bf16" else row for row in facts.verdicts]
    page = Page(render(dataclasses.replace(facts, study=study, verdicts=won, promotions=[])))
    assert "1 of 8 candidates passed every gate" in page.seen
    assert "passed every gate; the winner is not confirmed yet." in page.seen
    assert "deserve production" not in page.seen
    assert "Not promoted: the winner of a campaign is confirmed first." in page.seen
