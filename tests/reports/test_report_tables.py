"""Figures as people read them, the charts' scales, and the Markdown and terminal tables."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from steelyard.reports import charts, markdown, numerals, terminal
from steelyard.reports.svg import Scale, fit, linear_scale, nice, ratio_scale


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, None), (math.nan, None), (0.0, "0"), (12345.6, "12,300"), (0.00123456, "0.00123"), (9.9961, "10.0"),
     (-2.5, "−2.50"), (999.6, "1,000"), (math.inf, "∞")],
)  # fmt: skip
def test_three_significant_digits(value, text):
    assert numerals.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, None), (0.0213, "21.3 ms"), (0.9994, "999 ms"), (0.9996, "1.00 s"), (1.5, "1.50 s"), (300.0, "5.00 min")],
)
def test_seconds_are_milliseconds_below_one(value, text):
    assert numerals.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1.00×"), (0.9979, "1.00×"), (12.34, "12.3×"), (0.0123, "0.0123×"), (None, None)]
)
def test_ratio(value, text):
    assert numerals.ratio(value) == text


def test_difference_is_signed_and_has_no_negative_zero():
    assert numerals.points(-0.0204) == "−2.0 pt"
    assert numerals.points(0.013) == "+1.3 pt"
    assert numerals.points(-0.00001) == "0.0 pt"


def test_interval_with_an_open_side():
    assert numerals.interval("ratio", 0.9, None) == "[0.90, ∞)"
    assert numerals.interval("ratio", None, None) is None
    assert numerals.costs(0.2, None) == "[0.200, ∞)"


def test_bound_is_written_as_it_was_chosen():
    assert numerals.bound("output_tokens_per_s", "at_least", 1.005) == "≥ 1.005×"
    assert numerals.bound("score", "margin", 0.02) == "≥ −2.0 pt"
    assert numerals.bound("safe_to_unsafe", "at_most", 0.005) == "≤ 0.5 %"


@given(st.floats(min_value=1e-9, max_value=1e12))
def test_three_digits_are_never_far_off(value):
    text = numerals.significant(value)
    assert text is not None
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.0051)


@given(st.lists(st.floats(min_value=0.01, max_value=100), min_size=1, max_size=20))
def test_ratio_scale_keeps_one_and_every_value_inside_its_box(values):
    scale = ratio_scale(values, 100, 300)
    assert not scale.clips(1.0)
    assert all(100 <= scale(value) <= 300 for value in values)
    kept = scale.ticks((1.0, 0.5, 2.0, 0.9, 1.1, 4.0, 0.25), lambda value: f"{value:g}×", 1.0)
    assert 1.0 in kept
    ends = [(scale(tick) - len(f"{tick:g}×") * 2.85, scale(tick) + len(f"{tick:g}×") * 2.85) for tick in kept]
    assert all(left[1] < right[0] for left, right in itertools.pairwise(ends))


@given(st.floats(min_value=-1, max_value=1), st.floats(min_value=1e-4, max_value=2))
def test_linear_ticks_are_few_and_inside(low, width):
    scale = linear_scale([low, low + width], 0, 100)
    ticks = nice(scale)
    assert 1 <= len(ticks) <= 6
    assert not any(scale.clips(tick) for tick in ticks)


def test_ecdf_is_thinned_and_ends_below_one_when_requests_failed():
    values = [0.01 * k for k in range(1, 1001)]
    path = charts.ecdf_path(values, 2000, Scale(0.01, 10.0, 0, 100, log=True), 0, 60)
    assert path.count("V") <= 41
    assert path.endswith("V30")
    assert charts.ecdf_path([], 10, Scale(0.1, 1, 0, 1), 0, 1) == ""


def test_chart_text_is_escaped():
    row = charts.ForestRow(label="<script>", estimate=1.0, title="<b>", value="&")
    picture = charts.forest([row], ratio_scale([1.0], 128, 300), title="<i>", write=str, reference=1.0)
    assert "<script>" not in picture
    assert "<b>" not in picture
    assert "<i>" not in picture
    assert "&lt;script&gt;" in picture


def test_estimate_off_the_scale_is_an_arrow_and_no_point():
    row = charts.ForestRow(label="x", estimate=-0.5, low=-0.6, high=-0.4)
    picture = charts.forest([row], linear_scale([0.0, 0.02], 128, 300), title="t", write=str, reference=0.0)
    assert "<circle" not in picture
    assert picture.count('class="arrow') == 1


def test_long_labels_are_cut():
    assert fit("kv-int8-per-token-head", 60) == "kv-int8-p…"
    assert fit("bf16", 60) == "bf16"


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]


def test_markdown_tables_are_rectangular_and_complete(facts):
    for table, rows in (
        (markdown.gate_table(facts.gates), facts.gates),
        (markdown.verdict_table(facts.verdicts, facts.gates), facts.verdicts),
        (markdown.trial_table(facts.trials), facts.trials),
        (markdown.suite_table(facts.suites), facts.suites),
        (markdown.comparison_table(facts.comparisons), facts.comparisons),
        (markdown.cost_table(facts.unit_costs), facts.unit_costs),
        (markdown.arm_table(facts.arms), facts.arms),
    ):
        body = cells(table)
        assert len(body) == len(rows) + 2
        assert len({len(row) for row in body}) == 1


def test_markdown_cannot_be_broken_out_of(facts):
    row = dataclasses.replace(facts.gates[0], reason="a | b\n<img src=x> [x](javascript:1) `c`")
    text = markdown.gate_table([row])
    assert len(cells(text)) == 3
    assert len(cells(text)[2]) == 8
    assert "<img" not in text
    assert "[x]" not in text.replace("\\[", "").replace("\\]", "")


def test_markdown_says_when_there_is_nothing(facts):
    assert markdown.gate_table([]) == "*No rows.*"
    blank = dataclasses.replace(facts.gates[0], estimate=None, low=None, high=None)
    assert cells(markdown.gate_table([blank]))[2][3:5] == ["n/a", "n/a"]


def test_terminal_table_shows_every_judged_arm(facts):
    stream = io.StringIO()
    table = terminal.verdict_table(facts.verdicts, facts.arms, facts.gates, facts.unit_costs)
    Console(file=stream, width=160, color_system=None).print(table)
    text = stream.getvalue()
    for row in facts.arms:
        assert (f"\n{row.arm} " in text) == (row.role != "baseline")
    assert text.index("identity") < text.index("damaged-2bit")
    gate = facts.benefit("combined")
    assert numerals.ratio(gate.estimate) in text


def test_terminal_never_reads_markup_from_a_reason(facts):
    verdict = dataclasses.replace(facts.verdicts[0], reasons=["[bold]not bold[/bold] [/nothing]"])
    stream = io.StringIO()
    table = terminal.verdict_table([verdict], facts.arms, [], [])
    Console(file=stream, width=160, color_system=None).print(table)
    assert "[bold]not bold[/bold] [/nothing]" in stream.getvalue()
    assert "not judged" in stream.getvalue()
