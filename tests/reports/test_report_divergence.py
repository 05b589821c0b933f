"""The divergence screen in page, Markdown and terminal: figures where they are known, reasons where they are not."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from page_reader import Page
from rich.console import Console

from steelyard.divergence_comparisons import compare_divergence
from steelyard.gates.evaluate import evaluate
from steelyard.gates.policy import Gate, Policy
from steelyard.records_quality import DivergenceRow
from steelyard.reports import markdown, numerals, terminal
from steelyard.reports.divergence import screened
from steelyard.reports.page import render

GATE = Gate(name="screen", category="divergence", metric="kl_nats", at_most=0.05)
TOP = Gate(name="top", category="divergence", metric="top1_agreement", at_least=0.95)


def rows_of(facts, arm, kl, same=12, unknown=0):
    """Sixteen prompts: the first `unknown` without figures, the last `same` answered alike."""
    known = [n >= unknown for n in range(16)]
    alike = [n >= 16 - same for n in range(16)]
    return [
        DivergenceRow(
            run_id=facts.study.run_id, arm=arm, suite="facts", doc_hash=f"{n:064x}", prompt_hash=f"{n:064x}",
            deployment_digest="d" * 64, baseline_digest="b" * 64, answer_hash="a" * 64, tokens=8, top_k=20,
            covered=0.98 if known[n] else None, bounded=0 if known[n] else None,
            kl_nats=kl * (1 + n % 3) if known[n] else None, kl_nats_max=kl * 4 if known[n] else None,
            top1_agreement=0.9 if known[n] else None, same_answer=alike[n] if known[n] else None,
            first_divergent_token=2 + n if known[n] and not alike[n] else None,
            error=None if known[n] else "HTTP 400: <too> long",
        )
        for n in range(16)
    ]  # fmt: skip


@pytest.fixture
def screen(facts):
    """The run of the conftest with a screen of three arms, one of which could not be asked at all."""
    rows = [
        *rows_of(facts, "bf16", 0.2), *rows_of(facts, "identity", 0.0, same=16),
        *rows_of(facts, "int8-w8a8", 0.1, unknown=16),
    ]  # fmt: skip
    names = [arm.arm for arm in facts.judged]
    compared = compare_divergence(facts.study.run_id, rows, arms=names, confidence=0.95)
    policy = Policy.model_construct(policy="screen", gates=(GATE, TOP))
    gates = [
        gate
        for arm in ("bf16", "identity", "int8-w8a8")
        for gate in evaluate(
            policy, compared, run_id=facts.study.run_id, arm=arm, claim=None, load_points=[], suites=[]
        )
    ]
    return dataclasses.replace(
        facts, divergences=rows, comparisons=[*facts.comparisons, *compared], gates=[*facts.gates, *gates]
    )


def cells(page: str, arm: str) -> list[str]:
    table = page.split("Divergence from the baseline")[1].split("</table>", maxsplit=1)[0]
    line = next(each for each in table.split("<tr>") if f'<th scope="row">{arm}</th>' in each)
    return [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", line, flags=re.DOTALL)]


def test_the_page_has_one_compact_table(screen):
    page = render(screen)
    assert Page(page).problems == []
    kl, interval, largest, top, same, first, prompts, outcome = cells(page, "bf16")
    assert kl == "0.388"
    assert interval.startswith("[")
    assert (largest, top, same, first, prompts, outcome) == ("0.800", "90.0 %", "12 of 16", "3.50", "16", "fail")
    assert cells(page, "identity")[0] == "0"
    assert cells(page, "identity")[5] == "none differs"
    assert cells(page, "int8-w8a8")[:2] == ["n/a", "n/a"]
    assert cells(page, "int8-w8a8")[-2:] == ["0 of 16", "inconclusive"]
    assert "HTTP 400: &lt;too&gt; long" in page
    assert "never promote" in page
    assert "above the 0.05 nats a token of the policy" in page


def test_a_run_without_a_screen_does_not_speak_of_one(facts):
    assert "Divergence from the baseline" not in render(facts)


def test_a_screen_that_was_asked_for_and_not_made_says_so(facts):
    asked = facts.study.study_json.replace("{", '{"divergence": {"prompts": 8}, ', 1)
    page = render(dataclasses.replace(facts, study=dataclasses.replace(facts.study, study_json=asked)))
    assert "no arm was screened" in page


def test_figures_in_their_own_unit():
    assert numerals.of_kind("nats", 0.01234) == "0.0123 nats"
    assert numerals.interval("nats", 0.01, None) == "[0.0100, n/a]"
    assert numerals.bound("kl_nats", "at_most", 0.05) == "≤ 0.05 nats"
    assert numerals.bound("top1_agreement", "at_least", 0.95) == "≥ 95 %"


def test_markdown_and_terminal_show_the_same_rows(screen):
    text = markdown.divergence_table(screen.divergences, screen.arms)
    assert text.splitlines()[2].startswith("| bf16 | 0.388 | 0.800 | 90.0 % | 12 of 16 | 3.50 | 16 |")
    assert "| int8-w8a8 | n/a | n/a | n/a | n/a | n/a | 0 of 16 |" in text
    assert markdown.divergence_table([]) == "*No rows.*"
    assert "0.388 nats" in markdown.comparison_table(screen.comparisons)
    out = io.StringIO()
    Console(file=out, width=140).print(terminal.divergence_table(screen.divergences, screen.arms))
    shown = out.getvalue()
    assert "Divergence from the baseline" in shown
    for figure in ("0.388", "12 of 16", "none differs", "0 of 16"):
        assert figure in shown


def test_candidates_come_first_and_an_arm_without_a_role_last(screen):
    order = [each.arm for each in screened(screen.divergences, screen.arms)]
    assert order == ["bf16", "int8-w8a8", "identity"]
    strange = dataclasses.replace(screen.divergences[0], arm="another")
    assert [each.arm for each in screened([strange, *screen.divergences], screen.arms)][-1] == "another"
