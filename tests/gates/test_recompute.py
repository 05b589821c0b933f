from __future__ import annotations

import dataclasses
from datetime import date
from typing import Any

import pytest
from evidence_rows import NOW, POINTS, POLICY, RUN, SUITES, arm_row, samples, suite_row, trial
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.comparisons import RATE_BEHIND_COST, SPEED_METRICS, compare_cost, compare_speed
from steelyard.finops.price_book import Price
from steelyard.finops.unit_cost import unit_costs
from steelyard.gates.promotion import evaluate_run, promotion_refusals
from steelyard.gates.recompute import recompute_problems
from steelyard.gates.verdict import verdicts
from steelyard.quality_comparisons import compare_quality

PRICE = Price(name="box", usd_per_hour=0.36, source="an invoice", dated=date(2026, 11, 1))
ARMS = (
    arm_row("baseline", "baseline"),
    arm_row("fast"),
    arm_row("again", "identity"),
    arm_row("broken", "known_bad"),
    arm_row("down", status="failed", deployment_digest=None),
)
SERVED = ("baseline", "fast", "again", "broken")
NAMES = [arm.arm for arm in ARMS[1:]]
BLOCKS, DOCUMENTS = 3, 400


def measured() -> dict[str, Any]:
    """A small run as it would be stored: measurements, and what is computed from them."""
    speed = {"fast": 2.0}
    trials = [
        trial(
            arm, block, point=point, output_tokens_per_s=(90.0 + 7 * block) * speed.get(arm, 1.0) + index / 10,
            slo_tokens_per_s=(80.0 + 5 * block) * speed.get(arm, 1.0) + index / 10, ttft_p50_s=0.1 + index / 1000,
        )
        for block in range(BLOCKS) for point in POINTS for index, arm in enumerate(SERVED)
    ]  # fmt: skip
    scores = [float(index % 10 != 0) for index in range(DOCUMENTS)]
    wrong = [0.0 if index % 3 == 0 else score for index, score in enumerate(scores)]
    answers = [
        row
        for arm in SERVED
        for suite, _ in SUITES
        for row in samples(arm, wrong if arm == "broken" else scores, suite)
    ]  # fmt: skip
    suites = [suite_row(arm, suite, category, DOCUMENTS) for arm in SERVED for suite, category in SUITES]
    costs = unit_costs(RUN, ARMS, trials, PRICE, POLICY.confidence)
    comparisons = [
        *compare_speed(RUN, trials, arms=NAMES, confidence=POLICY.confidence),
        *compare_quality(RUN, answers, suites, arms=NAMES, confidence=POLICY.confidence),
        *compare_cost(RUN, costs, trials, arms=NAMES, confidence=POLICY.confidence),
    ]
    return {
        "blocks": 3, "arms": ARMS, "trials": trials, "suites": suites, "samples": answers, "costs": costs,
        "comparisons": comparisons, "price": PRICE,
    }  # fmt: skip


STORED = measured()


def found(**changed: Any) -> list[str]:
    return recompute_problems(RUN, POLICY, **{**STORED, **changed})


def edited(what: str, index: int, **change: Any) -> dict[str, Any]:
    rows = list(STORED[what])
    rows[index] = dataclasses.replace(rows[index], **change)
    return {what: rows}


def test_untouched_rows_agree_in_any_order_and_among_rows_of_other_runs() -> None:
    assert found() == []
    assert found(price=None) == []
    names = ("trials", "suites", "samples", "costs", "comparisons")
    assert found(**{name: list(reversed(STORED[name])) for name in names}) == []
    others = {
        name: [*STORED[name], *(dataclasses.replace(row, run_id="run-0") for row in STORED[name][:3])] for name in names
    }
    assert found(arms=(*ARMS, arm_row("stranger", run_id="run-0")), **others) == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, len(STORED["trials"]) - 1), st.sampled_from([0.5, 0.999, 1.0001, 3.0]), st.data())
def test_one_edited_rate_or_latency_of_any_trial_is_seen(index: int, factor: float, data: Any) -> None:
    metric = data.draw(st.sampled_from([*SPEED_METRICS, *RATE_BEHIND_COST.values()]))
    value = getattr(STORED["trials"][index], metric)
    assert found(**edited("trials", index, **{metric: value * factor}))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, len(STORED["samples"]) - 1), st.sampled_from([None, 0.0, 0.5, 1.0]))
