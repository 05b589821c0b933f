"""The ladder is a valid study, its arms are what the rungs name, and its truth is told in words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.dose.arms import LADDERS, WRONG_MODEL, arm_of, asked_digest, chosen, deployment_of
from reference_model.suites import SUITES
from steelyard.deployments import deployments
from steelyard.errors import InputError
from steelyard.home import STUDIES
from steelyard.study_file import LoadedStudy


def test_every_rung_names_arms_of_the_ladder_and_every_arm_stands_on_one(loaded: LoadedStudy) -> None:
    placed = {arm for ladder in LADDERS for rung in ladder.rungs for arm in rung.arms}
    assert placed | {"baseline"} == set(chosen(loaded, None))


def test_every_arm_tells_its_truth(loaded: LoadedStudy) -> None:
    for name in chosen(loaded, None):
        if name != "baseline":
            assert (arm_of(loaded, name).note or "").startswith("Truth: "), name


def test_every_suite_of_steelyard_is_asked(loaded: LoadedStudy) -> None:
    """Save those that ask a part of what another asks in the same way."""
    whole = {(spec.family, spec.chat) for spec in SUITES if not spec.only}
    wanted = {spec.task for spec in SUITES if not spec.only or (spec.family, spec.chat) not in whole}
    assert {suite.task for suite in loaded.study.suites} == wanted


def test_the_nightly_does_not_find_it(loaded: LoadedStudy) -> None:
    assert not loaded.root.is_relative_to(STUDIES)


def test_draws_of_noise_share_their_seeds_along_the_dose(loaded: LoadedStudy) -> None:
    noise = next(ladder for ladder in LADDERS if ladder.name == "noise")
    for draw in range(3):
        seeds = {loaded.study.arm(rung.arms[draw]).weights.seed for rung in noise.rungs if len(rung.arms) == 3}  # type: ignore[union-attr]
        assert len(seeds) == 1


def test_unknown_arms_are_refused_by_name(loaded: LoadedStudy) -> None:
    with pytest.raises(InputError, match="no arm nosuch"):
        chosen(loaded, ["identity", "nosuch"])
    assert chosen(loaded, ["identity"]) == ["baseline", "identity"]


def test_an_arm_alone_is_the_arm_of_the_whole_study(loaded: LoadedStudy, tmp_path: Path) -> None:
    alone = deployment_of(loaded, "int4-g32", tmp_path)
    plain = loaded.study.model_copy(
        update={
            "candidates": tuple(each for each in loaded.study.candidates if each.name == "int4-g32"),
            "controls": (),
        }
    )
    [_, whole] = deployments(dataclasses.replace(loaded, study=plain), weights_into=tmp_path)
    assert alone == whole
    assert len([each for each in tmp_path.iterdir() if each.is_dir()]) == 1, "no other arm's weights were made"


def test_identity_is_asked_as_the_baseline_and_others_are_not(loaded: LoadedStudy, tmp_path: Path) -> None:
    asked = {
        name: asked_digest(deployment_of(loaded, name, tmp_path))
        for name in ("baseline", "identity", "batch-16", "slow")
    }
    assert asked["identity"] == asked["baseline"]
    assert len(set(asked.values())) == 3


def test_the_wrong_model_is_declared_as_the_right_one(loaded: LoadedStudy) -> None:
    arm = arm_of(loaded, WRONG_MODEL)
    assert arm.role == "known_bad"
    assert arm.weights is None
