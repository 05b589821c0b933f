"""Drift: a planted change is named with its night and direction, and an odd night or an upgrade is none."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from steelyard.cli_drift import show
from steelyard.drift import drifts

FIRST = datetime(2026, 1, 1, 2, tzinfo=UTC)


def figure(night: int, estimate: float, **changes: Any) -> dict[str, Any]:
    return {
        "study": "laptop", "run_id": f"run-{night:02d}", "started_at": FIRST + timedelta(days=night), "arm": "bf16",
        "role": "candidate", "metric": "output_tokens_per_s", "scope": "chat@c8", "kind": "ratio",
        "estimate": estimate, "low": estimate * 0.97, "high": estimate * 1.03, "baseline_value": 100.0,
        "deployment": "a", "baseline": "b", "conditions": "c", **changes,
    }  # fmt: skip


def nights(levels: list[float], spread: float = 0.02, seed: int = 1, **changes: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        figure(night, float(level * math.exp(spread * rng.standard_normal())), **changes)
        for night, level in enumerate(levels)
    ]


def test_a_regression_is_found_on_its_second_night_at_the_latest() -> None:
    late = 0
    for seed in range(50):
        found = drifts(nights([1.4] * 17 + [1.2] * 2, seed=seed))
        late += not found
        for each in found:
            assert (each.run_id, each.worse, each.what, each.nights) == ("run-17", True, "gain", 2)
            assert each.before == pytest.approx(1.4, rel=0.03)
            assert each.after == pytest.approx(1.2, rel=0.05)
    assert late <= 2


def test_a_noisy_night_is_no_drift() -> None:
    for seed in range(30):
        levels = [1.4] * 9 + [1.1] + [1.4] * 20
        assert [each for each in drifts(nights(levels, seed=seed)) if each.worse and each.nights > 1] == []


def test_less_is_better_for_latency_cost_and_harm() -> None:
    for metric, worse in (("e2e_p50_s", True), ("usd_per_million_output_tokens", True), ("goodput_per_s", False)):
        [found] = drifts(nights([0.8] * 12 + [1.0] * 6, metric=metric))
        assert found.worse is worse, metric
    [harm] = drifts(nights([0.01] * 12 + [0.09] * 6, metric="safe_to_unsafe", kind="share", spread=0.1))
    assert harm.worse
    [score] = drifts(nights([-0.01] * 12 + [-0.08] * 6, metric="score", kind="difference", spread=0.1))
    assert score.worse


def test_the_identity_control_tells_of_the_baseline_and_of_the_noise() -> None:
    rows = nights([1.0] * 24, role="identity", arm="identity")
    rng = np.random.default_rng(5)
    for night, row in enumerate(rows):
        row["baseline_value"] = 100 * math.exp(0.01 * rng.standard_normal()) * (0.9 if night >= 15 else 1)
        width = (0.2 if night >= 18 else 0.05) * math.exp(0.1 * rng.standard_normal())
        row["low"], row["high"] = row["estimate"] * math.exp(-width), row["estimate"] * math.exp(width)
    found = {each.what: each for each in drifts(rows)}
    assert set(found) == {"baseline", "noise"}
    assert (found["baseline"].run_id, found["baseline"].worse) == ("run-15", True)
    assert found["baseline"].after == pytest.approx(90, rel=0.02)
    assert (found["noise"].run_id, found["noise"].worse) == ("run-18", True)
    assert found["noise"].after == pytest.approx(math.expm1(0.2), rel=0.2)


def test_another_deployment_is_another_figure() -> None:
    rows = nights([1.4] * 15 + [1.1] * 15)
    for row in rows[15:]:
        row["deployment"] = "upgraded"
    assert drifts(rows) == []
    for row in rows:
        row["deployment"] = "a"
    assert len(drifts(rows)) == 1


def test_unknown_values_are_left_out() -> None:
    rows = nights([1.4] * 12 + [1.0] * 6)
    rows[3]["estimate"] = None
    rows[4]["estimate"] = math.nan
    rows[5]["estimate"] = 0.0
    [found] = drifts(rows)
    assert found.run_id == "run-12"
    assert drifts([]) == []


def test_the_more_figures_the_surer_each_must_be() -> None:
    """Two hundred figures without any change, thirty nights each: hardly ever one that is said to have changed."""
    false = 0
    for seed in range(5):
        rows = [row for scope in range(200) for row in nights([1.0] * 30, seed=1000 * seed + scope, scope=str(scope))]
        false += len(drifts(rows))
    assert false <= 2


def test_it_is_told_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = drifts(nights([1.4] * 12 + [1.1] * 6))
    assert show(found, followed=18, as_json=False) == 0
    out = capsys.readouterr().out
    assert "output_tokens_per_s of bf16 at chat@c8" in out
    assert "worse" in out
    assert "2026-01-13" in out
    assert show(found, followed=18, as_json=True) == 0
    [told] = json.loads(capsys.readouterr().out)
    assert (told["run_id"], told["worse"], told["night"]) == ("run-12", True, "2026-01-13")
    assert show([], followed=18, as_json=False) == 0
    assert "No change of level in 18 comparisons" in capsys.readouterr().out
