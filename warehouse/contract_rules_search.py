"""The rules of a search's tables; see `contract_rules`."""

from __future__ import annotations

from typing import get_args

from steelyard.tuning.levers import RISKS
from steelyard.tuning.terms import Fate, Stage
from warehouse.contract_words import Rule, above_zero, absent, at_least, not_less, one_of, required

SEARCH_RULES: dict[str, tuple[Rule, ...]] = {
    "stacks": (
        *at_least(0, "round", "blocks_measured"),
        one_of("stage", *get_args(Stage)),
        one_of("fate", *get_args(Fate)),
        one_of("answer_risk", *RISKS),
        *above_zero("gain", "gain_low", "gain_high", "total", "total_low", "total_high"),
        *above_zero("tokens_ratio", "latency_ratio", "usd_per_million"),
        not_less("gain", "gain_low"),
        not_less("gain_high", "gain"),
        not_less("total", "total_low"),
        not_less("total_high", "total"),
        required("reason", 'fate in ["failed", "harmful", "not tried"]', "a reason of what has no figures"),
        absent("gain", 'fate == "not tried"', "no figure of what was not tried"),
    ),
}
