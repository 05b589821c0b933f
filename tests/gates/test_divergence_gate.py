"""The divergence screen as gates: it may reject, it never promotes, and it says which."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from evidence_rows import ARMS, NOW, POINTS, POLICY, RUN, SUITES, bad_evidence, comparison, good_evidence
from pydantic import ValidationError

from steelyard.divergence_comparisons import compare_divergence, divergence_problems, mean_share
from steelyard.gates.evaluate import evaluate
from steelyard.gates.policy import Gate, Policy
from steelyard.gates.promotion import evaluate_run
from steelyard.gates.recompute import recompute_problems
from steelyard.gates.verdict import decide, study_validity, verdicts
from steelyard.records import ComparisonRow, GateRow
from steelyard.records_quality import DivergenceRow

KL = Gate(name="close", category="divergence", metric="kl_nats", at_most=0.05)
TOP = Gate(name="same-token", category="divergence", metric="top1_agreement", at_least=0.95)
SAME = Gate(name="same-answer", category="divergence", metric="same_answer", at_least=0.5, required=False)
SCREENED = Policy(policy="screened", min_blocks=3, gates=(*POLICY.gates, KL, TOP, SAME))


def row(arm: str = "fast", prompt: int = 0, **values: Any) -> DivergenceRow:
    base: dict[str, Any] = {
        "run_id": RUN, "arm": arm, "suite": "facts", "doc_hash": f"{prompt:064x}", "prompt_hash": f"{prompt:064x}",
        "deployment_digest": f"digest-{arm}", "baseline_digest": "digest-baseline", "answer_hash": "a", "tokens": 8,
        "top_k": 20, "covered": 1.0, "bounded": 0, "kl_nats": 0.01, "kl_nats_max": 0.02, "top1_agreement": 1.0,
        "same_answer": True, "first_divergent_token": None, "error": None,
    }  # fmt: skip
    return DivergenceRow(**{**base, **values})


def unknown(prompt: int, arm: str = "fast") -> DivergenceRow:
    nothing: dict[str, Any] = dict.fromkeys(
        ("covered", "bounded", "kl_nats", "kl_nats_max", "top1_agreement", "same_answer")
    )
    return row(arm, prompt, error="HTTP 400", **nothing)


def compared(*rows: DivergenceRow, arms: tuple[str, ...] = ("fast",)) -> dict[str, ComparisonRow]:
    return {each.metric: each for each in compare_divergence(RUN, rows, arms=arms, confidence=0.95)}


def judged(*rows: ComparisonRow, gate: Gate = KL) -> GateRow:
    asked = {"run_id": RUN, "arm": "fast", "claim": POINTS[0], "load_points": POINTS, "suites": SUITES}
    (only,) = [each for each in evaluate(SCREENED, rows, **asked) if each.gate == gate.name]
    return only


def nats(estimate: float | None, low: float | None, high: float | None, **values: Any) -> ComparisonRow:
    base = {"category": "divergence", "kind": "nats", "n": 64}
    return dataclasses.replace(comparison("kl_nats", "prompts", estimate, low, high), **{**base, **values})


def share(metric: str, estimate: float, low: float, high: float) -> ComparisonRow:
    found = comparison(metric, "prompts", estimate, low, high)
    return dataclasses.replace(found, category="divergence", kind="share", n=64)


def test_three_comparisons_over_the_prompts_by_hand() -> None:
    rows = [row(prompt=n, kl_nats=0.02 * n, top1_agreement=1 - n / 10, same_answer=n > 1) for n in range(4)]
    found = compared(*rows, row("other"), dataclasses.replace(rows[0], run_id="another"))
    assert list(found) == ["kl_nats", "top1_agreement", "same_answer"]
    assert {each.scope for each in found.values()} == {"prompts"}
    assert {each.kind for each in found.values()} == {"nats", "share"}
    assert {each.baseline_value for each in found.values()} == {None}
    kl, top, same = found.values()
    assert kl.estimate == pytest.approx(0.03)
    assert top.estimate == pytest.approx(0.85)
    assert (same.estimate, same.lost, same.n) == (0.5, 2, 4)
    for each in found.values():
        assert each.low is not None
        assert each.high is not None
        assert each.low <= (each.estimate or 0) <= each.high
    assert 0 <= (top.low or 0) < (top.high or 0) <= 1


def test_what_is_missing_is_counted_and_an_arm_that_was_not_asked_is_not_compared() -> None:
    found = compared(row(), row(prompt=1), unknown(2))
    assert {(each.n, each.n_missing) for each in found.values()} == {(2, 1)}
    blind = compared(unknown(0), unknown(1))
    assert {(each.n, each.n_missing, each.estimate, each.low, each.high) for each in blind.values()} == {
        (0, 2, None, None, None)
    }
    assert compared(row("other")) == {}


def test_a_mean_of_shares_keeps_to_its_range_at_both_ends() -> None:
    for shares in ([1.0] * 64, [0.0] * 64):
        found = mean_share(shares, 0.95)
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= shares[0] <= found.high <= 1
        assert found.high - found.low > 0.05
    assert mean_share([], 0.95).value is None


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.06, 0.2, "fail"), (0.05, 0.2, "pass"), (0.01, 0.2, "pass"), (0.0, None, "pass"), (0.06, None, "fail")],
)
def test_only_a_proven_divergence_fails(low: float, high: float | None, outcome: str) -> None:
    found = judged(nats(0.1, low, high))
    assert found.outcome == outcome
    assert (found.benefit, found.required) == (False, True)
    assert ("proven above the 0.05 nats a token of the policy" in found.reason) is True
    assert ("not proven" in found.reason) is (outcome == "pass")


@pytest.mark.parametrize(("low", "high", "outcome"), [(0.8, 0.94, "fail"), (0.8, 0.95, "pass"), (0.96, 1.0, "pass")])
def test_a_share_fails_only_below_its_bound(low: float, high: float, outcome: str) -> None:
    found = judged(share("top1_agreement", (low + high) / 2, low, high), gate=TOP)
    assert found.outcome == outcome
    assert "% of the policy" in found.reason


@pytest.mark.parametrize(
    "evidence",
    [
        [], [nats(None, None, None, n=0)], [nats(0.1, None, None)], [nats(0.1, 0.2, 0.3)],
        [nats(0.1, 0.0, 0.2, n_missing=2)],
        [nats(0.1, 0.0, 0.2, n=0)], [nats(0.1, 0.0, 0.2, kind="ratio")], [nats(0.1, 0.0, 0.2, confidence=0.9)],
        [nats(0.1, 0.0, 0.2)] * 2,
    ],
)  # fmt: skip
def test_without_evidence_it_is_inconclusive(evidence: list[ComparisonRow]) -> None:
    found = judged(*evidence)
    assert found.outcome == "inconclusive"
    assert found.reason.startswith("no evidence on KL divergence from the baseline")


def test_one_missing_prompt_of_sixty_four_is_evidence() -> None:
    assert judged(nats(0.1, 0.0, 0.2, n=63, n_missing=1)).outcome == "pass"
    assert "1 more could not be compared" in judged(nats(0.1, 0.0, 0.2, n=63, n_missing=1)).reason


def evidence(arm: str = "fast", gain: float = 1.5, low: float = 0.0, high: float = 0.99) -> list[ComparisonRow]:
    found = [
        nats(max(low, 0.01), low, None), share("top1_agreement", 0.98 if high > 0.98 else high, 0.5, high),
        share("same_answer", 0.9, 0.8, 0.95),
    ]  # fmt: skip
    return [*good_evidence(arm, gain), *(dataclasses.replace(each, arm=arm) for each in found)]


def verdict(rows: list[ComparisonRow], policy: Policy = SCREENED) -> tuple[str, list[str]]:
    asked = {"run_id": RUN, "arm": "fast", "claim": POINTS[0], "load_points": POINTS, "suites": SUITES}
    return decide(policy, evaluate(policy, rows, **asked))


def test_it_rejects_what_all_other_gates_would_promote() -> None:
    assert verdict(evidence())[0] == "promote"
    word, reasons = verdict(evidence(low=0.06))
    assert word == "reject"
    assert reasons[0].startswith("rejected: KL divergence from the baseline was")
    assert verdict(evidence(high=0.9))[0] == "reject"


def test_it_never_promotes_what_shows_no_gain_and_missing_evidence_does_not_pass() -> None:
    assert verdict(evidence(gain=1.0))[0] != "promote"
    assert verdict(good_evidence())[0] == "inconclusive"
    aside = Policy(policy="aside", min_blocks=3, gates=(*POLICY.gates, SAME))
    assert verdict(good_evidence(), aside)[0] == "promote"


def test_it_counts_for_none_of_the_gates_a_policy_must_have() -> None:
    for missing, what in (
        ("speed", "asks for a gain"),
        ("accuracy", "no required accuracy"),
        ("safety", "no required safety"),
    ):
        gates = [gate for gate in POLICY.gates if gate.category != missing]
        with pytest.raises(ValidationError, match=what):
            Policy(policy="p", gates=(*gates, KL, TOP))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"metric": "kl_nats", "at_least": 0.1}, "not bounded by at_least"),
        ({"metric": "top1_agreement", "at_most": 0.9}, "not bounded by at_most"),
        ({"metric": "same_answer", "margin": 0.1}, "not bounded by margin"),
        ({"metric": "same_answer", "at_least": 1.2}, "a share is 1 at most"),
        ({"metric": "kl_nats", "at_most": 0.1, "on": "claimed"}, "all prompts"),
        ({"metric": "score", "margin": 0.1}, "no divergence metric"),
        ({"metric": "kl_nats", "at_most": 0.1, "category": "speed"}, "no speed metric"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Gate(**{"name": "g", "category": "divergence", **change})


def test_an_identity_that_fails_the_screen_voids_and_a_known_bad_must_be_seen_by_the_suites() -> None:
    def problems(identity: list[ComparisonRow], broken: list[ComparisonRow]) -> list[str]:
        rows = [*evidence("fast"), *identity, *broken]
        gates = evaluate_run(SCREENED, rows, run_id=RUN, arms=ARMS, load_points=POINTS, suites=SUITES)
        return study_validity(verdicts(RUN, SCREENED, "p", ARMS, gates, NOW), gates, ARMS)

    screen = [dataclasses.replace(each, arm="broken") for each in evidence("broken")[-3:]]
    seen = [*bad_evidence("broken"), *screen]
    assert problems(evidence("again", gain=1.0), seen) == []
    (noisy,) = problems(evidence("again", gain=1.0, low=0.06), seen)
    assert "again failed close" in noisy
    (blind,) = problems(evidence("again", gain=1.0), evidence("broken", low=0.06))
    assert "was not rejected by an accuracy or safety gate" in blind


def test_comparisons_are_computed_again_from_the_rows() -> None:
    rows = [row(prompt=n, kl_nats=0.01 * (n + 1)) for n in range(8)]
    stored = compare_divergence(RUN, rows, arms=("fast", "again", "broken"), confidence=0.95)

    def found(divergences: list[DivergenceRow], comparisons: list[ComparisonRow]) -> list[str]:
        return recompute_problems(
            RUN, SCREENED, blocks=3, arms=ARMS, trials=(), suites=(), samples=(), costs=(), comparisons=comparisons,
            price=None, divergences=divergences,
        )  # fmt: skip

    assert found(rows, stored) == []
    assert found(list(reversed(rows)), stored) == []
    (edited,) = found([dataclasses.replace(rows[0], kl_nats=0.5), *rows[1:]], stored)
    assert edited.startswith("fast: divergence comparison of kl_nats at prompts is stored with")
    assert len(found([], stored)) == len(stored) == 3


def test_rows_of_another_deployment_are_named() -> None:
    good = [row(), row("broken")]
    assert divergence_problems(ARMS, good) == []
    bad = [row(deployment_digest="else"), row("broken", baseline_digest="old"), row("stranger")]
    problems = divergence_problems(ARMS, bad)
    assert [each.split(":")[0] for each in problems] == ["broken", "fast", "stranger"]
