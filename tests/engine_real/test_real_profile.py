"""The survey of a real engine: a real trace, real ceilings, predictions from them."""

import dataclasses
import math
from pathlib import Path

import pytest

from steelyard.levers.survey import Surveyed, survey
from steelyard.records_profile import (
    CeilingRow,
    OperatorRow,
    OpportunityRow,
    ProfileRow,
    ProfileStepRow,
    RooflineRow,
)
from steelyard.study_file import load_study
from steelyard.study_profile import Profile
from warehouse.contracts import validate
from warehouse.rows import arrow_table

LAPTOP = Path(__file__).resolve().parents[2] / "studies" / "laptop"


@pytest.fixture(scope="module")
def surveyed(deploy, state, baseline):
    study = load_study(LAPTOP).study
    short = study.model_copy(
        update={
            "workloads": tuple(each for each in study.workloads if each.name in ("chat", "long-prompt", "arrivals"))
        }
    )
    ready = deploy(args={**study.baseline.args, "max_model_len": 2048})
    # Resolved as the shared engine, but for what this deployment changes: all that is read of it here.
    resolved = {
        **baseline.resolved,
        "scheduler_config": {**baseline.resolved["scheduler_config"], "max_num_seqs": 2},
        "model_config": {**baseline.resolved["model_config"], "dtype": "torch.float32"},
    }
    more = {**resolved, "scheduler_config": {**resolved["scheduler_config"], "max_num_seqs": 64}}
    asked = Surveyed(
        study=short, run_id="run", baseline=ready, digest="0" * 64, resolved={"baseline": resolved, "batching": more}
    )
    told = []
    rows = survey(asked, Profile(steps=60), logs=state / "profile", tell=told.append)
    return {kind: [row for row in rows if type(row) is kind] for kind in {type(row) for row in rows}}, told


def test_every_table_keeps_its_contract(surveyed):
    rows, told = surveyed
    assert told == ["chat@c8", "arrivals@r24", "long-prompt@c4"]
    assert set(rows) == {ProfileRow, ProfileStepRow, OperatorRow, CeilingRow, RooflineRow, OpportunityRow}
    for kind, found in rows.items():
        result = validate(kind.TABLE, arrow_table(kind, found).to_pandas())
        assert result.success, result.failures


def test_steps_are_those_of_the_engine(surveyed):
    rows, _ = surveyed
    for profile in rows[ProfileRow]:
        assert profile.error is None
        steps = [row for row in rows[ProfileStepRow] if row.load_point == profile.load_point]
        assert max(row.context_requests + row.generation_requests for row in steps) <= 2
        # Every prompt was read once and every token but the first of each answer decoded once.
        point = {"chat@c8": 64, "arrivals@r24": 64, "long-prompt@c4": 1024}[profile.load_point]
        assert sum(row.context_tokens for row in steps) == profile.requests * point
        assert sum(row.generation_tokens for row in steps) == profile.output_tokens - profile.requests
        spent = math.fsum(row.until_next_s - row.idle_s for row in steps)
        assert spent <= profile.traced_s * 1.1
        assert profile.kv_capacity_tokens > 10_000


def test_known_work_is_found(surveyed):
    rows, _ = surveyed
    kinds = {row.category for row in rows[OperatorRow]}
    assert {"gemm", "attention", "normalisation", "elementwise", "sampling"} <= kinds
    assert any("onednn_mm" in row.operator for row in rows[OperatorRow] if row.category == "gemm")
    long = [row for row in rows[RooflineRow] if (row.load_point, row.phase) == ("long-prompt@c4", "prefill")]
    decode = [row for row in rows[RooflineRow] if (row.load_point, row.phase) == ("chat@c8", "decode")]
    # Matrices of a long prompt use the machine; two sequences of a small model do not.
    assert long[0].mfu > 2 * decode[0].mfu
    assert 0 < decode[0].mbu < 1


def test_batching_is_predicted_to_pay_where_requests_wait(surveyed):
    rows, _ = surveyed
    found = {row.load_point: row for row in rows[OpportunityRow] if row.name == "batching"}
    assert found["chat@c8"].predicted > 1.3
    assert found["arrivals@r24"].predicted < found["chat@c8"].predicted
    # No other engine started, so nothing is said of the other candidates.
    unserved = [row for row in rows[OpportunityRow] if row.name == "combined"]
    assert {row.reason for row in unserved} == {"its engine did not start"}


def test_an_engine_without_a_profiler_is_a_row_that_says_so(surveyed, deploy, state, baseline):
    study = load_study(LAPTOP).study
    ready = dataclasses.replace(deploy(), engine="transformers")
    asked = Surveyed(
        study=study, run_id="run", baseline=ready, digest="0" * 64, resolved={"baseline": baseline.resolved}
    )
    rows = survey(asked, Profile(), logs=state / "none", tell=lambda _: None)
    profiles = [row for row in rows if isinstance(row, ProfileRow)]
    assert len(profiles) == len(study.load_points)
    assert {row.error for row in profiles} == {"An engine of kind transformers has no profiler that Steelyard can ask."}
    assert all(row.predicted is None and row.reason for row in rows if isinstance(row, OpportunityRow))
    assert not [row for row in rows if isinstance(row, (ProfileStepRow, RooflineRow))]
