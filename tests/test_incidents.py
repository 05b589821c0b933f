"""Incidents: a change of level is suspected, measured again, and only then costs a promotion."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from steelyard.drift import figures_of, named
from steelyard.incidents import ends, opened, revoked, standing, told
from steelyard.records import ArmRow, PromotionRow
from steelyard.records_incidents import IncidentEndRow, IncidentRow, ReinstatementRow

FIRST = datetime(2026, 1, 1, 2, tzinfo=UTC)
NOW = FIRST + timedelta(days=60)
ARMS = {"baseline", "bf16", "identity"}


def rows(levels: list[float], seed: int = 1, spread: float = 0.01, **changes: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    found = []
    for night, level in enumerate(levels):
        value = level * math.exp(spread * rng.standard_normal()) if level > 0 else level
        found.append(
            {
                "study": "laptop", "run_id": f"run-{night:02d}", "started_at": FIRST + timedelta(days=night),
                "arm": "bf16", "role": "candidate", "metric": "output_tokens_per_s", "scope": "chat@c8",
                "kind": "ratio", "estimate": value, "low": value * 0.97, "high": value * 1.03, "baseline_value": 100.0,
                "deployment": "a", "baseline": "b", "conditions": "c", **changes,
            }
        )  # fmt: skip
    return found


def promotion(night: int, arm: str = "bf16") -> PromotionRow:
    return PromotionRow(
        run_id=f"run-{night:02d}", arm=arm, study="laptop", deployment_digest="a", baseline_digest="b",
        policy_digest="p", promoted_at=FIRST + timedelta(days=night),
    )  # fmt: skip


def suspect(figures: list[dict[str, Any]], **changes: Any) -> list[IncidentRow]:
    asked: dict[str, Any] = {
        "earlier": [], "ended": {}, "promotions": [promotion(0)], "least_ratio": 0.05, "least_difference": 0.01,
        "now": NOW, **changes,
    }  # fmt: skip
    return opened(figures_of(figures), figures[-1]["run_id"], **asked)


def test_a_regression_is_suspected_on_its_second_night_and_confirmed_by_the_next_run() -> None:
    figures = rows([1.8] * 16 + [1.5] * 2)
    assert suspect(figures[:-1]) == []
    [incident] = suspect(figures)
    assert (incident.since_run_id, incident.nights, incident.what) == ("run-16", 2, "gain")
    assert named(incident) == "output_tokens_per_s of bf16 at chat@c8"
    assert "since run-16" in told(incident)
    again = rows([1.8] * 16 + [1.5] * 3)
    [end] = ends(figures_of(again), "run-18", [incident], arms=ARMS, now=NOW)
    assert end.ending == "confirmed"
    [taken] = revoked("run-18", [end], [incident], now=NOW)
    assert (taken.arm, taken.confirmed_by, taken.deployment_digest) == ("bf16", "run-18", "a")
    assert "measured again" in taken.reason


def test_one_bad_night_opens_nothing_and_two_are_refuted_by_a_good_one() -> None:
    for seed in range(20):
        assert suspect(rows([1.8] * 8 + [1.2], seed)) == []
        assert suspect(rows([1.8] * 8 + [1.2, 1.8], seed)) == []
    figures = rows([1.8] * 12 + [1.5] * 2)
    [incident] = suspect(figures)
    [end] = ends(figures_of(rows([1.8] * 12 + [1.5] * 2 + [1.8])), "run-14", [incident], arms=ARMS, now=NOW)
    assert end.ending == "refuted"
    assert "nearer to the level before" in end.reason
    assert revoked("run-14", [end], [incident], now=NOW) == []


def test_a_change_must_be_large_enough_and_for_the_worse() -> None:
    assert suspect(rows([1.8] * 16 + [1.75] * 6, spread=0.002)) == []
    assert len(suspect(rows([1.8] * 16 + [1.75] * 6, spread=0.002), least_ratio=0.02)) == 1
    assert suspect(rows([1.5] * 16 + [1.8] * 3)) == []
    # Of an error there is harm in more; what got better since is no regression any more.
    assert len(suspect(rows([1.0] * 16 + [1.4] * 3, metric="ttft_p50_s"))) == 1
    assert suspect(rows([1.8] * 12 + [1.5] * 6 + [1.8] * 6)) == []


def test_a_change_before_the_promotion_took_nothing_from_it() -> None:
    figures = rows([1.8] * 12 + [1.5] * 4)
    assert suspect(figures, promotions=[promotion(13)]) == []
    assert len(suspect(figures, promotions=[promotion(13), promotion(3)])) == 1
    other = dataclasses.replace(promotion(3), deployment_digest="z")
    assert suspect(figures, promotions=[other]) == []


def test_an_incident_is_not_opened_twice() -> None:
    figures = rows([1.8] * 16 + [1.5] * 4)
    [incident] = suspect(figures[:-2])
    assert suspect(figures, earlier=[incident]) == []
    assert suspect(figures, earlier=[incident], ended={incident.incident: "confirmed"}) == []
    # What was refuted and is there all the same is suspected again.
    assert len(suspect(figures, earlier=[incident], ended={incident.incident: "refuted"})) == 1
    deeper = rows([1.8] * 16 + [1.5] * 6 + [1.2] * 3)
    assert len(suspect(deeper, earlier=[incident], ended={incident.incident: "confirmed"})) == 1


def test_the_baseline_and_the_noise_revoke_nothing() -> None:
    figures = rows([1.0] * 24, role="identity", arm="identity")
    for night, row in enumerate(figures):
        row["baseline_value"] = (100 if night < 20 else 80) * (1 + 0.001 * night)
    [incident] = [row for row in suspect(figures, promotions=[]) if row.what == "baseline"]
    more = [*figures, {**figures[-1], "run_id": "run-24", "started_at": FIRST + timedelta(days=24)}]
    [end] = ends(figures_of(more), "run-24", [incident], arms=ARMS, now=NOW)
    assert end.ending == "confirmed"
    assert revoked("run-24", [end], [incident], now=NOW) == []


def test_another_deployment_supersedes_and_an_arm_that_was_not_measured_leaves_it_open() -> None:
    figures = rows([1.8] * 16 + [1.5] * 2)
    [incident] = suspect(figures)
    changed = [*figures, {**figures[-1], "run_id": "run-18", "deployment": "other"}]
    [end] = ends(figures_of(changed), "run-18", [incident], arms=ARMS, now=NOW)
    assert (end.ending, end.value) == ("superseded", None)
    assert ends(figures_of(figures), "run-18", [incident], arms=ARMS, now=NOW) == []


def test_longer_prompts_or_a_new_driver_are_no_regression() -> None:
    figures = rows([1.8] * 16) + rows([1.5] * 20, conditions="d")[16:]
    assert suspect(figures) == []
    before = rows([1.8] * 16 + [1.5] * 2)
    [incident] = suspect(before)
    changed = [*before, *rows([1.5] * 20, conditions="d")[18:19]]
    [end] = ends(figures_of(changed), "run-18", [incident], arms=ARMS, now=NOW)
    assert (end.ending, end.value) == ("superseded", None)
    assert revoked("run-18", [end], [incident], now=NOW) == []


def test_an_arm_that_the_study_gave_up_leaves_no_incident_open() -> None:
    figures = rows([1.8] * 16 + [1.5] * 2)
    [incident] = suspect(figures)
    [end] = ends(figures_of(figures), "run-18", [incident], arms={"baseline", "identity"}, now=NOW)
    assert (end.ending, end.value) == ("superseded", None)
    assert "no such arm" in end.reason


def test_a_revocation_stands_for_what_was_deployed_until_it_is_lifted() -> None:
    end = IncidentEndRow(
        run_id="run-18", incident="i", ending="confirmed", value=1.5, reason="measured again, 1.5", ended_at=NOW
    )
    [incident] = suspect(rows([1.8] * 16 + [1.5] * 2))
    [taken] = revoked("run-18", [end], [dataclasses.replace(incident, incident="i")], now=NOW)

    def arm(name: str, role: str, digest: str) -> ArmRow:
        return ArmRow(
            run_id="run-19", arm=name, role=role, lever=None, claim=None, note=None, engine="fake", engine_version="1",
            args_json="{}", deployment_digest=digest, weights_digest=None, tokenizer_digest=None, template_digest=None,
            env_json="{}", resolved_json=None, start_s=1.0, status="served", error=None,
        )  # fmt: skip

    arms = [arm("baseline", "baseline", "b"), arm("bf16", "candidate", "a"), arm("other", "candidate", "c")]
    [carried] = standing("run-19", "laptop", arms, [taken], [])
    assert (carried.run_id, carried.arm, carried.confirmed_by) == ("run-19", "bf16", "run-18")
    assert standing("run-20", "laptop", arms, [taken, carried], []) == [dataclasses.replace(carried, run_id="run-20")]
    assert standing("run-19", "another", arms, [taken], []) == []
    upgraded = [arms[0], dataclasses.replace(arms[1], deployment_digest="new")]
    assert standing("run-19", "laptop", upgraded, [taken], []) == []
    lifted = ReinstatementRow(run_id="run-18", arm="bf16", reinstated_by="a@b", reason="known", reinstated_at=NOW)
    assert standing("run-20", "laptop", arms, [taken, carried], [lifted]) == []
