"""What `steelyard plan` says of a study, from the rows of a recorded run."""

from __future__ import annotations

import dataclasses
import math

import pytest
from recorded_run import POLICY, STUDY, recorded
from rich.console import Console

from steelyard.cli_plan import show
from steelyard.planning import next_attempts, noise_of, plan
from steelyard.reports.facts import Facts
from steelyard.stats.power import documents_for_share, power_of_share

FACTS = recorded()
POINT = next(point.name for point in STUDY.load_points)
SPEEDS = {"baseline": (100.0, 101.0, 99.0, 100.0), "identity": (103.0, 97.0, 101.0, 99.0)}


def noisy(spread: float) -> Facts:
    """The recorded run with an identity control whose blocks scatter by about `spread` around the baseline's."""
    identity = next(arm.arm for arm in FACTS.arms if arm.role == "identity")
    trials = []
    for trial in FACTS.trials:
        if trial.arm == identity and trial.load_point == POINT:
            base = next(
                other.output_tokens_per_s for other in FACTS.trials
                if (other.arm, other.load_point, other.block) == ("baseline", POINT, trial.block)
            )  # fmt: skip
            assert base is not None
            trials.append(dataclasses.replace(trial, output_tokens_per_s=base * math.exp(spread * (-1) ** trial.block)))
        else:
            trials.append(trial)
    return dataclasses.replace(FACTS, trials=tuple(trials))


def test_noise_is_that_of_the_identity_control() -> None:
    quiet, loud = (noise_of(noisy(spread), POINT, "output_tokens_per_s") for spread in (0.01, 0.2))
    assert quiet is not None
    assert loud is not None
    assert loud == pytest.approx(20 * quiet, rel=1e-6)
    assert noise_of(FACTS, "nowhere@c1", "output_tokens_per_s") is None


def test_more_noise_needs_more_blocks_and_what_cannot_be_decided_is_a_problem() -> None:
    gate = next(gate.name for gate in POLICY.gates if gate.category == "speed")
    claims = [
        each.model_copy(update={"claim": each.claim.model_copy(update={"gain": 1.5})}) for each in STUDY.candidates
    ]
    study = STUDY.model_copy(update={"candidates": tuple(claims)})
    needs = {}
    for spread in (0.01, 0.05, 0.6):
        found = plan(study, POLICY, noisy(spread))
        needs[spread] = next(need for need in found.speed if need.gate == gate and need.load_point == POINT)
        hopeless = [problem for problem in found.problems if problem.startswith(f"gate {gate} at {POINT}")]
        enough = needs[spread].blocks is not None and needs[spread].blocks <= study.blocks  # type: ignore[operator]
        assert enough == (not hopeless)
    assert needs[0.01].blocks <= needs[0.05].blocks  # type: ignore[operator]
    assert needs[0.01].smallest < needs[0.05].smallest  # type: ignore[operator]
    assert any(gate in problem for problem in plan(study, POLICY, noisy(0.6)).problems)


def test_a_gain_that_nobody_declared_is_unknown_and_its_smallest_is_said() -> None:
    need = next(need for need in plan(STUDY, POLICY, noisy(0.02)).speed if need.arms)
    assert need.expected is None
    assert need.blocks is None
    assert need.smallest is not None
    assert need.smallest > need.bound


def test_documents_are_counted_for_the_control_and_the_most_different_arm() -> None:
    quality = plan(STUDY, POLICY, FACTS).quality
    for suite in STUDY.suites:
        mine = [need for need in quality if need.suite == suite.name]
        assert any(need.identity for need in mine)
        assert all(need.documents is None or need.documents > 0 for need in mine)


def test_it_prints_and_says_by_its_status_whether_the_study_can_decide(capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(STUDY, POLICY, noisy(0.02))
    console = Console(width=140, record=True)
    status = show(STUDY, found, console)
    text = console.export_text()
    assert POINT in text
    assert found.source in text
    assert status == (2 if found.problems else 0)
    assert all(problem in capsys.readouterr().err for problem in found.problems[:1])


def test_a_guard_that_is_the_baseline_itself_is_a_problem() -> None:
    cost = next(gate for gate in POLICY.gates if gate.category == "cost")
    tight = POLICY.model_copy(
        update={"gates": (*POLICY.gates, cost.model_copy(update={"name": "tight", "at_most": 1.0}))}
    )
    (problem,) = [each for each in plan(STUDY, tight, FACTS).problems if each.startswith("gate tight: ")]
    assert "its bound is the baseline itself, so noise breaks it in 2.5 % of nights" in problem
    assert "at_most: 1.05" in problem
    assert not any("the baseline itself" in each for each in plan(STUDY, POLICY, FACTS).problems)


def test_a_share_of_flips_is_planned_by_its_own_bound() -> None:
    """Of one flip in two hundred a bound of one in a hundred is proven by thousands of documents, not by hundreds."""
    few, many = (documents_for_share(share, 0.01, 0.95, 0.9, early=False) for share in (0.0005, 0.005))
    assert few is not None
    assert many is not None
    assert few < 700
    assert 2500 < many < 4500
    assert documents_for_share(0.01, 0.01, 0.95, 0.9) is None
    assert power_of_share(0.0, 0.02, 0.95, 300, early=False) == 1.0
    assert power_of_share(0.0, 0.02, 0.95, 100, early=False) == 0.0


def test_an_edited_limit_is_what_the_plan_reckons_with() -> None:
    suite = STUDY.suites[0]
    more = (suite.model_copy(update={"limit": 12_345}), *STUDY.suites[1:])
    needs = plan(STUDY.model_copy(update={"suites": more}), POLICY, FACTS).quality
    assert {need.declared for need in needs if need.suite == suite.name} == {12_345}
    before = {need.declared for need in plan(STUDY, POLICY, FACTS).quality if need.suite == suite.name}
    assert 12_345 not in before


def test_a_cost_guard_is_planned_for_those_who_claim_nothing_there() -> None:
    cost = next(gate for gate in POLICY.gates if gate.category == "cost")
    guard = cost.model_copy(update={"name": "guard", "at_most": 1.05, "on": "every"})
    found = plan(STUDY, POLICY.model_copy(update={"gates": (*POLICY.gates, guard)}), FACTS).speed
    places = {
        point.name for point in STUDY.load_points
        if any(each.claim.load_point != point.name for each in STUDY.candidates)
    }  # fmt: skip
    assert places
    assert {need.load_point for need in found if need.gate == "guard" and need.expected == 1.0} == places


def test_the_next_attempt_is_one_more_unless_it_was_promoted() -> None:
    first, second = (each.name for each in STUDY.candidates)
    arms = [dataclasses.replace(row, attempt={first: 3, second: None}.get(row.arm, row.attempt)) for row in FACTS.arms]
    verdict = {first: "inconclusive", second: "promote"}
    told = [dataclasses.replace(row, verdict=verdict.get(row.arm, row.verdict)) for row in FACTS.verdicts]
    assert next_attempts(STUDY, dataclasses.replace(FACTS, arms=arms, verdicts=told)) == {first: 4, second: 1}
    assert next_attempts(STUDY, dataclasses.replace(FACTS, arms=(), verdicts=())) == {first: 1, second: 1}


def test_later_attempts_need_more() -> None:
    spending = POLICY.model_copy(update={"attempts": "spend"})
    tried = [dataclasses.replace(row, attempt=9 if row.role == "candidate" else None) for row in FACTS.arms]
    once, often = (
        max(need.documents or 0 for need in plan(STUDY, spending, facts).quality if not need.identity)
        for facts in (FACTS, dataclasses.replace(FACTS, arms=tried))
    )
    assert often > once
