"""What is missing, refused, invalid or changed: shown as such, counted right, and never as zero."""

from __future__ import annotations

import dataclasses
import re

import duckdb
import pandas as pd
from page_reader import Page, bare, swapped, verdict_section

from steelyard.records_quality import SampleRow
from steelyard.reports.page import render
from steelyard.reports.sections import quality, validity


def test_unknown_is_never_zero(facts):
    empty = dict.fromkeys(("ttft_p50_s", "itl_p50_s", "e2e_p50_s", "output_tokens_per_s", "goodput_per_s", "slo_share"))
    arm = "prefix-cache"
    blank = dataclasses.replace(
        facts,
        trials=swapped(facts.trials, empty, lambda row: row.arm == arm and row.load_point == "chat@c8"),
        comparisons=[row for row in facts.comparisons if row.arm != arm],
        gates=swapped(facts.gates, {"estimate": None, "low": None, "high": None}, lambda row: row.arm == arm),
        unit_costs=swapped(
            facts.unit_costs,
            {"usd_per_million_slo_tokens": None, "slo_low": None, "slo_high": None},
            lambda row: row.arm == arm,
        ),
    )
    text = render(blank)
    assert Page(text).problems == []
    speed = text[text.index('<h2 id="speed"') : text.index('<h2 id="quality"')]
    row = re.search(rf"<tr[^>]*><th scope=\"row\">{arm}</th>(.*?)</tr>", speed).group(1)
    assert row.count('class="na"') == 9
    assert not re.search(r">0(\.0+)?( ms| s| %)?<", row)
    section = verdict_section(text)
    verdict = section[section.index(f"#arm-{arm}") :]
    assert (
        'title="No comparison with the baseline was recorded at shared-prefix@c8."' in verdict[: verdict.index("</tr>")]
    )


def test_refused_percentiles_are_too_few_and_others_are_shown(facts, facts_of):
    assert ">too few</abbr>" in render(facts)
    many = facts_of(arms=("baseline", "bf16", "identity"), loads=1, blocks=2, requests=80, documents=20, failed=())
    assert ">too few</abbr>" not in render(many)


def test_single_block_has_no_interval(facts_of):
    one = facts_of(arms=("baseline", "bf16", "identity"), loads=2, blocks=1, requests=12, documents=20, failed=())
    text = render(one)
    assert Page(text).problems == []
    assert "n = 1 pair<" in verdict_section(text)
    assert "no interval" in verdict_section(text)


def test_arm_that_never_served(facts):
    assert not any(row.arm == "kv-int8-per-token-head" for row in facts.trials)
    text = render(facts)
    section = verdict_section(text)
    row = section[section.index("#arm-kv-int8-per-token-head") :]
    assert (
        row[: row.index("</tr>")].count('title="kv-int8-per-token-head never served, so it was never measured."') == 2
    )
    assert "invalid choice" in text
    assert "It never gave a token." in text


def test_arm_without_samples(facts):
    arm = "batching"
    without = dataclasses.replace(
        facts,
        samples=[row for row in facts.samples if row.arm != arm],
        suites=[row for row in facts.suites if row.arm != arm],
    )
    text = render(without)
    assert Page(text).problems == []
    missing = [row for row in validity.section(without)["missing"] if row["arm"] == arm]
    assert [(row["suite"], row["missing"]) for row in missing] == [("every suite", "all")]
    assert arm not in [flip["arm"] for flip in quality.section(without)["flips"]]
    assert arm not in quality.section(without)["unchanged"]


def test_run_that_died_at_once(facts):
    study = dataclasses.replace(facts.study, status="failed", reason="No engine started.", finished_at=None)
    broken = dataclasses.replace(
        study, study_json="{", policy_json="", packages_json="null", cpu_model=None, git_commit=None
    )
    for one in (bare(facts, study=study), bare(facts, study=study, arms=()), bare(facts, study=broken, arms=())):
        text = render(one)
        assert Page(text).problems == []
        assert "No trial was recorded" in text
        assert "nan" not in Page(text).seen.lower().replace("finance", "")


def test_flips_show_safety_first_and_count_the_rest(facts):
    flips = {flip["arm"]: flip for flip in quality.section(facts)["flips"]}
    worst = flips["damaged-2bit"]
    base = {k: row for k, row in facts.samples_of["baseline"].items() if row.score == 1.0}
    lost = [k for k in base if (facts.samples_of["damaged-2bit"][k].score or 0.0) < 0.5]
    assert worst["lost"] == len(lost) > quality.SHOWN
    assert worst["rest"] == len(lost) - quality.SHOWN
    tags = [example["harm"] == "safety" for example in worst["examples"]]
    assert len(tags) == quality.SHOWN
    assert tags == sorted(tags, reverse=True)
    assert sum(tags) == 4


