from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.finops.price_book import Price
from steelyard.finops.unit_cost import cost_interval, unit_costs
from steelyard.records import ArmRow
from steelyard.records_trials import TrialRow

PRICE = Price(name="box", usd_per_hour=0.36, source="an invoice", dated=date(2026, 11, 1))


def arm(name: str, run: str = "run-1") -> ArmRow:
    return ArmRow(
        run_id=run, arm=name, role="candidate", lever=None, claim=None, note=None, engine="fake", engine_version=None,
        deployment_digest=f"digest-{name}", weights_digest=None, tokenizer_digest=None, template_digest=None,
        args_json="{}", env_json="{}", resolved_json=None, start_s=None, status="served", error=None,
    )  # fmt: skip


def trial(name: str, block: int, output: float | None, good: float | None, *, valid: bool = True) -> TrialRow:
    return TrialRow(
        trial_id=f"{name}-{block}", run_id="run-1", arm=name, deployment_digest=f"digest-{name}", workload="chat",
        load_point="chat@c8", block=block, position=0, started_at=datetime(2026, 11, 21, tzinfo=UTC), duration_s=10.0,
        requests=10, completed=10, failed=0, input_tokens=100, output_tokens=100, cached_tokens=None,
        output_tokens_per_s=output, requests_per_s=1.0, goodput_per_s=1.0, slo_tokens_per_s=good, slo_share=1.0,
        ttft_p50_s=0.1, ttft_p95_s=None, itl_p50_s=0.01, itl_p95_s=None, e2e_p50_s=1.0, e2e_p95_s=None,
        lateness_p95_s=None, client_cpu_share=None, engine_output_tokens=None, valid=valid, invalid_reasons=[],
    )  # fmt: skip


def test_a_dollar_an_hour_at_a_hundred_tokens_a_second() -> None:
    # 1 USD/h over 360 000 tokens/h is 2.78 USD a million.
    assert cost_interval(1.0, [100.0, 100.0], 0.95).value == pytest.approx(1e6 / 360_000)


@given(st.lists(st.floats(1, 1e5), min_size=2, max_size=8), st.floats(0.01, 100))
def test_bounds_hold_the_estimate_and_scale_with_the_price(rates: list[float], usd: float) -> None:
    one, many = cost_interval(1.0, rates, 0.95), cost_interval(usd, rates, 0.95)
    assert one.low is not None
    assert one.high is not None
    assert one.value is not None
    assert one.low <= one.value * (1 + 1e-9)
    assert one.value <= one.high * (1 + 1e-9)
    assert many.value == pytest.approx(usd * one.value)
    assert many.high == pytest.approx(usd * one.high)


def test_a_block_without_tokens_makes_the_cost_unbounded_above() -> None:
    cost = cost_interval(0.36, [100.0, 0.0, 110.0], 0.95)
    assert cost.value == pytest.approx(0.36 / (70 * 3600) * 1e6)
    assert cost.high is None
    assert cost.low is not None
    assert 0 < cost.low < cost.value


@pytest.mark.parametrize("rates", [[], [0.0], [0.0, 0.0, 0.0]])
def test_no_tokens_at_all_is_unknown_and_not_free(rates: list[float]) -> None:
    cost = cost_interval(0.36, rates, 0.95)
    assert (cost.value, cost.low, cost.high) == (None, None, None)


def test_a_row_for_each_arm_tried_over_valid_blocks_only() -> None:
    trials = [trial("fast", block, 200.0 + block, 0.0 if block == 2 else 150.0) for block in range(4)]
    trials += [trial("fast", 4, 1e9, 1e9, valid=False), trial("slow", 0, 100.0, None)]
    trials += [trial("stranger", 0, 1.0, 1.0)]
    rows = unit_costs("run-1", [arm("fast"), arm("slow"), arm("never")], trials, PRICE, 0.95)
    assert [row.arm for row in rows] == ["fast", "slow"]
    fast, slow = rows
    assert (fast.blocks, fast.price, fast.usd_per_hour, fast.load_point) == (4, "box", 0.36, "chat@c8")
    assert fast.usd_per_million_output_tokens == pytest.approx(0.36 / (201.5 * 3600) * 1e6, rel=1e-4)
    assert fast.output_low is not None
    assert fast.slo_low is not None
    assert fast.slo_high is None
    assert slow.usd_per_million_output_tokens == pytest.approx(1.0)
    assert (slow.output_low, slow.output_high, slow.usd_per_million_slo_tokens) == (None, None, None)
    assert fast.deployment_digest == "digest-fast"


def test_only_invalid_trials_is_a_row_without_a_cost() -> None:
    row = unit_costs("run-1", [arm("fast")], [trial("fast", 0, 100.0, 100.0, valid=False)], PRICE, 0.95)[0]
    assert (row.blocks, row.usd_per_million_output_tokens, row.usd_per_million_slo_tokens) == (0, None, None)


def test_other_runs_do_not_count() -> None:
    assert unit_costs("run-2", [arm("fast", "run-2")], [trial("fast", 0, 1.0, 1.0)], PRICE, 0.95) == []
