"""Whose gain a campaign proves most, and which documents it kept for that."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fake_study
import pytest
from fake_study import write_fake_study

from evals.order import Place
from evals.runner import order_of_suite
from steelyard.confirmation import awaits_confirmation, confirmation, promoted_study, winner
from steelyard.errors import InputError
from steelyard.gates.policy import SCORED, Gate, Policy
from steelyard.records import GateRow, StudyRow, VerdictRow
from steelyard.study import Suite
from steelyard.study_file import LoadedStudy, load_study

NOW = datetime(2026, 11, 22, tzinfo=UTC)
SEALED = [{**each, "sealed": 100} for each in fake_study.STUDY["suites"]]


def policy_of(**gate: Any) -> Policy:
    gates = (Gate(**gate), *(Gate(name=name, category=name, metric="score", margin=0.02) for name in SCORED))
    return Policy(policy="p", gates=gates)


POLICY = policy_of(name="gain", category="speed", metric="output_tokens_per_s", at_least=1.1)
CHEAPER = policy_of(name="cost", category="cost", metric="usd_per_million_slo_tokens", at_most=0.9)


def verdict(arm: str, word: str = "promote", role: str = "candidate") -> VerdictRow:
    return VerdictRow(
        run_id="run", arm=arm, role=role, verdict=word, reasons=[], deployment_digest="d", baseline_digest="b",
        policy_digest="p", decided_at=NOW,
    )  # fmt: skip


def gain(arm: str, low: float, high: float = 9.0, **values: Any) -> GateRow:
    base: dict[str, Any] = {
        "run_id": "run", "arm": arm, "gate": "gain", "category": "speed", "metric": "output_tokens_per_s",
        "scope": "chat@c8", "bound_kind": "at_least", "bound": 1.1, "benefit": True, "required": True,
        "estimate": low, "low": low, "high": high, "n": 4, "outcome": "pass", "reason": "",
    }  # fmt: skip
    return GateRow(**{**base, **values})


def test_the_winner_is_who_proved_most_not_who_looks_best() -> None:
    verdicts = [verdict("steady"), verdict("lucky"), verdict("fastest", "reject"), verdict("identity", role="identity")]
    gates = [
        gain("steady", 1.5), gain("lucky", 1.2, estimate=3.0), gain("fastest", 4.0), gain("identity", 5.0),
        gain("lucky", 2.5, gate="elsewhere"),
    ]  # fmt: skip
    assert winner(POLICY, verdicts, gates) == "steady"
    cheaper = gain("lucky", 0.2, 0.5, gate="cost", bound_kind="at_most", bound=0.9, category="cost")
    assert winner(CHEAPER, verdicts, [*gates, cheaper]) == "lucky"
    assert winner(POLICY, verdicts, gates, "lucky") == "lucky"
    with pytest.raises(InputError, match="fastest does not deserve promotion"):
        winner(POLICY, verdicts, gates, "fastest")
    with pytest.raises(InputError, match="No candidate of the run deserves promotion"):
        winner(POLICY, [verdict("fastest", "reject"), verdict("identity", role="identity")], gates)


def campaign(folder: Path, **changes: object) -> LoadedStudy:
    policy = {**fake_study.POLICY, "confirm": "winner"}
    return load_study(write_fake_study(folder, policy=policy, **{"suites": SEALED, **changes}))


def run_of(loaded: LoadedStudy, run_id: str = "run-1") -> StudyRow:
    values: dict[str, Any] = dict.fromkeys(StudyRow.__dataclass_fields__)
    return StudyRow(**{**values, "run_id": run_id, "study": loaded.study.study})


def test_a_confirmation_asks_what_the_campaign_did_not(tmp_path: Path) -> None:
    loaded = campaign(tmp_path / "study")
    found = confirmation(loaded, run_of(loaded), "batching")
    assert [each.name for each in found.study.candidates] == ["batching"]
    assert [each.name for each in found.study.controls] == [each.name for each in loaded.study.controls]
    assert (found.study.study, found.study.confirms) == ("fake-confirmed", "run-1")
    assert found.study.seed != loaded.study.seed
    assert found.study_digest != loaded.study_digest
    assert found.policy_digest == loaded.policy_digest
    # The same command resumes the same study; another campaign's winner is another's.
    assert confirmation(loaded, run_of(loaded), "batching").study_digest == found.study_digest
    assert confirmation(loaded, run_of(loaded, "run-2"), "batching").study_digest != found.study_digest
    assert awaits_confirmation(loaded.study, loaded.policy)
    assert not awaits_confirmation(found.study, found.policy)
    for asked, kept in zip(loaded.study.suites, found.study.suites, strict=True):
        before, after = ({_place(each) for each in order(loaded, suite)} for suite in (asked, kept))
        assert before
        assert len(after) >= 100
        assert not before & after
    assert promoted_study(found.study) == promoted_study(loaded.study) == "fake"


def test_a_seed_unseals_nothing(tmp_path: Path) -> None:
    loaded = campaign(tmp_path / "study")
    (kept,) = [each for each in confirmation(loaded, run_of(loaded), "batching").study.suites if each.name == "refusal"]
    sealed = {_place(each) for each in order(loaded, kept)}
    (asked,) = [each for each in loaded.study.suites if each.name == "refusal"]
    whole = asked.model_copy(update={"limit": None})
    for seed in (0, 1, 99):
        assert not sealed & {_place(each) for each in order_of_suite(whole, loaded.root, seed)}


def test_clusters_are_sealed_whole(tmp_path: Path) -> None:
    loaded = campaign(tmp_path / "study")
    (asked,) = [each for each in loaded.study.suites if each.name == "facts"]
    whole = asked.model_copy(update={"limit": None})
    kept = whole.model_copy(update={"part": "sealed"})
    about = [{each.cluster for each in order_of_suite(suite, loaded.root, 7)} for suite in (whole, kept)]
    assert not about[0] & about[1]


def test_not_everything_can_be_sealed(tmp_path: Path) -> None:
    loaded = campaign(tmp_path / "study", suites=[{**each, "sealed": 100_000} for each in fake_study.STUDY["suites"]])
    with pytest.raises(InputError, match="documents are to be sealed, and it has only"):
        order(loaded, loaded.study.suites[0])


def test_without_sealed_documents_nothing_is_confirmed(tmp_path: Path) -> None:
    loaded = load_study(write_fake_study(tmp_path / "study"))
    with pytest.raises(InputError, match="keeps no documents of facts, choice, refusal for a confirmation"):
        confirmation(loaded, run_of(loaded), "batching")


def test_a_name_that_cannot_be_extended_is_told_before_measuring(tmp_path: Path) -> None:
    loaded = campaign(tmp_path / "study", study="a" * 60)
    with pytest.raises(InputError, match="Give the study a shorter name"):
        confirmation(loaded, run_of(loaded), "batching")


@pytest.mark.parametrize(
    "change",
    [{"confirms": "run-1"}, {"suites": [{**SEALED[0], "part": "sealed"}, *SEALED[1:]]}, {"study": "mine-confirmed"}],
)
def test_nobody_writes_a_confirmation_by_hand(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="confirmation"):
        campaign(tmp_path / "study", **change)


def test_a_policy_that_confirms_wants_sealed_documents(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        campaign(tmp_path / "study", suites=fake_study.STUDY["suites"])
    assert str(refused.value).count("this suite seals none") == 3


def order(loaded: LoadedStudy, suite: Suite) -> list[Place]:
    return order_of_suite(suite, loaded.root, loaded.study.seed)


def _place(place: Place) -> tuple[str, int]:
    return place.task, place.index