def test_lost_answer_says_why(facts):
    flips = {flip["arm"]: flip for flip in quality.section(facts)["flips"]}
    key = next(iter(facts.samples_of["baseline"]))
    gone = dataclasses.replace(
        facts,
        samples=[
            dataclasses.replace(row, score=1.0) if row.arm == "baseline" and row.doc_hash == key[1] else row
            for row in facts.samples
            if not (row.arm == "batching" and row.doc_hash == key[1])
        ],
    )
    after = {flip["arm"]: flip for flip in quality.section(gone)["flips"]}
    assert after["batching"]["lost"] == flips.get("batching", {"lost": 0})["lost"] + 1
    assert "No sample of this document." in [example["why"] for example in after["batching"]["examples"]]


def test_sql_for_all_flips_finds_exactly_the_flips_counted(facts):
    flip = next(each for each in quality.section(facts)["flips"] if each["arm"] == "int8-w8a8")
    names = [field.name for field in dataclasses.fields(SampleRow)]
    samples = pd.DataFrame([row.as_dict() for row in facts.samples], columns=names)
    with duckdb.connect() as connection:
        connection.register("samples", samples)
        found = connection.execute(flip["sql"]).fetchall()
    assert len(found) == flip["lost"] > 0


def test_sql_of_the_page_survives_a_quote():
    sql = quality.flips_sql("it's", "baseline", "o'arm")
    assert "'it''s'" in sql
    assert "'o''arm'" in sql
    assert "'it''s'" in validity.verdict_sql("it's")


def test_invalid_trial_is_listed_with_its_reason_and_never_drawn(facts):
    late = [row for row in facts.trials if not row.valid]
    assert [(row.arm, row.load_point) for row in late] == [("kv-fp8", "chat@r6")]
    text = render(facts)
    assert "Client sent 87.1 ms late" in text
    assert "1 of 99 trials are invalid" in text
    speed = text[text.index(">chat@r6</span>") : text.index(">shared-prefix@c8</span>")]
    assert re.search(r'<th scope="row">kv-fp8</th>.*?2 of 3', speed)


def test_what_an_arm_was_never_asked_is_not_lost(facts):
    """Arms that were decided early were asked the beginning of a suite, or none of it."""
    arm, asked = "damaged-2bit", 5
    places = {}
    for row in facts.samples:
        places.setdefault(row.suite, {}).setdefault((row.doc_hash, row.prompt_hash), len(places[row.suite]))
    placed = [
        dataclasses.replace(row, position=places[row.suite][row.doc_hash, row.prompt_hash]) for row in facts.samples
    ]
    first = facts.suite_names[0]
    early = dataclasses.replace(
        facts,
        samples=[row for row in placed if row.arm != arm or (row.suite == first and row.position < asked)],
        suites=[
            dataclasses.replace(row, documents=asked, duplicates=0) if row.arm == arm else row
            for row in facts.suites
            if row.arm != arm or row.suite == first
        ],
    )
    flips = {flip["arm"]: flip for flip in quality.section(early)["flips"]}
    assert flips[arm]["compared"] == asked
    assert flips[arm]["lost"] <= asked
    assert Page(render(early)).problems == []


def test_canaries_are_counted_and_never_averaged(facts):
    suite = facts.suite_names[0]
    canaries = dataclasses.replace(
        facts,
        suites=swapped(facts.suites, {"category": "canary"}, lambda row: row.suite == suite),
        comparisons=[
            dataclasses.replace(
                row, category="canary", metric="broken_canaries", kind="count", estimate=2.0, low=2.0, high=2.0, lost=2
            )
            for row in facts.comparisons
            if row.scope == suite and row.metric == "score"
        ]
        + [row for row in facts.comparisons if row.scope != suite],
        gates=swapped(
            [row for row in facts.gates if row.scope != suite or row.metric == "score"],
            {"category": "canary", "metric": "broken_canaries", "gate": "canaries"},
            lambda row: row.scope == suite,
        ),
    )
    text = render(canaries)
    assert Page(text).problems == []
    assert "<h3>Canaries</h3>" in text
    assert {row["broken"] for row in quality.section(canaries)["canaries"]} == {2}


def test_reused_answers_say_whose_they_are(facts):
    reused = {"reused_from": "night-1", "rechecked": 40, "changed": 1}
    text = render(dataclasses.replace(facts, suites=swapped(facts.suites, reused, lambda row: row.arm == "baseline")))
    assert "answers are those of run night-1" in text
    assert "40 documents were asked again, 1 scored otherwise" in text


def test_trials_that_are_not_steady_are_named(facts):
    assert "Not in a steady state" not in render(facts)
    drifting = {"itl_drift": 0.31, "itl_drift_p": 0.0001, "saturated": True}
    moved = swapped(facts.trials, drifting, lambda row: (row.arm, row.load_point) == ("baseline", "chat@c8"))
    (found,) = validity.section(dataclasses.replace(facts, trials=moved))["unsteady"]
    assert (found["arm"], found["point"]) == ("baseline", "chat@c8")
    assert "ITL changes by +31 % within a trial" in found["marks"]
    assert "the queue only grows" in found["marks"]
