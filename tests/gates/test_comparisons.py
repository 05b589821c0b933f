from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from evidence_rows import NOW, RUN, arm_row, comparison, cost, samples, suite_row, trial
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.comparisons import (
    MAX_APART_S,
    RATE_BEHIND_COST,
    SPEED_METRICS,
    compare_cost,
    compare_speed,
    deployment_problems,
)
from steelyard.gates.policy import CostMetric
from steelyard.quality_comparisons import compare_quality
from steelyard.records import ComparisonRow


def speed(trials, metric="output_tokens_per_s", arm="fast") -> ComparisonRow:
    rows = compare_speed(RUN, trials, arms=["baseline", arm], confidence=0.95)
    assert len(rows) == len(SPEED_METRICS)
    return next(row for row in rows if row.metric == metric)


def test_speed_pairs_by_block_and_not_by_position_in_the_list() -> None:
    weather = {0: 1.0, 1: 3.0, 2: 0.5}
    trials = [trial("baseline", block, output_tokens_per_s=100 * w) for block, w in weather.items()]
    trials += [trial("fast", block, output_tokens_per_s=200 * weather[block]) for block in (2, 0, 1)]
    row = speed(trials)
    assert (row.estimate, row.n, row.n_missing) == (pytest.approx(2.0), 3, 0)
    assert row.low == pytest.approx(2.0)
    assert row.candidate_value / row.baseline_value == pytest.approx(row.estimate)
    assert (row.kind, row.category, row.scope) == ("ratio", "speed", "chat@c8")


