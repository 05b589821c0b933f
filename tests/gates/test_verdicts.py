from __future__ import annotations

import dataclasses
import json

import pytest
from evidence_rows import (
    ARMS,
    EVIDENCE,
    NOW,
    POINTS,
    POLICY,
    RUN,
    SUITES,
    arm_row,
    bad_evidence,
    comparison,
    good_evidence,
    suite_row,
)

from steelyard.gates.evaluate import claims_of
from steelyard.gates.policy import Gate
from steelyard.gates.promotion import evaluate_run, promotion_refusals
from steelyard.gates.verdict import decide, study_validity, verdicts, void
from steelyard.records import ArmRow, ComparisonRow, GateRow, VerdictRow

DIGEST = "policy-digest-0123456789"


def judge(comparisons=EVIDENCE, arms=ARMS) -> tuple[list[GateRow], list[VerdictRow]]:
    rows = evaluate_run(POLICY, comparisons, run_id=RUN, arms=arms, load_points=POINTS, suites=SUITES)
    return rows, verdicts(RUN, POLICY, DIGEST, arms, rows, NOW)


def problems(comparisons=EVIDENCE, arms=ARMS, **more) -> list[str]:
    rows, decided = judge(comparisons, arms)
    return study_validity(decided, rows, arms, **more)


def replaced(arm: str, row: ComparisonRow) -> list[ComparisonRow]:
    """The evidence with one comparison of `arm` changed."""
    row = dataclasses.replace(row, arm=arm)
    key = (row.arm, row.metric, row.scope)
    assert any((each.arm, each.metric, each.scope) == key for each in EVIDENCE)
    return [row if (each.arm, each.metric, each.scope) == key else each for each in EVIDENCE]


def served(name: str, **change: object) -> tuple[ArmRow, ...]:
    return tuple(dataclasses.replace(arm, **change) if arm.arm == name else arm for arm in ARMS)  # type: ignore[arg-type]


def test_a_good_study_promotes_its_candidate_and_believes_itself() -> None:
    _, decided = judge()
    assert {row.arm: row.verdict for row in decided} == {"fast": "promote", "again": "reject", "broken": "reject"}
    assert problems() == []
    assert void(decided, []) == decided
    row = decided[0]
    assert row.reasons[0].startswith("promoted: output tokens/s at chat@c8 rose to 1.50 times the baseline's")
    assert (row.baseline_digest, row.policy_digest, row.decided_at) == ("digest-baseline", DIGEST, NOW)


def test_guards_are_named_before_a_missing_gain_and_safety_before_accuracy() -> None:
    rows = [
        comparison("output_tokens_per_s", "chat@c8", 0.9, 0.88, 0.92),
        comparison("ttft_p50_s", "chat@c8", 1.5, 1.4, 1.6),
        comparison("score", "facts", -0.1, -0.12, -0.08, n=600),
        comparison("safe_to_unsafe", "refusal", 0.04, 0.021, 0.066, n=600, lost=24),
    ]
    kept = [row for row in good_evidence() if (row.metric, row.scope) not in {(r.metric, r.scope) for r in rows}]
    gates, _ = judge([*kept, *rows], ARMS[:2])
    result, reasons = decide(POLICY, gates)
    assert result == "reject"
    order = [
        "rejected: answers that met the safety suite refusal",
        "score of suite facts fell",
        "median TTFT at chat@c8 rose",
        "output tokens/s",
    ]
    for start, reason in zip(order, reasons, strict=False):
        assert reason.startswith(start)
    assert len(reasons) == len(gates)


def test_a_gain_that_is_not_proven_is_inconclusive_and_one_that_is_refuted_rejects() -> None:
    unsure = replaced("fast", comparison("output_tokens_per_s", "chat@c8", 1.1, 0.95, 1.3))
    assert judge(unsure)[1][0].verdict == "inconclusive"
    assert judge(unsure)[1][0].reasons[0].startswith("inconclusive: output tokens/s at chat@c8 rose to 1.10 times")
    refuted = replaced("fast", comparison("output_tokens_per_s", "chat@c8", 1.01, 1.0, 1.02))
    assert judge(refuted)[1][0].verdict == "reject"


def test_an_arm_that_did_not_serve_is_inconclusive_by_name_whatever_rows_exist() -> None:
    error = "OutOfMemory: the engine asked for 9 GiB\n  | log line"
    arms = served("fast", status="failed", error=error)
    rows, _ = judge()
    decided = verdicts(RUN, POLICY, DIGEST, arms, rows, NOW)
    assert decided[0].verdict == "inconclusive"
    assert decided[0].reasons == [
        "inconclusive: no evidence: fast did not serve: OutOfMemory: the engine asked for 9 GiB"
    ]
    assert judge(arms=arms)[1][0].verdict == "inconclusive"


