"""A gate that asks for harm, or that nothing can break, is refused where it is written."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from steelyard.gates.policy import Gate


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ({"category": "speed", "metric": "ttft_p50_s", "at_least": 1.1}, "not bounded by at_least"),
        ({"category": "speed", "metric": "e2e_p50_s", "at_least": 1.1}, "not bounded by at_least"),
        ({"category": "cost", "metric": "usd_per_million_slo_tokens", "at_least": 1.1}, "not bounded by at_least"),
        ({"category": "speed", "metric": "output_tokens_per_s", "at_most": 0.9}, "not bounded by at_most"),
        ({"category": "speed", "metric": "goodput_per_s", "at_most": 0.9}, "not bounded by at_most"),
        ({"category": "capacity", "metric": "capacity_per_s", "at_most": 0.9}, "not bounded by at_most"),
        ({"category": "safety", "metric": "safe_to_unsafe", "at_most": 2}, "this bound could never be broken"),
        ({"category": "safety", "metric": "safe_to_unsafe", "at_most": 1.0}, "this bound could never be broken"),
    ],
)
def test_bounds_that_ask_for_harm_or_for_nothing(gate: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Gate(name="gate", **gate)


@pytest.mark.parametrize(
    ("gate", "benefit"),
    [
        ({"category": "speed", "metric": "ttft_p50_s", "at_most": 0.8}, True),
        ({"category": "speed", "metric": "ttft_p50_s", "at_most": 1.2}, False),
        ({"category": "speed", "metric": "goodput_per_s", "at_least": 0.8}, False),
        ({"category": "cost", "metric": "usd_per_million_slo_tokens", "at_most": 0.9}, True),
        ({"category": "capacity", "metric": "capacity_per_s", "at_least": 1.1}, True),
    ],
)
def test_gains_and_guards(gate: dict[str, Any], benefit: bool) -> None:
    assert Gate(name="gate", **gate).benefit is benefit
