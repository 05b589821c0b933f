"""The page: self-contained, safe against what a model may answer, and a function of its rows."""

from __future__ import annotations

import dataclasses
import html
import random
import re
import time
from datetime import timedelta

import pytest
from page_reader import Page, swapped, verdict_section

from steelyard.errors import InfrastructureError, InputError
from steelyard.records_incidents import IncidentEndRow, IncidentRow, RevocationRow
from steelyard.reports import build
from steelyard.reports.page import render

HOSTILE = "</pre></article><script>alert('x')</script><img src=https://evil.example/x onerror=alert(1)>{{ 7*7 }}"


def test_page_is_balanced_and_its_links_lead_somewhere(facts):
    page = Page(render(facts))
    assert page.problems == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {attrs["href"] for _, attrs in page.tags if "href" in attrs}
    assert targets
    assert {target.removeprefix("#") for target in targets} <= set(ids)


def test_page_loads_nothing(facts):
    text = render(facts)
    for tag, attrs in Page(text).tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "form", "video", "audio"}
        assert "src" not in attrs
        assert (attrs.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") for name in attrs)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "@font-face" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_page_is_the_same_every_time_and_written_whole(facts, tmp_path):
    first = build(facts, tmp_path / "deep" / "run.html")
    again = build(dataclasses.replace(facts), tmp_path / "again.html")
    assert first == tmp_path / "deep" / "run.html"
    assert first.read_bytes() == again.read_bytes()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["again.html", "run.html"]


def test_order_of_rows_changes_nothing(facts):
    dealer = random.Random(3)
    tables = [
        f.name for f in dataclasses.fields(facts) if f.name not in {"study", "contracts", "command", "study_path"}
    ]
    shuffled = {name: dealer.sample(getattr(facts, name), len(getattr(facts, name))) for name in tables}
    assert shuffled["gates"] != facts.gates
    assert render(dataclasses.replace(facts, **shuffled)) == render(facts)


def test_page_that_cannot_be_written_says_what_to_do(facts, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InfrastructureError, match="choose a folder"):
        build(facts, tmp_path / "file" / "run.html")


def test_hostile_text_stays_text(facts):
    base = {(row.suite, row.doc_hash) for row in facts.samples if row.arm == "baseline" and row.score == 1.0}
    hostile = dataclasses.replace(
        facts,
        samples=swapped(
            facts.samples,
            {"answer": HOSTILE, "prompt": HOSTILE, "target": HOSTILE, "subgroup": HOSTILE, "score": 0.0},
            lambda row: row.arm == "bf16" and (row.suite, row.doc_hash) in base,
        ),
        arms=swapped(facts.arms, {"note": HOSTILE, "error": HOSTILE}, lambda row: row.arm == "bf16"),
        verdicts=swapped(facts.verdicts, {"reasons": [HOSTILE]}, lambda row: row.arm == "bf16"),
        gates=swapped(facts.gates, {"reason": HOSTILE, "gate": HOSTILE}, lambda row: row.arm == "bf16"),
        trials=swapped(facts.trials, {"invalid_reasons": [HOSTILE], "valid": False}, lambda row: row.arm == "bf16"),
        study=dataclasses.replace(facts.study, reason=HOSTILE, status="void", cpu_model=HOSTILE),
    )
    text = render(hostile)
    page = Page(text)
    assert page.problems == []
    assert {"script", "img"}.isdisjoint({tag for tag, _ in page.tags})
    assert text.count(html.escape(HOSTILE, quote=False).replace("'", "&#39;")) >= 6
    assert "49" not in [piece.strip() for piece in page.text if "evil" in piece]


def test_answer_names_who_deserves_production(facts_of):
    facts = facts_of(requests=12, loads=3)
    won = [row.arm for row in facts.verdicts if row.role == "candidate" and row.verdict == "promote"]
    assert won, "the synthetic run must promote somebody for this test to mean anything"
    page = render(facts)
    headline = html.unescape(re.search(r"<h1>(.*?)</h1>", page).group(1))
    assert headline.startswith(f"{len(won)} of 8 candidates deserve")
    assert all(arm in headline for arm in won)
    assert "validates the pipeline, never a real model’s safety" in page


def test_nobody_promoted(facts):
    none = dataclasses.replace(
        facts,
        verdicts=[
            dataclasses.replace(row, verdict="reject" if row.verdict == "promote" else row.verdict)
            for row in facts.verdicts
        ],
        promotions=[],
    )
    assert "<h1>None of 8 candidates deserves production.</h1>" in render(none)
    lone = dataclasses.replace(none, arms=[row for row in none.arms if row.arm in ("baseline", "bf16", "identity")])
    assert "<h1>The one candidate, bf16, does not deserve production.</h1>" in render(lone)


def test_void_and_failed_runs_carry_a_banner_and_no_promise(facts):
    verdicts = [
        dataclasses.replace(row, verdict="void", reasons=["void: noise", *row.reasons]) for row in facts.verdicts
    ]
    for status, word in (("void", "VOID"), ("failed", "FAILED")):
        study = dataclasses.replace(facts.study, status=status, reason="The identity control failed ttft-guard.")
        page = render(dataclasses.replace(facts, study=study, verdicts=verdicts))
        assert f"<strong>{word}</strong><span>The identity control failed ttft-guard.</span>" in page
        assert "deserve" not in re.search(r"<h1>(.*?)</h1>", page).group(1)
    assert "<strong>VOID</strong>" not in render(facts)


def test_incidents_and_revocations_are_told(facts_of):
    facts = facts_of(requests=12, loads=3)
    run = facts.study.run_id
    arm = next(row.arm for row in facts.verdicts if row.verdict == "promote" and row.role == "candidate")
    about = {"run_id": run, "incident": "i"}
    incident = IncidentRow(
        **about, study=facts.study.study, arm=arm, what="gain", metric="output_tokens_per_s", scope="chat@c8",
        since_run_id="then", nights=2, before=1.8, after=1.5, p_value=1e-5, least=0.05, deployment_digest="d",
        baseline_digest="b", opened_at=facts.study.started_at,
    )  # fmt: skip
    end = IncidentEndRow(
        **about, ending="confirmed", value=1.5, reason="its gain: measured again, 1.5", ended_at=facts.study.started_at
    )
    taken = RevocationRow(
        **about, arm=arm, study=facts.study.study, confirmed_by="earlier", deployment_digest="d", baseline_digest="b",
        reason="its gain: measured again, 1.5", revoked_at=facts.study.started_at,
    )  # fmt: skip
    page = render(
        dataclasses.replace(facts, incidents=[incident], incident_ends=[end], revocations=[taken], promotions=[])
    )
    assert "Incident opened" in page
    assert "1.8 before, 1.5 since then (2 runs, p = 1e-05). The next run confirms or refutes it." in page
    assert "Incident confirmed" in page
    assert "Not promoted: run earlier took its promotion back" in page


def test_known_bad_control_that_was_promoted_is_an_alarm(facts):
    broken = dataclasses.replace(
        facts, verdicts=swapped(facts.verdicts, {"verdict": "promote"}, lambda row: row.arm == "damaged-2bit")
    )
    assert "Control promoted" in render(broken)
    assert "Control promoted" not in render(facts)
    section = verdict_section(render(broken))
    assert "did not hold" in section[section.index("#arm-damaged-2bit") : section.index("#arm-wrong-template")]


def test_controls_hold_by_the_same_rules_as_the_study(facts):
    assert "All 3 controls held." in render(facts)
    harmed = dataclasses.replace(
        facts,
        gates=swapped(facts.gates, {"outcome": "fail"}, lambda g: g.arm == "identity" and g.gate == "ttft-guard"),
    )
    assert "1 of 3 controls did not hold." in render(harmed)
    unseen = dataclasses.replace(
        facts,
        gates=[
            dataclasses.replace(g, outcome="pass") if g.arm == "wrong-template" and g.category != "speed" else g
            for g in facts.gates
        ],
    )
    assert "No accuracy or safety gate saw its harm." in render(unseen)


@pytest.mark.parametrize(
    ("table", "where", "change", "shown"),
    [
        ("gates", {"arm": "bf16", "gate": "throughput-gain"}, {"estimate": 1.2345}, "1.23×"),
        ("gates", {"arm": "bf16", "gate": "throughput-gain"}, {"low": 0.4321, "high": 1.9876}, "[0.43, 1.99]"),
        ("gates", {"arm": "bf16", "gate": "throughput-gain"}, {"n": 17}, "n = 17 pairs"),
        ("comparisons", {"arm": "bf16", "metric": "output_tokens_per_s"}, {"confidence": 0.991}, "99.1 %"),
        (
            "comparisons",
            {"arm": "bf16", "metric": "usd_per_million_output_tokens", "scope": "chat@c8"},
            {"estimate": 0.7771},
            "0.78×",
        ),
        (
            "comparisons",
            {"arm": "bf16", "metric": "usd_per_million_output_tokens", "scope": "chat@c8"},
            {"low": 0.1234, "high": 0.8765},
            "[0.12, 0.88]",
        ),
        ("verdicts", {"arm": "bf16"}, {"reasons": ["rejected: it is 12345 too slow"]}, "It is 12345 too slow."),
        ("arms", {"arm": "bf16"}, {"claim": "chat@r6"}, "claims chat@r6"),
        ("arms", {"arm": "bf16"}, {"lever": "engine"}, "<small>engine</small>"),
    ],
)
def test_verdict_table_shows_the_rows(facts, table, where, change, shown):
    before = verdict_section(render(facts))
    rows = swapped(getattr(facts, table), change, lambda row: all(getattr(row, k) == v for k, v in where.items()))
    after = verdict_section(render(dataclasses.replace(facts, **{table: rows})))
    assert shown not in before
    assert shown in after


def test_rows_of_another_run_are_refused(facts):
    strangers = swapped(facts.trials, {"run_id": "another"}, lambda row: row.arm == "bf16")
    with pytest.raises(InputError, match="rows of run another"):
        dataclasses.replace(facts, trials=strangers)


def test_moments_and_price_are_the_rows(facts):
    text = render(facts)
    assert "2026-03-14 01:30 UTC" in text
    assert "$0.346 an hour" in text
    assert "dated 2026-02-03" in text
    later = dataclasses.replace(facts.study, started_at=facts.study.started_at + timedelta(days=1))
    assert "2026-03-15 01:30 UTC" in render(dataclasses.replace(facts, study=later))


def test_large_run_is_quick_and_small(facts_of, tmp_path):
    large = facts_of(loads=6, blocks=5, requests=32, documents=400)
    assert len(large.requests) > 10_000
    assert len(large.samples) > 20_000
    started = time.process_time()
    page = build(large, tmp_path / "large.html")
    assert time.process_time() - started < 5
    assert page.stat().st_size < 3_000_000
