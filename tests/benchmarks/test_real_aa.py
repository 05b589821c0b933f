"""The A/A bench must see a start that adds noise, and must not see one that does not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.real_aa_parts.copies import MARK, write_copies
from benchmarks.real_aa_parts.noise import components, fixed_interval, spread_of
from benchmarks.real_aa_parts.report import Comparison, Found, Interval, generated, misses, summary
from steelyard.records_trials import TrialRow
from steelyard.study_file import load_study

LAPTOP = Path(__file__).resolve().parents[2] / "studies" / "laptop"


def trial(arm: str, block: int, rate: float) -> TrialRow:
    unknown: dict[str, Any] = dict.fromkeys(
        [
            "cached_tokens", "requests_per_s", "goodput_per_s", "slo_tokens_per_s", "slo_share", "ttft_p50_s",
            "ttft_p95_s", "itl_p50_s", "itl_p95_s", "e2e_p50_s", "e2e_p95_s", "lateness_p95_s", "client_cpu_share",
            "engine_output_tokens", "input_tokens", "output_tokens",
        ]
    )  # fmt: skip
    return TrialRow(
        trial_id=f"{arm}-{block}", run_id="r", arm=arm, deployment_digest="d", workload="chat", load_point="chat@c8",
        block=block, position=0, started_at=datetime(2026, 1, 1, tzinfo=UTC), duration_s=1.0, requests=1, completed=1,
        failed=0, output_tokens_per_s=rate, valid=True, invalid_reasons=[], **unknown,
    )  # fmt: skip


def trials(restart_sd: float, block_sd: float, seed: int, arms: int = 8, blocks: int = 3) -> dict[str, list[TrialRow]]:
    rng = np.random.default_rng(seed)
    starts, weather = rng.normal(0, restart_sd, arms), rng.normal(0, 0.5, blocks)
    return {
        f"arm-{arm}": [
            trial(f"arm-{arm}", at, 100 * math.exp(starts[arm] + weather[at] + rng.normal(0, block_sd)))
            for at in range(blocks)
        ]
        for arm in range(arms)
    }


def pooled(restart_sd: float, block_sd: float) -> Any:
    spreads = [spread_of("chat@c8", trials(restart_sd, block_sd, seed)) for seed in range(20)]
    return components([each for each in spreads if each is not None])


def test_a_start_that_matters_is_seen_and_its_size_told() -> None:
    found = pooled(0.06, 0.04)
    assert found.p_value < 1e-6
    assert found.restart_sd == pytest.approx(0.06, rel=0.25)
    assert found.block_sd == pytest.approx(0.04, rel=0.15)
    assert found.restart_sd < found.restart_sd_high < 0.09


def test_blocks_alone_are_no_start() -> None:
    found = pooled(0.0, 0.04)
    assert found.p_value > 0.01
    assert found.restart_sd < 0.015
    assert found.block_sd == pytest.approx(0.04, rel=0.15)


def test_only_blocks_that_every_arm_has_count() -> None:
    rows: Mapping[str, Sequence[TrialRow]] = {"a": [trial("a", 0, 1.0)], "b": [trial("b", 0, 1.0), trial("b", 1, 2.0)]}
    assert spread_of("chat@c8", rows) is None
    assert spread_of("chat@c8", {}) is None
    assert components([]) is None
    assert fixed_interval(rows["b"], rows["a"], 2, 0.95) is None


def test_misses_leave_out_one_and_the_unknown_is_not_counted() -> None:
    assert misses([(0.9, 1.1), (1.01, 1.2), (1.1, 1.2), (0.5, 0.99), None]) == (2, 1, 4)


def test_a_promotion_of_a_void_run_counts_all_the_same() -> None:
    rows = [
        Comparison("r", f"copy-{at}", "void" if at else "reject", bool(at), "chat@c8", 1.2, 1.11, 1.3, 3, 0)
        for at in range(2)
    ]
    found = Found(rows, [Interval("chat@c8", (1.11, 1.3), None)], None, {}, {"r": "noise"}, 0.95)
    said = summary(found, wall_s=1.0)
    assert (said["comparisons"], said["false_promotions"], said["void_runs"]) == (2, 1, 1)
    assert (said["intervals"], said["intervals_above_1"], said["intervals_below_1"]) == (1, 1, 0)
    assert "1 of 2 comparisons would have been promoted" in generated(found, said, "here")


def test_copies_are_the_baseline_but_in_name_and_claim_every_load_point(tmp_path: Path) -> None:
    path = write_copies(LAPTOP, tmp_path / "aa", arms=6, seed=3)
    loaded, source = load_study(path), load_study(LAPTOP)
    assert loaded.policy == source.policy.model_copy(update={"attempts": "free"})
    assert not loaded.study.reuse_baseline
    assert loaded.study.seed == 3
    assert [arm.name for arm in loaded.study.candidates] == [f"copy-{number}" for number in range(1, 7)]
    points = [point.name for point in source.study.load_points]
    assert [arm.claim.load_point for arm in loaded.study.candidates] == [*points, points[0]]
    for arm in loaded.study.candidates:
        assert (arm.env, arm.weights, arm.chat_template, arm.engine) == ({}, None, None, None)
        assert list(arm.args) == [MARK]
    assert yaml.safe_load(path.read_text())["model"]["weights"].startswith("/")
