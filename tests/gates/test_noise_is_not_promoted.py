"""The whole gate on simulated studies: speed and quality noise with known truth."""

from __future__ import annotations

import math

import numpy as np
from evidence_rows import POINTS, RUN, samples, suite_row, trial

from steelyard.comparisons import compare_speed
from steelyard.gates.evaluate import evaluate
from steelyard.gates.policy import Gate, Policy
from steelyard.gates.verdict import decide
from steelyard.quality_comparisons import compare_quality

SUITES = (("facts", "accuracy"), ("refusal", "safety"))


def policy(gain: float) -> Policy:
    return Policy(
        policy="simulated",
        gates=(
            Gate(name="faster", category="speed", metric="output_tokens_per_s", on="claimed", at_least=gain),
            Gate(name="no_slower", category="speed", metric="output_tokens_per_s", at_least=0.8),
            Gate(name="accuracy_held", category="accuracy", metric="score", margin=0.02),
            Gate(name="no_new_harm", category="safety", metric="safe_to_unsafe", at_most=0.02),
        ),
    )


def study(
    rng: np.random.Generator, rules: Policy, *, speedup: float = 1.0, loss: float = 0.0, blocks: int = 4,
    documents: int = 800, flips: float = 0.005, noise: float = 0.04,
) -> str:  # fmt: skip
    """One simulated study: lognormal noise per trial, a common factor per block, answers that flip both ways."""
    trials = []
    for block in range(blocks):
        for point in POINTS:
            weather = math.exp(rng.normal(0, 0.3))
            for arm, factor in (("baseline", 1.0), ("fast", speedup)):
                rate = 100 * weather * factor * math.exp(rng.normal(0, noise))
                trials.append(trial(arm, block, point=point, output_tokens_per_s=rate))
    answers, suites = [], []
    for name, category in SUITES:
        base = (rng.random(documents) < 0.95).astype(float)
        flipped = rng.random(documents) < flips / 2
        fast = np.where(flipped, 1 - base, base)
        fast = np.where(rng.random(documents) < loss, 0.0, fast)
        answers += samples("baseline", list(base), name) + samples("fast", list(fast), name)
        suites += [suite_row(arm, name, category, documents) for arm in ("baseline", "fast")]
    comparisons = [
        *compare_speed(RUN, trials, arms=["fast"], confidence=rules.confidence),
        *compare_quality(RUN, answers, suites, arms=["fast"], confidence=rules.confidence),
    ]
    gates = evaluate(
        rules, comparisons, run_id=RUN, arm="fast", claim=POINTS[0], load_points=POINTS, suites=SUITES
    )  # fmt: skip
    return decide(rules, gates)[0]


def shares(count: int, rules: Policy, seed: int, **truth: float) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    seen = [study(rng, rules, **truth) for _ in range(count)]  # type: ignore[arg-type]
    return {verdict: seen.count(verdict) / count for verdict in ("promote", "reject", "inconclusive")}


def test_the_baseline_against_itself_is_not_promoted_even_if_any_gain_will_do() -> None:
    # A required gain of nothing at all is the worst case: there a one-sided error of 2.5 % is all that protects.
    seen = shares(160, policy(1.0001), 1)
    assert seen["promote"] <= 0.05
    assert shares(60, policy(1.05), 2)["promote"] <= 0.02


def test_a_known_gain_is_promoted() -> None:
    assert shares(30, policy(1.05), 3, speedup=1.5)["promote"] >= 0.9


def test_a_gain_is_not_promoted_over_lost_answers() -> None:
    seen = shares(30, policy(1.05), 4, speedup=3.0, loss=0.08)
    assert seen["promote"] == 0
    assert seen["reject"] >= 0.9


def test_too_few_documents_promote_nothing_however_fast_the_arm_is() -> None:
    seen = shares(20, policy(1.05), 5, speedup=10.0, documents=10, flips=0.0)
    assert seen == {"promote": 0, "reject": 0, "inconclusive": 1}


def test_two_blocks_promote_nothing_under_a_policy_that_asks_for_three() -> None:
    assert shares(20, policy(1.05), 6, speedup=10.0, blocks=2)["promote"] == 0
