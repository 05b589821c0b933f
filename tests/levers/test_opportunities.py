"""What each lever is predicted to bring, ranked, with reasons where nothing can be said; and how good that was."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from comparison_rows import speed_comparison
from synthetic_steps import ceilings, steps

from steelyard.levers.catalogue import CATALOGUE
from steelyard.levers.effects import NoModel, effect_of
from steelyard.levers.opportunities import candidates, opportunities, risk_of
from steelyard.levers.predict import Predictor, Scene, scheduler_of
from steelyard.levers.score import score
from steelyard.profiling.play import Asked, play
from steelyard.profiling.step_model import Products, fits
from steelyard.records import ComparisonRow
from steelyard.records_profile import OpportunityRow, ProfileRow
from steelyard.study import Arm, Study
from steelyard.study_file import load_study

LAPTOP = Path(__file__).parents[2] / "studies" / "laptop"
NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(LAPTOP).study


def resolved(**changes: Any) -> dict[str, Any]:
    scheduler = {"max_num_seqs": 2, "max_num_batched_tokens": 2048, "enable_chunked_prefill": True}
    cache = {"block_size": 16, "enable_prefix_caching": False}
    return {
        "scheduler_config": {**scheduler, **{k: v for k, v in changes.items() if k in scheduler}},
        "cache_config": {**cache, **{k: v for k, v in changes.items() if k in cache}},
    }


def everywhere(study: Study) -> dict[str, dict[str, Any]]:
    known = {"max_num_seqs", "max_num_batched_tokens", "enable_prefix_caching"}
    return {arm.name: resolved(**{k: v for k, v in arm.args.items() if k in known}) for arm in study.arms}


def models() -> list[Any]:
    made = fits(
        steps(), Products([*ceilings(), *ceilings("bfloat16", 4.0), *ceilings("int8", 8.0)]), "float32", draws=8,
        seed=1,
    )  # fmt: skip
    assert made
    return made


def scenes(study: Study) -> list[Scene]:
    made = []
    for point in study.load_points:
        requests = tuple(
            Asked(
                prompt=tuple([7] * 32 + [index * 100 + place for place in range(32)]), output_tokens=8,
                due_s=index / point.load.rate if point.load.rate else 0.0,
            )
            for index in range(16)
        )  # fmt: skip
        base = play(requests, scheduler_of(resolved()), models()[0].seconds, concurrency=point.load.concurrency)
        answers = tuple(tuple([1, 2, 3, 4] * 2) for _ in range(4))
        made.append(
            Scene(point=point, requests=requests, profiled=requests, answers=answers, measured_s=base.duration_s)
        )
    return made


def predicted(study: Study, arm: Arm, scene: Scene, **scheduling: Any) -> Any:
    effect = effect_of(arm, study.arms[0], resolved(**scheduling), resolved(), device="cpu")
    predictor = Predictor(models(), scheduler_of(resolved()), [scene], seed=1)
    return predictor.predict(scene, effect, scheduler_of(resolved(**scheduling)))


def test_more_seats_share_a_steps_fixed_costs(study: Study) -> None:
    closed = scenes(study)[0]
    found = predicted(study, study.arm("batching"), closed, max_num_seqs=64)
    assert 1.5 < found.ratio < 4
    assert found.low <= found.ratio <= found.high
    assert found.ours.sequences > found.baseline.sequences
    # Arrivals that the baseline keeps up with cannot come faster.
    waiting = next(scene for scene in scenes(study) if scene.point.load.rate)
    assert predicted(study, study.arm("batching"), waiting, max_num_seqs=64).ratio < 1.2


def test_other_products_gain_their_share_at_most(study: Study) -> None:
    found = predicted(study, study.arm("bf16"), scenes(study)[0])
    assert 1.0 < found.ratio < 1.5
    again = predicted(study, study.arm("identity"), scenes(study)[0])
    assert again.ratio == pytest.approx(1.0)
    assert again.low == pytest.approx(1.0)


def test_a_shared_beginning_is_found_in_the_prompts(study: Study) -> None:
    found = predicted(study, study.arm("prefix-cache"), scenes(study)[0], enable_prefix_caching=True)
    assert found.ours.cached_tokens == 15 * 32
    assert found.ratio > 1


def test_accepted_drafts_are_replayed_from_answers(study: Study) -> None:
    found = predicted(study, study.arm("ngram-speculation"), scenes(study)[0])
    assert found.accepted is not None
    assert found.accepted > 1
    silent = dataclasses.replace(scenes(study)[0], answers=())
    with pytest.raises(NoModel, match="not known as tokens"):
        predicted(study, study.arm("ngram-speculation"), silent)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"engine": "transformers"}, "another engine"),
        ({"args": {"quantization": "fp8"}}, "no model of quantization"),
        ({"args": {"speculative_config": {"method": "suffix"}}}, "only for n-grams"),
        ({"env": {"SOMETHING": "1"}}, "no model of SOMETHING"),
    ],
)
def test_what_has_no_model_says_so(study: Study, change: dict[str, Any], says: str) -> None:
    base = study.arms[0]
    arm = base.model_copy(update={name: {**getattr(base, name), **value} if isinstance(value, dict) else value
                                  for name, value in change.items()})  # fmt: skip
    with pytest.raises(NoModel, match=says):
        effect_of(arm, base, {}, {}, device="cpu")


def test_what_the_engine_has_already_changes_nothing(study: Study) -> None:
    base = study.arms[0]
    has = {**resolved(), "model_config": {"dtype": "torch.bfloat16", "enforce_eager": False}}
    for change in ({"dtype": "bfloat16"}, {"enforce_eager": False}):
        arm = base.model_copy(update={"args": {**base.args, **change}})
        assert effect_of(arm, base, has, has, device="cpu").factors == {}
    other = {**has, "model_config": {"dtype": "torch.float32", "enforce_eager": True}}
    arm = base.model_copy(update={"args": {**base.args, "dtype": "float16", "enforce_eager": None}})
    slower = effect_of(arm, base, other, has, device="cpu")
    assert min(best for best, _ in slower.factors.values()) > 0.8
    assert slower.factors["host"][0] > 1


def test_where_nothing_is_known_nothing_is_predicted(study: Study) -> None:
    scene = scenes(study)[0]
    with pytest.raises(NoModel, match="may not fit into"):
        predicted(study, study.arm("batching"), dataclasses.replace(scene, capacity=500), max_num_seqs=64)
    with pytest.raises(NoModel, match="was not measured"):
        predicted(study, study.arm("bf16"), dataclasses.replace(scene, measured_s=0.0))
    effect = effect_of(study.arm("batching"), study.arms[0], {}, {}, device="cpu")
    experts = Predictor(models(), scheduler_of(resolved()), [scene], seed=1, experts=True)
    with pytest.raises(NoModel, match="experts"):
        experts.predict(scene, effect, scheduler_of(resolved(max_num_seqs=64)))


def test_every_lever_of_the_catalogue_has_a_prediction_or_a_reason(study: Study) -> None:
    among = candidates(study, everywhere(study))
    names = [each.name for each in among]
    assert len(names) == len(set(names))
    assert {each.name for each in among if each.tried} == {arm.name for arm in study.arms if arm.role == "candidate"}
    # What a candidate of the study is already is not listed again, nor what the baseline has.
    assert "more-sequences" not in names
    assert "bfloat16" not in names
    assert "chunked-prefill" not in names
    predictor = Predictor(models(), scheduler_of(resolved()), scenes(study), seed=1)
    rows = opportunities("r", study, scenes(study), predictor, among, resolved(), {}, steps(), NOW)
    assert len(rows) == len(among) * len(study.load_points)
    for row in rows:
        assert (row.predicted is None) == (row.reason is not None)
        if row.predicted is not None:
            assert row.low is not None
            assert row.high is not None
            assert 0 < row.low <= row.predicted <= row.high
        assert row.mechanism
        assert row.evidence
    ranks = {row.name: row.rank for row in rows}
    assert sorted(ranks.values()) == list(range(1, len(among) + 1))
    assert min(ranks, key=lambda name: ranks[name]) == "combined-compiled"


def test_without_a_predictor_the_list_still_stands(study: Study) -> None:
    rows = opportunities(
        "r", study, scenes(study), "there is no trace", candidates(study, everywhere(study)), resolved(), {}, [], NOW
    )
    assert {row.reason for row in rows if row.tried_by is not None} == {"there is no trace"}
    unserved = candidates(study, {"baseline": resolved()})
    rows = opportunities("r", study, scenes(study), "x", unserved, resolved(), {}, [], NOW)
    assert {row.reason for row in rows if row.tried_by is not None} == {"its engine did not start"}
    assert {row.reason for row in rows if row.name == "draft-speculation"} == {
        "it needs a draft model with the same tokenizer, as speculative_config.model"
    }


def test_risk_is_the_gravest_of_what_changes(study: Study) -> None:
    base = study.arms[0]
    assert risk_of(study.arm("bf16"), base, CATALOGUE) == "rounding"
    assert risk_of(study.arm("kv-int8-per-token-head"), base, CATALOGUE) == "damage"
    assert risk_of(study.arm("int8-w8a8"), base, CATALOGUE) == "approximation"
    odd = base.model_copy(update={"args": {**base.args, "swap_space": 4}})
    assert risk_of(odd, base, CATALOGUE) == "unknown"


def test_cost_is_that_of_its_trials(study: Study) -> None:
    profiles = {
        point.name: ProfileRow(
            run_id="r", arm="baseline", load_point=point.name, deployment_digest="d", profiled_at=NOW, requests=2,
            steps=0, error="x", plain_s=0.5,
            **dict.fromkeys((
                "output_tokens", "traced_s", "overhead", "traced_steps_s", "idle_s", "sequences", "max_sequences",
                "kv_tokens", "kv_capacity_tokens", "preemptions", "cache_queried_tokens", "cache_hit_tokens", "queue_s",
                "prefill_s", "decode_s",
            )),
        )
        for point in study.load_points
    }  # fmt: skip
    rows = opportunities(
        "r", study, scenes(study), "x", candidates(study, everywhere(study)), resolved(), profiles, [], NOW
    )
    requests = sum(point.workload.requests for point in study.load_points)
    assert rows[0].cost_s == pytest.approx(study.blocks * requests * 0.25)


def test_predictions_are_scored_against_comparisons() -> None:
    def opportunity(name: str, ratio: float | None, arm: str | None = "a") -> OpportunityRow:
        return OpportunityRow(
            run_id="r", name=name, load_point="chat@c2", tried_by=arm and name, lever="batching", rank=1, mechanism="m",
            evidence="e", predicted=ratio, low=ratio and ratio * 0.9, high=ratio and ratio * 1.1,
            reason=None if ratio else "none", risk="none", cost_s=None, predicted_at=NOW,
        )  # fmt: skip

    def comparison(arm: str, value: float | None, metric: str = "output_tokens_per_s") -> ComparisonRow:
        return speed_comparison(arm, "chat@c2", value, metric=metric, spread=0.05)

    rows = [
        opportunity("near", 1.0), opportunity("edge", 1.0), opportunity("far", 1.0), opportunity("mute", None),
        opportunity("untimed", 2.0), opportunity("backlog", 2.0, None),
    ]  # fmt: skip
    found = score(
        rows,
        [comparison("near", 1.05), comparison("edge", 1.14), comparison("far", 2.0), comparison("mute", 1.0),
         comparison("near", 9.0, "ttft_p50_s"), comparison("untimed", None)],
    )  # fmt: skip
    assert [each.row.name for each in found.pairs] == ["near", "edge", "far"]
    assert (found.inside, found.met) == (1, 2)
    assert found.pairs[2].error == pytest.approx(1.0)
    assert found.bias is not None
    assert found.bias == pytest.approx((1.05 * 1.14 * 2) ** (1 / 3) - 1)
    assert score([], []).bias is None