def test_invalid_trials_and_unknown_values_are_missing_blocks() -> None:
    trials = [trial("baseline", block) for block in range(5)] + [trial("fast", block) for block in range(3)]
    trials += [trial("fast", 3, valid=False, output_tokens_per_s=9e9), trial("fast", 4, output_tokens_per_s=None)]
    row = speed(trials)
    assert (row.n, row.n_missing) == (3, 2)
    assert row.high == pytest.approx(1.0)
    assert (speed(trials, "ttft_p50_s").n, speed(trials, "ttft_p50_s").n_missing) == (4, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_trials_of_a_block_that_were_measured_far_apart_are_no_pair(sign: int) -> None:
    apart = {0: 0.0, 1: MAX_APART_S, 2: MAX_APART_S + 1, 3: 6 * 3600.0, 4: 60.0}
    trials = [trial("baseline", block) for block in apart]
    trials += [
        trial("fast", block, started_at=NOW + sign * timedelta(seconds=seconds), output_tokens_per_s=200.0,
              slo_tokens_per_s=200.0 if seconds <= MAX_APART_S else 1e6)
        for block, seconds in apart.items()
    ]  # fmt: skip
    row = speed(trials)
    assert (row.n, row.n_missing, row.candidate_value) == (3, 2, pytest.approx(200.0))
    for row in compare_cost(RUN, [cost("baseline", 1.0), cost("fast", 1.0)], trials, arms=["fast"], confidence=0.95):
        assert (row.n, row.n_missing, row.estimate) == (3, 2, pytest.approx(0.5))


def test_whole_blocks_may_be_far_apart_from_each_other() -> None:
    trials = [
        trial(arm, block, started_at=NOW + timedelta(hours=5 * block)) for arm in ("baseline", "fast")
        for block in range(3)
    ]  # fmt: skip
    assert (speed(trials).n, speed(trials).n_missing) == (3, 0)


def test_an_arm_without_trials_is_a_row_without_evidence() -> None:
    row = speed([trial("baseline", block) for block in range(3)])
    assert (row.estimate, row.low, row.high, row.n, row.n_missing) == (None, None, None, 0, 3)
    row = speed([trial("fast", block) for block in range(3)])
    assert (row.estimate, row.n, row.n_missing) == (None, 0, 3)


def test_rows_of_another_run_are_ignored_and_load_points_stay_apart() -> None:
    trials = [trial(arm, block) for arm in ("baseline", "fast") for block in range(3)]
    trials += [trial("fast", block, run="run-0", output_tokens_per_s=1e6) for block in range(3)]
    trials += [trial("fast", block, point="chat@r4", output_tokens_per_s=50.0) for block in range(3)]
    trials += [trial("baseline", block, point="chat@r4") for block in range(3)]
    rows = compare_speed(RUN, trials, arms=["fast"], confidence=0.95)
    by_point = {row.scope: row.estimate for row in rows if row.metric == "output_tokens_per_s"}
    assert by_point == {"chat@c8": pytest.approx(1.0), "chat@r4": pytest.approx(0.5)}


def test_a_collapse_to_no_goodput_is_unknown_and_still_visible() -> None:
    trials = [trial("baseline", block) for block in range(3)]
    trials += [trial("fast", block, goodput_per_s=0.0 if block == 1 else 3.0) for block in range(3)]
    row = speed(trials, "goodput_per_s")
    assert (row.estimate, row.low, row.high) == (None, None, None)
    assert row.candidate_value == pytest.approx(2.0)


def test_cost_is_the_inverse_of_the_rate_times_the_price() -> None:
    assert set(RATE_BEHIND_COST) == set(CostMetric.__args__)
    rates = ((100.0, 210.0), (90.0, 200.0), (120.0, 230.0))
    trials = []
    for block, (base, fast) in enumerate(rates):
        trials += [trial("baseline", block, slo_tokens_per_s=base), trial("fast", block, slo_tokens_per_s=fast)]
    costs = [cost("baseline", 1.0), cost("fast", 1.5)]
    rows = compare_cost(RUN, costs, trials, arms=["fast"], confidence=0.95)
    row = next(row for row in rows if row.metric == "usd_per_million_slo_tokens")
    rates_of_slo = [dataclasses.replace(each, output_tokens_per_s=each.slo_tokens_per_s) for each in trials]
    rate = speed(rates_of_slo)
    assert row.estimate == pytest.approx(1.5 / rate.estimate)
    assert (row.low, row.high) == (pytest.approx(1.5 / rate.high), pytest.approx(1.5 / rate.low))
    assert row.candidate_value / row.baseline_value == pytest.approx(row.estimate)
    assert row.baseline_value == pytest.approx(1e6 / 3600 / (100 * 90 * 120) ** (1 / 3))
    assert (row.n, row.category, row.kind) == (3, "cost", "ratio")


def test_without_a_price_there_is_no_cost() -> None:
    trials = [trial(arm, block) for arm in ("baseline", "fast") for block in range(3)]
    for costs in ([], [cost("baseline", 1.0)], [cost("fast", 1.0)]):
        for row in compare_cost(RUN, costs, trials, arms=["fast"], confidence=0.95):
            assert (row.estimate, row.low, row.high, row.n, row.n_missing) == (None, None, None, 0, 3)


def quality(base, fast, category="accuracy", metric="score") -> ComparisonRow:
    suites = [suite_row(arm, "s", category) for arm in ("baseline", "fast")]
    rows = compare_quality(
        RUN, [*samples("baseline", base, "s"), *samples("fast", fast, "s")], suites, arms=["fast"], confidence=0.95
    )
    return next(row for row in rows if row.metric == metric)


def test_quality_pairs_on_hashes_and_counts_flips() -> None:
    base = {0: 1.0, 1: 1.0, 2: 0.0, 3: 1.0, 4: 0.0}
    fast = {4: 1.0, 3: 1.0, 2: 0.0, 1: 0.0, 0: 0.0}
    row = quality(base, fast)
    assert (row.gained, row.lost, row.n, row.n_missing) == (1, 2, 5, 0)
    assert row.estimate == pytest.approx(-0.2)
    assert (row.baseline_value, row.candidate_value) == (pytest.approx(0.6), pytest.approx(0.4))
    assert (row.method, row.kind) == ("Tango score, paired", "difference")


def test_what_the_arm_lacks_is_wrong_and_what_the_baseline_lacks_never_helps() -> None:
    row = quality([1.0, 1.0, 1.0, None, None, 1.0], {0: 1.0, 1: None, 3: 1.0, 4: 0.0, 5: 1.0})
    # Lost: 1 (failed), 2 (absent), 4 (baseline unknown, counted as right).
    assert (row.gained, row.lost, row.n, row.n_missing) == (0, 3, 6, 4)


def test_what_both_lack_is_no_pair_and_a_baseline_without_scores_is_no_evidence() -> None:
    row = quality([1.0, None], [1.0, None])
    assert (row.n, row.n_missing) == (1, 1)
    for fast in ([1.0] * 9, [None] * 9):
        row = quality([None] * 9, fast)
        assert (row.estimate, row.low, row.high, row.n, row.n_missing) == (None, None, None, 0, 9)


def test_an_arm_that_answers_nothing_lost_everything() -> None:
    row = quality([1.0] * 9, [None] * 9)
    assert (row.estimate, row.lost, row.n_missing) == (-1.0, 9, 9)
    assert row.high < -0.2


def test_different_document_sets_count_as_missing() -> None:
    row = quality(dict.fromkeys(range(10), 1.0), dict.fromkeys(range(5, 15), 1.0))
    assert (row.n, row.n_missing, row.lost) == (15, 10, 5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=3, max_size=30), st.data()
)
def test_losing_any_sample_on_either_side_never_raises_the_lower_bound(pairs, data) -> None:
    base, fast = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    whole = quality(base, fast)
    side = data.draw(st.sampled_from([base, fast]))
    side[data.draw(st.integers(0, len(pairs) - 1))] = None
    cut = quality(base, fast)
    assert cut.low <= whole.low + 1e-12
    assert cut.n_missing == 1


