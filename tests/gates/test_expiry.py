"""A verdict expires when engine, driver, weights or policy change, and for nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from recorded_run import recorded

from steelyard.gates.expiry import Standing, expiry_problems

FACTS = recorded()
THEN = Standing(study=FACTS.study, arms=FACTS.arms, verdicts=FACTS.verdicts)


def now(arm: str | None = None, **changes: Any) -> Standing:
    """Today: columns of an arm changed, or of the run where no arm is named."""
    if arm is None:
        return dataclasses.replace(THEN, study=dataclasses.replace(THEN.study, **changes))
    arms = [dataclasses.replace(row, **changes) if row.arm == arm else row for row in THEN.arms]
    return dataclasses.replace(THEN, arms=arms)


def test_the_same_again_holds() -> None:
    assert expiry_problems("batching", then=THEN, now=THEN) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"policy_digest": "f" * 64}, "the policy changed: "),
        ({"driver_version": "580.1"}, "the driver changed: none, now 580.1"),
        ({"accelerator": "H200"}, "the accelerator changed: none, now H200"),
        ({"platform": "Linux 7"}, "the platform changed: Linux, now Linux 7"),
        ({"cpu_model": None}, "the processor changed: A CPU, now none"),
        ({"packages_json": '{"torch":"2.10"}'}, "packages under the engine changed: torch 2.9, now torch 2.10"),
        ({"packages_json": "{}"}, "packages under the engine changed: torch 2.9, now none"),
    ],
)
def test_what_changes_for_every_arm(changes: dict[str, Any], says: str) -> None:
    [said] = expiry_problems("batching", then=THEN, now=now(**changes))
    assert said.startswith(says)


@pytest.mark.parametrize(
    "changes",
    [
        {"hostname_digest": "f" * 12}, {"study_digest": "f" * 64}, {"steelyard_version": "9"}, {"cpu_count": 4},
        {"packages_json": '{"dagster":"2","torch":"2.9"}'}, {"python_version": "3.12"}, {"memory_bytes": None},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_reason(changes: dict[str, Any]) -> None:
    assert expiry_problems("batching", then=THEN, now=now(**changes)) == []


@pytest.mark.parametrize(("arm", "who"), [("batching", "batching"), ("baseline", "the baseline")])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"engine_version": "2", "deployment_digest": "f" * 64}, "the engine version of {} changed: 1, now 2"),
        ({"weights_digest": "f" * 64, "deployment_digest": "f" * 64}, "the weights of {} changed: "),
        ({"weights_digest": None}, "the weights of {} changed: "),
        ({"tokenizer_digest": "f" * 64}, "the tokenizer of {} changed: "),
        ({"template_digest": None}, "the chat template of {} changed: "),
        ({"engine": "vllm"}, "the engine of {} changed: fake, now vllm"),
        ({"deployment_digest": "f" * 64}, "arguments, environment or configuration of {} changed: deployment "),
        ({"status": "failed"}, "{} no longer serves"),
        ({"deployment_digest": None}, "{} no longer serves"),
    ],
)
def test_what_is_served_otherwise(arm: str, who: str, changes: dict[str, Any], says: str) -> None:
    [said] = expiry_problems("batching", then=THEN, now=now(arm, **changes))
    assert said.startswith(says.format(who))


def test_another_arm_is_no_reason_and_a_missing_one_is() -> None:
    assert expiry_problems("batching", then=THEN, now=now("known-bad", weights_digest="f" * 64)) == []
    gone = dataclasses.replace(THEN, arms=[row for row in THEN.arms if row.arm != "batching"])
    assert expiry_problems("batching", then=THEN, now=gone) == ["batching is no longer in the study"]
    assert expiry_problems("batching", then=gone, now=THEN) == ["batching has no recorded deployment"]


@pytest.mark.parametrize(("verdict", "ends"), [("promote", False), ("inconclusive", False), ("reject", True)])
def test_a_later_rejection_ends_it(verdict: str, ends: bool) -> None:
    later = [dataclasses.replace(row, verdict=verdict) for row in THEN.verdicts if row.arm == "batching"]
    study = dataclasses.replace(THEN.study, run_id="later")
    found = expiry_problems("batching", then=THEN, now=Standing(study=study, arms=THEN.arms, verdicts=later))
    assert found == (["run later rejected batching"] if ends else [])
