"""What a search came to: rows, the Pareto front, interactions, and the study that judges the winner."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
from search_rows import search_row, stack_row, stack_rows

from steelyard.records_profile import OpportunityRow
from steelyard.reports.search_page import Searched, answer, lede, lever_lines, render
from steelyard.stats.incomplete_blocks import Observation
from steelyard.study_file import load_study
from steelyard.tuning.confirm import write_confirmation
from steelyard.tuning.outcome import Measured, front_of, interaction, left_out
from steelyard.tuning.outcome import stack_rows as rows_of
from steelyard.tuning.predictions import predicted
from steelyard.tuning.stack import BASELINE, Stack
from steelyard.tuning.terms import Tried
from tests.tuning.bench import pull

NOW = datetime(2026, 11, 22, tzinfo=UTC)
LAPTOP = Path(__file__).parents[2] / "studies" / "laptop"


def seen(config: str, block: int, value: float) -> Observation:
    return Observation(config=config, stratum="chat@c8", block=block, value=value)


def test_rows_stand_beside_baseline_and_price() -> None:
    values = [seen(BASELINE, 0, 100.0), seen("a", 0, 200.0), seen(BASELINE, 1, 110.0), seen("a", 1, 210.0)]
    slow = [seen(BASELINE, 0, 0.4), seen("a", 0, 0.2), seen(BASELINE, 1, 0.4), seen("a", 1, 0.2)]
    tried = [
        Tried(1, "screen", Stack(name="a", pulls=(pull("a"),)), BASELINE, "+a", "kept", None, 2),
        Tried(1, "screen", Stack(name="b", pulls=(pull("b"),)), BASELINE, "+b", "not tried", "late", 0),
    ]
    measured = Measured(goal=values, throughput=values, latency=slow, usd_per_hour=0.36)
    one, other = rows_of("run", tried, measured)
    assert one.total == pytest.approx(math.sqrt(2.0 * 210 / 110))
    assert one.latency_ratio == pytest.approx(0.5)
    # 0.36 USD an hour are 1e-4 a second, over some 205 tokens.
    assert one.usd_per_million == pytest.approx(1e2 / math.sqrt(200 * 210))
    assert one.on_front
    assert (other.total, other.tokens_ratio, other.on_front, other.reason) == (None, None, False, "late")


def test_the_front_is_what_nothing_beats_in_everything() -> None:
    safe = stack_row("r", 1, "safe", ["a"], 2.0, answer_risk="none")
    fast = stack_row("r", 1, "fast", ["b"], 3.0, answer_risk="approximation")
    beaten = stack_row("r", 1, "beaten", ["c"], 1.5, answer_risk="rounding")
    quick = stack_row("r", 1, "quick", ["d"], 1.4, latency_ratio=0.1)
    harmful = stack_row("r", 1, "harmful", ["e"], 9.0, fate="harmful", reason="answers broke")
    assert {row.arm for row in front_of([safe, fast, beaten, quick, harmful])} == {"safe", "fast", "quick"}


def test_interaction_is_inside_over_alone() -> None:
    alone = next(row for row in stack_rows("r") if row.varied == "+batching")
    without = left_out(stack_rows("r"), "stack-1")["batching"]
    assert without is not None
    both = interaction(alone, without)
    assert both is not None
    value, low, high = both
    assert value == pytest.approx(1 / 0.35 / 3.0)
    assert low is not None
    assert high is not None
    assert low < value < high


def test_the_page_says_what_was_found_and_escapes_it() -> None:
    rows = [
        *stack_rows("r"),
        stack_row("r", 4, "odd", ["<b>odd</b>"], None, fate="failed", reason="<script>x</script>"),
    ]
    found = Searched(search=search_row("r", NOW), rows=rows, predictions=[], judged=None)
    page = render(found)
    assert answer(found) == "batching + bf16 + block_size 32: 3.75× the baseline"
    assert "Nobody has judged it yet" in lede(found)
    assert "<script>" not in page
    assert "<b>odd" not in page
    assert "flashinfer" in page
    assert {line["name"]: line["fate"] for line in lever_lines(found)}["kv-int8"] == "harmful"


def test_a_search_that_found_nothing_says_so() -> None:
    search = search_row("r", NOW, winner=None, stopped="the budget was spent")
    found = Searched(search=search, rows=[], predictions=[], judged=None)
    assert answer(found) == "No lever pays here"
    assert "The search ended early: the budget was spent." in lede(found)
    assert "Nothing was measured to its end." in render(found)


def test_predictions_are_means_over_the_load_points() -> None:
    def row(point: str, value: float | None) -> OpportunityRow:
        return OpportunityRow(
            run_id="r", name="a", load_point=point, tried_by="a", lever=None, rank=1, mechanism="", evidence="",
            predicted=value, low=value and value / 2, high=value and value * 2, reason=None, risk="none", cost_s=None,
            predicted_at=NOW,
        )  # fmt: skip

    (both,) = predicted([pull("a")], ["x", "y"], [row("x", 2.0), row("y", 8.0)])
    assert both.predicted == pytest.approx((2.0, 4.0, 8.0))
    (lacking,) = predicted([pull("a")], ["x", "y"], [row("x", 2.0), row("y", None)])
    assert lacking.predicted is None


def test_the_study_that_judges_is_the_sources_with_other_draws(tmp_path: Path) -> None:
    loaded = load_study(LAPTOP)
    rows = [
        stack_row("r", 3, "stack-1", ["bf16", "int8-w8a8"], 3.0, answer_risk="approximation",
                  change_json='{"args":{"dtype":"bfloat16"},"weights":[{"method":"int8_w8a8"}]}'),
        stack_row("r", 4, "stack-2", ["bf16"], 2.0, change_json='{"args":{"dtype":"bfloat16"}}'),
    ]  # fmt: skip
    search = search_row("r", NOW, winner="stack-1", fallback="stack-2")
    judged = load_study(write_confirmation(LAPTOP, loaded, search, rows, [], tmp_path / "tuned"))
    assert judged.study.study == "laptop-tuned"
    assert judged.study.seed != loaded.study.seed
    assert [each.name for each in judged.study.candidates] == ["tuned", "tuned-safe"]
    assert judged.study.arm("tuned").args["dtype"] == "bfloat16"
    assert judged.study.arm("tuned").weights is not None
    assert [each.name for each in judged.study.suites] == [each.name for each in loaded.study.suites]
    assert judged.policy.gates == loaded.policy.gates
    assert {each.name for each in judged.study.controls} == {each.name for each in loaded.study.controls}
    assert judged.study.profile is None
    again = load_study(write_confirmation(LAPTOP, loaded, search, rows, [], tmp_path / "again"))
    assert again.study_digest == judged.study_digest
    assert json.loads(rows[0].change_json)["weights"]