def test_safe_to_unsafe_cannot_be_hidden_by_gains_elsewhere() -> None:
    base = [1.0] * 6 + [0.0] * 6 + [1.0] * 88
    fast = [0.0] * 6 + [1.0] * 6 + [1.0] * 88
    assert quality(base, fast, "safety").estimate == 0
    row = quality(base, fast, "safety", "safe_to_unsafe")
    assert (row.estimate, row.lost, row.gained, row.n) == (0.06, 6, 6, 100)
    assert 0.02 < row.low < 0.06 < row.high < 0.13
    assert (row.kind, row.baseline_value, row.candidate_value) == ("share", 0.06, 0.06)


def test_a_missing_safety_answer_is_unsafe() -> None:
    row = quality([1.0] * 50, [1.0] * 49 + [None], "safety", "safe_to_unsafe")
    assert (row.lost, row.n_missing) == (1, 1)


def test_an_incomplete_suite_is_no_comparison_and_accuracy_has_no_safety_share() -> None:
    both = [*samples("baseline", [1.0], "s"), *samples("fast", [1.0], "s")]
    for suites in ([suite_row("baseline", "s")], [suite_row("fast", "s")], []):
        assert compare_quality(RUN, both, suites, arms=["fast"], confidence=0.95) == []
    suites = [suite_row(arm, "s") for arm in ("baseline", "fast")]
    assert [row.metric for row in compare_quality(RUN, both, suites, arms=["fast"], confidence=0.95)] == ["score"]


def test_partial_scores_are_judged_by_betting_and_a_score_outside_the_scale_is_missing() -> None:
    row = quality([0.5] * 200, [0.5] * 200)
    assert row.method.startswith("betting")
    assert row.low < -0.02
    assert quality([1.0, 1.0], [1.0, 7.0]).n_missing == 1


def test_deployments_must_be_those_of_the_arm() -> None:
    arms = [arm_row("baseline", "baseline"), arm_row("fast")]
    assert deployment_problems(arms, [trial("fast", 0)], [suite_row("fast")]) == []
    problems = deployment_problems(arms, [trial("fast", 0)], [suite_row("fast", deployment_digest="other-weights")])
    assert len(problems) == 1
    assert "suite facts measured deployment other-weight" in problems[0]


def test_samples_and_unit_costs_must_be_of_the_deployment_of_the_arm_too() -> None:
    arms = [arm_row("baseline", "baseline"), arm_row("fast"), arm_row("down", deployment_digest=None)]
    answers, costs = samples("fast", [1.0, 0.0, 1.0]), [cost("baseline", 1.0), cost("fast", 1.0)]
    unpriced = dataclasses.replace(cost("down", 1.0), deployment_digest=None)
    assert deployment_problems(arms, [], [], answers, [*costs, unpriced]) == []
    edited = [answers[0], *(dataclasses.replace(row, deployment_digest="other") for row in answers[1:])]
    assert deployment_problems(arms, [], [], samples=edited) == [
        "fast: samples of suite facts measured deployment other, which is not the one recorded for the arm"
    ]
    for digest, text in (("other", "deployment other"), (None, "no deployment")):
        wrong = dataclasses.replace(costs[1], deployment_digest=digest)
        assert deployment_problems(arms, [], [], unit_costs=[costs[0], wrong]) == [
            f"fast: unit cost at chat@c8 measured {text}, which is not the one recorded for the arm"
        ]
    assert deployment_problems(arms[:2], [], [], unit_costs=[unpriced])
    assert deployment_problems([], [], [], unit_costs=[cost("fast", 1.0), unpriced])


def test_the_comparison_factory_of_these_tests_is_like_a_real_row() -> None:
    real = quality([1.0, 0.0], [1.0, 0.0], "safety", "safe_to_unsafe")
    assert comparison("safe_to_unsafe", "s", 0.0, 0.0, 0.1).kind == real.kind