@pytest.mark.parametrize(
    "change", [{"deployment_digest": None}, {"status": "failed"}, {"status": "failed", "error": " \n"}]
)
def test_without_a_baseline_nothing_is_decided(change: dict[str, object]) -> None:
    _, decided = judge(arms=served("baseline", **change))
    assert {row.verdict for row in decided} == {"inconclusive"}
    assert judge(arms=ARMS[1:])[1][0].reasons == ["inconclusive: no evidence: the run has no baseline"]
    assert problems(arms=ARMS[1:]) == ["the run has no baseline"]
    assert problems(arms=served("baseline", **change))


def test_no_gate_rows_is_no_evidence() -> None:
    decided = verdicts(RUN, POLICY, DIGEST, ARMS, [], NOW)
    assert {(row.verdict, *row.reasons) for row in decided} == {
        ("inconclusive", "inconclusive: no evidence: no gate was evaluated")
    }


def test_a_gate_that_was_not_evaluated_or_belongs_to_another_policy_never_promotes() -> None:
    rows = [row for row in judge()[0] if row.arm == "fast"]
    assert decide(POLICY, rows)[0] == "promote"
    for index, row in enumerate(rows):
        alone = sum(each.gate == row.gate for each in rows) == 1
        without = decide(POLICY, rows[:index] + rows[index + 1 :])
        assert without[0] == ("inconclusive" if alone else "promote")
        for change in ({"bound": 0.5}, {"required": not row.required}, {"gate": "invented"}):
            edited = [*rows[:index], dataclasses.replace(row, **change), *rows[index + 1 :]]
            assert decide(POLICY, edited)[0] == "inconclusive"
        assert decide(POLICY, [*rows, row])[0] == "inconclusive"


def test_an_identity_control_that_shows_a_gain_voids_the_study() -> None:
    found = problems([*good_evidence("fast"), *good_evidence("again"), *bad_evidence("broken")])
    assert found[0] == "identity control again was promoted: the baseline against itself shows a gain"
    assert found[1].startswith("identity control again passed faster: the baseline against itself measures as gain: ")
    assert len(found) == 2


def test_a_gain_of_the_identity_voids_even_where_a_guard_or_another_point_keeps_it_from_promotion() -> None:
    arms = (*ARMS, arm_row("late", claim=POINTS[1], status="failed", deployment_digest=None))
    gain = replaced("again", comparison("output_tokens_per_s", POINTS[1], 1.2, 1.1, 1.3))
    rows, decided = judge(gain, arms)
    assert next(row for row in decided if row.arm == "again").verdict == "reject"
    assert [(row.scope, row.outcome) for row in rows if (row.arm, row.gate) == ("again", "faster")] == [
        (POINTS[0], "fail"),
        (POINTS[1], "pass"),
    ]
    found = problems(gain, arms)
    assert len(found) == 1
    assert found[0].startswith("identity control again passed faster: ")
    assert POINTS[1] in found[0]
    assert problems(arms=arms) == []
    # Where no candidate claims a gain, none is looked for; gates that inform void nothing.
    assert problems(gain) == []
    cheap = comparison("usd_per_million_slo_tokens", POINTS[0], 0.5, 0.4, 0.6)
    assert problems(replaced("again", cheap)) == []


def test_the_claims_of_a_run_are_those_of_its_candidates_and_promotion_recomputes_them() -> None:
    arms = (*ARMS, arm_row("late", claim=POINTS[1]), arm_row("other", claim=POINTS[1]))
    strangers = (arm_row("stranger", run_id="run-0", claim="chat@c99"), arm_row("odd", "known_bad"))
    assert claims_of(RUN, (*strangers, *arms)) == list(POINTS)
    assert claims_of(RUN, (arm_row("none", claim=None),)) == []
    evidence = [*EVIDENCE, *good_evidence("late"), *good_evidence("other")]
    gates, decided = judge(evidence, arms)
    assert refusals(arms=arms, comparisons=evidence, gates=gates, decided=decided) == []
    first_only = [row for row in gates if (row.arm, row.gate, row.scope) != ("again", "faster", POINTS[1])]
    assert "again: gate faster at chat@r4 is not stored" in refusals(
        arms=arms, comparisons=evidence, gates=first_only, decided=decided
    )


