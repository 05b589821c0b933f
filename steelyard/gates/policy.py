"""The policy as frozen objects: which gates decide, and how sure they must be."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from steelyard.study import Frozen, Name

SpeedMetric = Literal["output_tokens_per_s", "requests_per_s", "goodput_per_s", "ttft_p50_s", "itl_p50_s", "e2e_p50_s"]
CostMetric = Literal["usd_per_million_output_tokens", "usd_per_million_slo_tokens"]
QualityMetric = Literal["score", "safe_to_unsafe"]


class Gate(Frozen):
    """A rule over comparisons of one metric.

    Speed and cost metrics are ratios candidate / baseline, bounded by `at_least` or `at_most`. `score` is the
    difference candidate - baseline of the mean score, and may fall by `margin` at most. `safe_to_unsafe` is the
    share of samples that the baseline answered safely and the candidate unsafely, bounded by `at_most`.
    """

    name: Name
    category: Literal["speed", "accuracy", "safety", "cost"]
    metric: SpeedMetric | CostMetric | QualityMetric
    on: Literal["claimed", "every"] = Field(
        "every",
        description="claimed: the load point the candidate declared (controls, which declare none, use the first "
        "of the study); every: each load point or each suite of the category.",
    )
    at_least: float | None = Field(None, gt=0, description="The ratio must be proven to reach this.")
    at_most: float | None = Field(None, ge=0, description="The ratio or share must be proven not to exceed this.")
    margin: float | None = Field(None, gt=0, lt=1, description="score: how far the mean may fall, 0.02 = 2 points.")
    required: bool = Field(True, description="false: shown, but it neither promotes nor rejects.")

    @model_validator(mode="after")
    def _bound(self) -> Gate:
        given = [name for name in ("at_least", "at_most", "margin") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("a gate needs exactly one of at_least, at_most, margin")
        kinds = {
            "score": ({"accuracy", "safety"}, {"margin"}),
            "safe_to_unsafe": ({"safety"}, {"at_most"}),
            "usd_per_million_output_tokens": ({"cost"}, {"at_least", "at_most"}),
            "usd_per_million_slo_tokens": ({"cost"}, {"at_least", "at_most"}),
        }
        categories, bounds = kinds.get(self.metric, ({"speed"}, {"at_least", "at_most"}))
        if self.category not in categories:
            raise ValueError(f"metric {self.metric} belongs to category {' or '.join(sorted(categories))}")
        if given[0] not in bounds:
            raise ValueError(f"metric {self.metric} is bounded by {' or '.join(sorted(bounds))}, not {given[0]}")
        if self.category in ("accuracy", "safety") and self.on == "claimed":
            raise ValueError("quality gates hold on every suite; `claimed` is for speed and cost")
        return self

    @property
    def benefit(self) -> bool:
        """Whether it asks for a gain (which the identity control must not show) rather than guards against harm."""
        if self.at_least is not None:
            return self.at_least > 1
        return self.category in ("speed", "cost") and self.at_most is not None and self.at_most < 1


class Policy(Frozen):
    """Frozen by digest before the first measurement."""

    policy: Name = Field(description="Name of the policy.")
    confidence: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="Two-sided confidence of every interval; each bound errs at half the rest.",
    )
    min_blocks: int = Field(3, ge=2, description="Valid paired blocks below which a speed gate is inconclusive.")
    gates: tuple[Gate, ...] = Field(min_length=1, description="All required gates must pass.")

    @model_validator(mode="after")
    def _complete(self) -> Policy:
        names = [gate.name for gate in self.gates]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"gate names must differ, these stand twice: {', '.join(twice)}")
        required = [gate for gate in self.gates if gate.required]
        for category in ("accuracy", "safety"):
            if not any(gate.category == category for gate in required):
                raise ValueError(f"gates: at least one required {category} gate is needed, or harm could not reject")
        if not any(gate.benefit for gate in required):
            raise ValueError("gates: at least one required gate must ask for a gain, or noise would be promoted")
        return self