def test_one_edited_score_of_any_sample_is_seen(index: int, score: float | None) -> None:
    before = STORED["samples"][index].score
    problems = found(**edited("samples", index, score=score))
    # An answer that is missing is wrong for an arm, right for the baseline: the counts of what is missing tell.
    assert bool(problems) == (score != before)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(STORED["comparisons"]) - 1), st.data())
def test_any_edited_field_of_a_comparison_is_seen(index: int, data: Any) -> None:
    row = STORED["comparisons"][index]
    column = data.draw(st.sampled_from([field.name for field in dataclasses.fields(row)]))
    value = getattr(row, column)
    if value is None:
        value = 1.0
    elif isinstance(value, str):
        value += "x"
    else:
        value = value + 1e-6
    assert found(**edited("comparisons", index, **{column: value}))


def test_missing_surplus_and_repeated_comparisons_are_named() -> None:
    rows = STORED["comparisons"]
    first = rows[0]
    name = f"{first.arm}: speed comparison of {first.metric} at {first.scope}"
    assert found(comparisons=rows[1:]) == [f"{name} is not stored"]
    assert found(comparisons=[*rows, first]) == [f"{name} is stored 2 times"]
    surplus = dataclasses.replace(first, scope="chat@c99")
    assert found(comparisons=[*rows, surplus]) == [
        f"{first.arm}: speed comparison of {first.metric} at chat@c99 is stored without measurements"
    ]
    problem = found(comparisons=[dataclasses.replace(first, estimate=9.0), *rows[1:]])
    assert len(problem) == 1
    assert problem[0].startswith(f"{name} is stored with estimate 9.0, its measurements give {first.estimate}")
    assert found(comparisons=[])


def test_trials_samples_and_suites_that_went_missing_are_seen() -> None:
    assert found(trials=STORED["trials"][1:])
    assert found(samples=STORED["samples"][1:])
    assert found(suites=STORED["suites"][1:])
    assert found(**edited("trials", 1, valid=False))
    assert found(**edited("trials", 1, started_at=NOW.replace(year=2025)))


@pytest.mark.parametrize("change", [{"usd_per_hour": 0.1}, {"output_low": 0.0}, {"slo_high": None}, {"blocks": 9}])
def test_an_edited_unit_cost_is_seen_if_the_price_is_known(change: dict[str, Any]) -> None:
    assert found(**edited("costs", 1, **change))
    assert bool(found(price=None, **edited("costs", 1, **change))) == ("usd_per_hour" in change)
    assert found(price=PRICE.model_copy(update={"usd_per_hour": 0.72}))
    assert found(costs=STORED["costs"][1:])


def test_without_exactly_one_baseline_nothing_agrees() -> None:
    assert found(arms=ARMS[1:]) == [f"run {RUN} has 0 baselines; nothing can be computed again"]
    assert found(arms=(*ARMS, arm_row("second", "baseline")))


def test_a_difference_in_the_last_bits_of_a_sum_is_no_problem() -> None:
    row = STORED["comparisons"][0]
    assert found(**edited("comparisons", 0, estimate=row.estimate * (1 + 1e-14))) == []
    assert found(**edited("comparisons", 0, estimate=row.estimate * (1 + 1e-9)))


def test_evidence_edited_below_the_comparisons_refuses_the_promotion() -> None:
    gates = evaluate_run(
        POLICY, STORED["comparisons"], run_id=RUN, arms=ARMS, load_points=POINTS, suites=SUITES
    )  # fmt: skip
    decided = verdicts(RUN, POLICY, "policy", ARMS, gates, NOW)

    def refusals(problems: list[str]) -> list[str]:
        return promotion_refusals(
            POLICY, "policy", run_id=RUN, arm="fast", arms=ARMS, load_points=POINTS, suites=SUITES,
            comparisons=STORED["comparisons"], gates=gates, verdict_rows=decided, problems=problems,
        )  # fmt: skip

    assert refusals(found()) == []
    assert refusals(found(**edited("samples", 0, score=1.0)))
    assert refusals(found(**edited("trials", 0, output_tokens_per_s=10.0)))