def test_an_identity_control_that_measures_as_harm_voids_the_study_but_missing_its_gain_does_not() -> None:
    found = problems(replaced("again", comparison("score", "facts", -0.05, -0.08, -0.03, n=600)))
    assert len(found) == 1
    assert found[0].startswith(
        "identity control again failed accuracy_held: the baseline against itself measures as harm"
    )
    assert problems(replaced("again", comparison("score", "facts", -0.01, -0.05, 0.03, n=60))) == []


def test_a_known_bad_control_must_be_rejected_by_quality_and_not_by_speed() -> None:
    promoted = [*good_evidence("fast"), *good_evidence("again", gain=1.0), *good_evidence("broken")]
    assert problems(promoted) == ["known-bad control broken was promoted"]
    slow = [*good_evidence("fast"), *good_evidence("again", gain=1.0), *good_evidence("broken", gain=0.5)]
    assert judge(slow)[1][2].verdict == "reject"
    assert problems(slow) == [
        "known-bad control broken was not rejected by an accuracy or safety gate: the suites could not see known harm"
    ]


def test_a_broken_canary_alone_does_not_show_that_the_suites_can_see_harm() -> None:
    """Scored suites must refuse the known-bad control: a scorer that passes everything would otherwise go unseen."""
    policy = POLICY.model_copy(
        update={"gates": (*POLICY.gates, Gate(name="canaries", category="canary", metric="broken_canaries", at_most=0))}
    )
    canaries = comparison(
        "broken_canaries", "canaries", 3.0, 3.0, 3.0, arm="broken", n=20, category="canary", kind="count"
    )
    suites = (*SUITES, ("canaries", "canary"))
    blind = [*good_evidence("broken"), canaries]
    gates = evaluate_run(policy, blind, run_id=RUN, arms=ARMS, load_points=POINTS, suites=suites)
    told = verdicts(RUN, policy, "p", ARMS, gates, NOW)
    assert next(row.verdict for row in told if row.arm == "broken") == "reject"
    assert any("known-bad control broken was not rejected" in each for each in study_validity(told, gates, ARMS))


@pytest.mark.parametrize("name", ["again", "broken"])
def test_a_control_that_did_not_serve_controls_nothing(name: str) -> None:
    found = problems(arms=served(name, status="failed", error="Hung: no token in 60 s"))
    assert len(found) == 1
    assert f"{name} did not serve: Hung" in found[0]


def test_the_identity_control_must_exist_and_be_the_baseline() -> None:
    assert problems(arms=(*ARMS[:2], ARMS[3])) == ["no identity control ran, so the noise of the study is not known"]
    assert problems(arms=served("again", deployment_digest="something-else")) == [
        "identity control again is not the deployment the baseline is"
    ]


def test_a_baseline_that_leaves_documents_unanswered_voids_the_study() -> None:
    whole, holes = (
        suite_row("baseline", documents=600, answered=590),
        suite_row("baseline", documents=600, answered=580),
    )
    assert problems(suites=[whole, suite_row("fast", documents=600, answered=1)]) == []
    assert problems(suites=[holes]) == ["the baseline answered 580 of 600 documents of suite facts"]


def test_void_keeps_the_original_reasons_after_its_own() -> None:
    _, decided = judge()
    voided = void(decided, ["first", "second"])
    assert {row.verdict for row in voided} == {"void"}
    assert voided[0].reasons == ["void: first", "second", *decided[0].reasons]
    assert void(voided, ["first", "second"]) == voided


def refusals(arm="fast", *, policy_digest=DIGEST, arms=ARMS, comparisons=EVIDENCE, gates=None, decided=None, **more):
    stored_gates, stored = judge()
    return promotion_refusals(
        POLICY, policy_digest, run_id=RUN, arm=arm, arms=arms, load_points=POINTS, suites=SUITES,
        comparisons=comparisons, gates=stored_gates if gates is None else gates,
        verdict_rows=stored if decided is None else decided, **more,
    )  # fmt: skip


def test_what_was_promoted_may_be_promoted() -> None:
    assert refusals() == []


def test_a_candidate_that_crashed_does_not_hold_up_another_that_did_not() -> None:
    arms = (*ARMS, arm_row("crashed", status="failed", error="CrashedAtStart: bad kernel", deployment_digest=None))
    gates, decided = judge(arms=arms)
    assert [row.verdict for row in decided] == ["promote", "reject", "reject", "inconclusive"]
    assert {row.outcome for row in gates if row.arm == "crashed"} == {"inconclusive"}
    assert refusals(arms=arms, gates=gates, decided=decided) == []
    assert refusals("crashed", arms=arms, gates=gates, decided=decided)


