"""The policy as frozen objects: which gates decide, and how sure they must be."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from steelyard.study_base import Frozen, Name
from steelyard.study_rules import Misfit, Misfits, duplicates

SpeedMetric = Literal["output_tokens_per_s", "requests_per_s", "goodput_per_s", "ttft_p50_s", "itl_p50_s", "e2e_p50_s"]
CapacityMetric = Literal["capacity_per_s"]
CostMetric = Literal["usd_per_million_output_tokens", "usd_per_million_slo_tokens"]
QualityMetric = Literal["score", "safe_to_unsafe", "broken_canaries"]
DivergenceMetric = Literal["kl_nats", "top1_agreement", "same_answer"]
QUALITY = ("canary", "safety", "accuracy")
"""Categories of suites, and of the gates that judge them; the gravest harm first."""
SCORED = ("safety", "accuracy")
"""Those whose suites are scored and compared in their means: what a known-bad control must be refused by."""
OVER_BLOCKS = ("speed", "capacity", "cost")
"""Those that compare over blocks, at load points or at the SLO."""
CATEGORIES = (*QUALITY, "divergence", *OVER_BLOCKS)
"""All categories of gates, in the order in which people should read them."""
KINDS = {
    "score": "difference", "safe_to_unsafe": "share", "kl_nats": "nats", "top1_agreement": "share",
    "same_answer": "share", "broken_canaries": "count",
}  # fmt: skip
"""What a comparison of a metric is; a ratio where none is named."""
BOUNDED = {
    "score": ({"accuracy", "safety"}, {"margin"}),
    "safe_to_unsafe": ({"safety"}, {"at_most"}),
    "broken_canaries": ({"canary"}, {"at_most"}),
    # More of a rate is better and more of a latency or a cost is worse: the other bound would ask for harm.
    "ttft_p50_s": ({"speed"}, {"at_most"}),
    "itl_p50_s": ({"speed"}, {"at_most"}),
    "e2e_p50_s": ({"speed"}, {"at_most"}),
    "capacity_per_s": ({"capacity"}, {"at_least"}),
    "usd_per_million_output_tokens": ({"cost"}, {"at_most"}),
    "usd_per_million_slo_tokens": ({"cost"}, {"at_most"}),
    "kl_nats": ({"divergence"}, {"at_most"}),
    "top1_agreement": ({"divergence"}, {"at_least"}),
    "same_answer": ({"divergence"}, {"at_least"}),
}
"""By metric: the categories it belongs to and the bounds a gate may put on it; a speed and `at_least` if not named."""
LESS_IS_BETTER = frozenset(metric for metric, (_, bounds) in BOUNDED.items() if bounds == {"at_most"})
"""Metrics of which more is worse."""
DIVERGENCE_SCOPE = "prompts"
"""Scope of every divergence: all prompts of the screen together."""


class Gate(Frozen):
    """A rule over comparisons of one metric.

    Speed, capacity and cost metrics are ratios candidate / baseline: rates and capacities are bounded by `at_least`,
    latencies and costs by `at_most`;
    `capacity_per_s` is the largest arrival rate at which a workload's SLO holds, as the study's `capacity` section
    searches it. `score` is the difference candidate - baseline of the mean score, and may fall by `margin` at most.
    `safe_to_unsafe` is the share of samples that met their safety suite at the baseline and fail it at the candidate,
    bounded by `at_most`.
    `broken_canaries` counts the documents of a canary suite that hold at the baseline and not at the candidate, bounded
    by `at_most`, which is 0 for no tolerance at all. It is a count and no estimate, so no confidence belongs to it.

    Divergence gates are a screen: they fail if the bound is proven broken and pass otherwise, so they may reject and
    prove nothing good. `kl_nats` is the mean KL divergence from the baseline in nats a token, bounded by `at_most`;
    `top1_agreement` (same likeliest token) and `same_answer` (same greedy answer) are shares, bounded by `at_least`.
    """

    name: Name = Field(description="Name of the gate in verdicts and reports.")
    category: Literal["speed", "capacity", "accuracy", "safety", "canary", "cost", "divergence"] = Field(
        description="What it guards or asks for."
    )
    metric: SpeedMetric | CapacityMetric | CostMetric | QualityMetric | DivergenceMetric = Field(
        description="Metric it bounds, see above."
    )
    on: Literal["claimed", "every"] = Field(
        "every",
        description="claimed: the load point the candidate declared, of a capacity its workload (controls, which "
        "declare none, are held to every point that a candidate claims); every: each load point, each capacity that is "
        "searched, each suite of the category, or all prompts.",
    )
    at_least: float | None = Field(
        None, gt=0, description="The ratio must be proven to reach this; a divergence share must not be proven below."
    )
    at_most: float | None = Field(
        None, ge=0, description="The ratio or share must be proven not to exceed this; kl_nats not be proven above."
    )
    margin: float | None = Field(None, gt=0, lt=1, description="score: how far the mean may fall, 0.02 = 2 points.")
    required: bool = Field(True, description="false: shown, but it neither promotes nor rejects.")
    confidence: float | None = Field(
        None,
        gt=0.5,
        lt=1,
        description="Two-sided confidence this gate asks for, not less than the policy's, which is the default. Its "
        "metric is then compared at that confidence for every gate. Not for screens, which it would weaken, nor for "
        "canaries, which are counted.",
    )

    @model_validator(mode="after")
    def _bound(self) -> Gate:
        given = [name for name in ("at_least", "at_most", "margin") if getattr(self, name) is not None]
        if len(given) != 1:
            at = tuple(given[1:2])
            raise Misfits(Misfit("a gate has exactly one bound.", "Give one of at_least, at_most, margin.", at))
        categories, bounds = BOUNDED.get(self.metric, ({"speed"}, {"at_least"}))
        if self.category not in categories:
            belongs = " or ".join(sorted(categories))
            raise Misfits(
                Misfit(f"metric {self.metric} is no {self.category} metric.", f"Write {belongs}.", ("category",))
            )
        if given[0] not in bounds:
            message = f"metric {self.metric} is not bounded by {given[0]}."
            raise Misfits(Misfit(message, f"Use {' or '.join(sorted(bounds))}.", (given[0],)))
        if self.category not in OVER_BLOCKS and self.on == "claimed":
            everywhere = "on all prompts" if self.category == "divergence" else "on every suite"
            remedy = f"{'Divergence' if self.category == 'divergence' else 'Quality'} gates hold {everywhere}."
            raise Misfits(Misfit("`claimed` is for speed, capacity and cost.", remedy, ("on",)))
        if self.category in ("divergence", "canary") and self.confidence is not None:
            message = f"a {self.category} gate has no confidence of its own."
            raise Misfits(Misfit(message, "Remove it.", ("confidence",)))
        if self.category == "divergence" and self.at_least is not None and self.at_least > 1:
            raise Misfits(Misfit("a share is 1 at most.", "Write a share, such as 0.95.", ("at_least",)))
        if self.metric == "safe_to_unsafe" and self.at_most is not None and self.at_most >= 1:
            message = "a share is less than 1: this bound could never be broken."
            raise Misfits(Misfit(message, "Write a share, such as 0.01 for one sample in a hundred.", ("at_most",)))
        return self

    @property
    def benefit(self) -> bool:
        """Whether it asks for a gain (which the identity control must not show) rather than guards against harm."""
        if self.category == "divergence":
            return False
        if self.at_least is not None:
            return self.at_least > 1
        return self.category in OVER_BLOCKS and self.at_most is not None and self.at_most < 1


class Policy(Frozen):
    """Frozen by digest before the first measurement."""

    policy: Name = Field(description="Name of the policy.")
    confidence: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="Two-sided confidence of intervals; each bound errs at half the rest.",
    )
    min_blocks: int = Field(3, ge=2, description="Valid paired blocks below which a speed gate is inconclusive.")
    stop_early: bool = Field(
        False,
        description="An arm stops being measured where its gates are decided. Intervals then stay valid however often "
        "they are looked at, and are wider for it (docs/explanation/how-a-verdict-is-made.md).",
    )
    attempts: Literal["spend", "free"] = Field(
        "free",
        description="spend: the k-th attempt of a candidate on one baseline may err 6/(pi^2 k^2) times as often as the "
        "confidence says, so that all attempts together keep the promise; free: each attempt stands alone.",
    )
    confirm: Literal["winner", "none"] = Field(
        "none",
        description="winner: a study of several candidates promotes nobody; its winner is measured again, alone, on "
        "sealed documents and fresh blocks (`steelyard confirm`), and that run promotes it. Who takes the best of many "
        "is else promoted by luck as often as there are candidates. none: each verdict promotes by itself.",
    )
    sign_offs: tuple[Name, ...] = Field(
        (),
        description="Roles of which each must approve a run's packet before anything of it is promoted, by people who "
        "differ and did not submit it (reviewers.yaml, `steelyard sign`); left out: gates alone decide.",
    )
    sign_off_days: int = Field(
        90, ge=1, le=3660, description="How long a sign-off counts at most; what rests on it is promoted no longer."
    )
    gates: tuple[Gate, ...] = Field(min_length=1, description="All required gates must pass.")

    @model_validator(mode="after")
    def _complete(self) -> Policy:
        found = duplicates("gates", [gate.name for gate in self.gates], "gate")
        found += [
            Misfit(f"role {role} stands twice.", "One person cannot sign twice; remove it.", ("sign_offs", at))
            for at, role in enumerate(self.sign_offs)
            if role in self.sign_offs[:at]
        ]
        required = [gate for gate in self.gates if gate.required]
        found += [
            Misfit(f"no required {category} gate.", f"Add a {category} gate, or harm could not reject.", ("gates",))
            for category in ("accuracy", "safety")
            if not any(gate.category == category for gate in required)
        ]
        found += [
            Misfit(
                f"gate {gate.name} asks for less confidence than the policy's {self.confidence:g}.",
                "A gate may ask for more, never for less.",
                ("gates", at, "confidence"),
            )
            for at, gate in enumerate(self.gates)
            if gate.confidence is not None and gate.confidence < self.confidence
        ]
        if not any(gate.benefit for gate in required):
            remedy = "Add one, such as output_tokens_per_s at_least 1.10, or noise would be promoted."
            found.append(Misfit("no required gate asks for a gain.", remedy, ("gates",)))
        if found:
            raise Misfits(*found)
        return self

    def asked(self, gate: Gate, attempt: int = 1) -> float:
        """Two-sided confidence that `gate` asks for at an arm's `attempt`.

        A screen passes whatever it does not refute, so more confidence would make it weaker with every attempt: it
        spends nothing.
        """
        error = 1 - (self.confidence if gate.confidence is None else gate.confidence)
        return 1 - error * (1.0 if gate.category == "divergence" else self.share(attempt))

    def share(self, attempt: int) -> float:
        """Share of the error that an `attempt` may spend, from 1: 6/(pi^2 k^2) sums to 1 (Euler), so no end need be
        declared.
        """
        return 1.0 if self.attempts == "free" else 6 / (math.pi**2 * attempt**2)

    def confidence_of(self, metric: str, attempt: int = 1) -> float:
        """Confidence at which a metric is compared: the most that a gate on it asks for."""
        asked = [self.asked(gate, attempt) for gate in self.gates if gate.metric == metric]
        return max(asked, default=self.confidence)
