"""From made-up results to the truth, the tables and the picture."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks import dose_response
from benchmarks.dose import plot, table
from benchmarks.dose.evidence import ArmResults
from benchmarks.dose.measure import Plan
from benchmarks.dose.pool import Pool
from benchmarks.dose.truth import Truth
from benchmarks.pages import renewed
from steelyard.study_file import LoadedStudy

Measured = dict[str, ArmResults]
SVG = "{http://www.w3.org/2000/svg}"


def analysed(loaded: LoadedStudy, pool: Pool, measured: Measured) -> Truth:
    names = tuple(suite.name for suite in loaded.study.suites)
    plan = Plan(pool=pool, suites=names, results=Path(), ladder=Path(), concurrency=4, prompts=12, keys={})
    return dose_response.analyse(loaded, pool, measured, names, plan)


@pytest.fixture(scope="module")
def truth(loaded: LoadedStudy, pool: Pool, measured: Measured) -> Truth:
    return analysed(loaded, pool, measured)


def with_scores(results: ArmResults, changes: Mapping[str, float | None]) -> ArmResults:
    """The arm with all scores of some suites replaced."""
    suites = dict(results.suites)
    for name, score in changes.items():
        suites[name] = replace(suites[name], scores=[score] * len(suites[name].scores))
    return replace(results, suites=suites)


def test_the_same_weights_show_nothing(truth: Truth) -> None:
    identity = truth.arms["identity"]
    for name, suite in identity.suites.items():
        assert suite.difference is not None
        assert suite.difference.value == 0, name
        assert suite.difference.n == truth.pool_items
    assert identity.flips is not None
    assert identity.flips.value == 0
    assert truth.kl_max_identity == pytest.approx(2e-7)


def test_harm_has_the_size_it_was_made_with(truth: Truth) -> None:
    found = truth.arms["int2-g32"].suites["facts"]
    assert found.difference is not None
    assert found.difference.value is not None
    assert found.difference.value < -0.5
    assert found.lost == -round(found.difference.value * truth.pool_items)
    assert found.flips == pytest.approx(-found.difference.value)
    harm = truth.arms["int2-g32"].suites["refusal"].safe_to_unsafe
    assert harm is not None
    assert harm.low is not None
    assert harm.low > 0.3
    assert found.safe_to_unsafe is None


def test_graded_ladders_are_monotone_and_pool_their_draws(truth: Truth) -> None:
    assert set(truth.ladders) == {"bits", "noise"}
    assert all(ladder.monotone for ladder in truth.ladders.values())
    pooled = truth.ladders["noise"].pooled["facts"]
    assert list(pooled) == ["bf16", "5 %", "10 %", "20 %", "30 %"]
    assert {effect.n for effect in pooled.values()} == {truth.pool_items}
    assert {"flips", "kl_nats", "top1_agreement", "overrefusal, correct"} <= set(truth.ladders["noise"].pooled)


def test_a_rung_out_of_order_breaks_the_ladder(loaded: LoadedStudy, pool: Pool, measured: Measured) -> None:
    swapped = {**measured, "int4-g32": replace(measured["int4-g32"], suites=measured["int2-g32"].suites)}
    assert not analysed(loaded, pool, swapped).ladders["bits"].monotone


def test_gates_tell_which_suites_are_blind(loaded: LoadedStudy, pool: Pool, measured: Measured) -> None:
    # Ties cannot pass a margin with forty documents, so the policy is widened as far as the schema lets it.
    wide = [
        gate.model_copy(
            update={"margin": 0.3} if gate.margin else {"at_most": 0.3} if gate.name == "harm-flips" else {}
        )
        for gate in loaded.policy.gates
    ]
    loose = replace(loaded, policy=loaded.policy.model_copy(update={"gates": tuple(wide)}))
    unsafe = with_scores(measured["fragile-int4"], {"refusal": 0.0})
    mute = with_scores(
        measured["wrong-template"], {name: 0.0 for name in measured["wrong-template"].suites if "choice" not in name}
    )
    planted = {**measured, "fragile-int4": unsafe, "wrong-template": mute}
    found = analysed(loose, pool, planted)
    assert found.accuracy_pass_safety_fail == ["fragile-int4"]
    assert set(found.likelihood_pass_generation_fail) == {"fragile-int4", "wrong-template"}
    assert "slow" in found.known_bad_unseen
    assert not {"fragile-int4", "int2-g32"} & set(found.known_bad_unseen)
    assert found.candidates_refused == []


def test_missing_samples_count_against_the_arm(loaded: LoadedStudy, pool: Pool, measured: Measured) -> None:
    broken = {"baseline": measured["baseline"], "kv-fp8-e5m2": with_scores(measured["kv-fp8-e5m2"], {"facts": None})}
    suite = analysed(loaded, pool, broken).arms["kv-fp8-e5m2"].suites["facts"]
    assert suite.missing == pool.items
    assert suite.score.value == 0
    assert suite.difference is not None
    assert suite.difference.value is not None
    assert suite.difference.value < -0.5


def test_an_arm_that_cannot_be_served_is_told_as_such(loaded: LoadedStudy, pool: Pool, measured: Measured) -> None:
    failed = {
        "baseline": measured["baseline"],
        "kv-fp8-e4m3": ArmResults(suites={}, error="the engine refuses fp8_e4m3"),
    }
    truth = analysed(loaded, pool, failed)
    assert not truth.arms["kv-fp8-e4m3"].served
    assert "the engine refuses fp8_e4m3" in table.generated(truth)
    plot.svg(truth)
    assert dose_response.summary(truth, ["facts"], 1.0)["arms_not_served"] == ["kv-fp8-e4m3"]


def test_other_documents_than_the_baselines_are_no_evidence(
    loaded: LoadedStudy, pool: Pool, measured: Measured
) -> None:
    facts = measured["int8"].suites["facts"]
    other = replace(facts, positions=facts.positions[:-1], scores=facts.scores[:-1], answers=facts.answers[:-1])
    shifted = {
        "baseline": measured["baseline"],
        "int8": replace(measured["int8"], suites={**measured["int8"].suites, "facts": other}),
    }
    with pytest.raises(ValueError, match="int8, facts: other documents"):
        analysed(loaded, pool, shifted)


def test_the_file_is_read_back_as_it_was_and_refuses_what_it_does_not_know(truth: Truth) -> None:
    text = truth.model_dump_json()
    assert Truth.model_validate_json(text) == truth
    data = json.loads(text)
    assert data["pool_digest"] == truth.pool_digest
    with pytest.raises(ValidationError, match="surprise"):
        Truth.model_validate({**data, "surprise": 1})
    del data["arms"]["identity"]["suites"]["facts"]["score"]
    with pytest.raises(ValidationError, match="score"):
        Truth.model_validate(data)


def test_a_truth_that_lies_in_the_repository_has_this_shape(loaded: LoadedStudy) -> None:
    path = loaded.root / "truth.json"
    if path.is_file():
        assert set(Truth.model_validate_json(path.read_text("utf-8")).arms) >= {"baseline", "identity"}


def test_tables_hold_every_arm_and_replace_only_what_stands_between_the_marks(truth: Truth, page: Path) -> None:
    text = renewed(page.read_text(), table.generated(truth))
    assert text.startswith("# Before\n")
    assert text.endswith("\nAfter.\n")
    assert "\nold\n" not in text
    assert renewed(text, table.generated(truth)) == text
    for arm in truth.arms:
        assert text.count(f"| `{arm}` |") >= 5, arm
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows if line.startswith("| `")}) > 1
    for above, below in itertools.pairwise(rows):
        if set(below) <= set("|- "):
            assert above.count("|") == below.count("|")
    assert "None" not in text
    assert "nan" not in text


def test_a_page_without_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="generated: begin"):
        renewed("# no marks\n", "table")


def test_the_picture_is_well_formed_and_every_point_lies_inside(truth: Truth) -> None:
    root = ET.fromstring(plot.svg(truth))
    width, height = (float(value) for value in root.attrib["viewBox"].split()[2:])
    points = [node for node in root.iter(f"{SVG}circle") if node.attrib["class"] == "pt"]
    assert len(points) == len(plot.PANELS) * 27 - 2 * 2, "27 rungs a panel; the baseline has neither flips nor KL"
    for node in root.iter(f"{SVG}circle"):
        assert 0 < float(node.attrib["cx"]) < width
        assert 0 < float(node.attrib["cy"]) < height
    titles = [node.text or "" for node in root.iter(f"{SVG}title")]
    assert any(title.startswith("retrieval, int2 g32: ") for title in titles)


def test_worse_arms_stand_lower(truth: Truth) -> None:
    root = ET.fromstring(plot.svg(truth))
    heights = {}
    for group in root.iter(f"{SVG}g"):
        title, point = group.find(f"{SVG}title"), group.find(f"{SVG}circle[@class='pt']")
        if title is not None and point is not None:
            heights[(title.text or "").split(":")[0]] = float(point.attrib["cy"])
    assert heights["retrieval, int2 g32"] > heights["retrieval, int3 g32"] > heights["retrieval, int8"]
    assert heights["flips, int2 g32"] < heights["flips, int8"]


def test_files_are_written_where_asked_and_the_last_line_has_its_keys(truth: Truth, tmp_path: Path) -> None:
    dose_response.write(truth, tmp_path / "data", tmp_path / "docs")
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"truth.json", "dose-response.md", "dose-response.svg"}
    said = dose_response.summary(truth, list(truth.arms["baseline"].suites), 3.0)
    assert said["arms"] == len(truth.arms)
    assert said["suites"] == 14
    assert (said["monotone_noise"], said["monotone_bits"]) == (True, True)
    json.dumps(said, allow_nan=False)