def test_a_rejected_candidate_or_a_control_may_not() -> None:
    assert "again is a control (identity); only candidates are promoted" in refusals("again")
    assert "the stored verdict is reject" in refusals("broken")
    assert "holds 0 verdicts on nobody" in refusals("nobody")[0]


def test_stale_policies_and_deployments_refuse() -> None:
    assert any("made under policy policy-diges" in each for each in refusals(policy_digest="newer"))
    assert "fast is not the deployment that was judged" in refusals(arms=served("fast", deployment_digest="rebuilt"))
    moved = served("baseline", deployment_digest="moved")
    assert "the baseline is not the deployment that was judged" in refusals(arms=moved)


def test_a_forged_verdict_refuses() -> None:
    gates, decided = judge()
    forged = [dataclasses.replace(row, verdict="promote") for row in decided]
    weak = replaced("fast", comparison("output_tokens_per_s", "chat@c8", 1.1, 0.95, 1.3))
    weak_gates, weak_verdicts = judge(weak)
    forged = [dataclasses.replace(weak_verdicts[0], verdict="promote"), *weak_verdicts[1:]]
    found = refusals(comparisons=weak, gates=weak_gates, decided=forged)
    assert len(found) == 1
    assert found[0].startswith("evaluated again from the stored comparisons, fast is not promoted: inconclusive")
    assert refusals(comparisons=weak, gates=gates, decided=decided)


def test_edited_missing_and_surplus_rows_refuse() -> None:
    gates, decided = judge()
    assert "fast: gate faster at chat@c8 is not stored" in refusals(gates=gates[1:])
    edited = [dataclasses.replace(gates[0], low=0.0), *gates[1:]]
    assert any(
        "is stored as pass, its comparison gives pass or other figures" in each for each in refusals(gates=edited)
    )
    extra = dataclasses.replace(gates[0], scope="chat@c99")
    assert "fast: gate faster at chat@c99 is stored without evidence" in refusals(gates=[*gates, extra])
    assert "a gate is stored twice" in refusals(gates=[*gates, gates[0]])
    rewritten = [dataclasses.replace(decided[0], reasons=["promoted: trust me"]), *decided[1:]]
    assert refusals(decided=rewritten) == ["the stored reasons are not those that the stored comparisons give"]
    assert refusals(decided=[*decided, decided[0]])
    used = {(row.arm, row.metric, row.scope) for row in gates}
    for index, row in enumerate(EVIDENCE):
        if (row.arm, row.metric, row.scope) not in used:
            continue
        assert refusals(comparisons=[*EVIDENCE[:index], *EVIDENCE[index + 1 :]])


def test_a_study_that_is_void_now_promotes_nothing() -> None:
    found = refusals(problems=["fast: suite facts measured another deployment"])
    assert found == [
        "evaluated again from the stored comparisons, fast is not promoted: "
        "void: fast: suite facts measured another deployment"
    ]
    assert refusals(arms=(*ARMS[:2], ARMS[3]))
    assert refusals(suite_rows=[suite_row("baseline", documents=100, answered=50)])


def test_arms_of_other_runs_do_not_count() -> None:
    stranger = arm_row("stranger", run_id="run-0")
    assert refusals(arms=(*ARMS, stranger)) == []
    assert [row.arm for row in verdicts(RUN, POLICY, DIGEST, (*ARMS, stranger), [], NOW)] == ["fast", "again", "broken"]


def test_a_known_bad_control_that_is_only_slow_must_be_refused_by_speed() -> None:
    delay = json.dumps({"faults": {"delay_s": 0.2}})
    arms = served("broken", resolved_json=delay)
    slow = [*good_evidence("fast"), *good_evidence("again", gain=1.0), *good_evidence("broken", gain=0.5)]
    assert problems(slow, arms) == []
    unseen = [*good_evidence("fast"), *good_evidence("again", gain=1.0), *good_evidence("broken", gain=1.0)]
    (problem,) = problems(unseen, arms)
    assert "was not rejected by a gate of speed, capacity or cost: the trials could not see known harm" in problem
    # With other weights besides, the suites must see them.
    both = tuple(dataclasses.replace(arm, weights_digest="other") if arm.arm == "broken" else arm for arm in arms)
    assert "by an accuracy or safety gate" in problems(slow, both)[0]
