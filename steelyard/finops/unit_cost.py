"""What a million tokens cost on each arm: the price of the machine over the tokens it gives."""

from __future__ import annotations

import math
from collections.abc import Sequence

from steelyard.comparisons import trials_by_point, usd_per_million, values_of
from steelyard.finops.price_book import Price
from steelyard.records import ArmRow, UnitCostRow
from steelyard.records_trials import TrialRow
from steelyard.stats.paired import Estimate, mean_interval, t_quantile


def cost_interval(usd_per_hour: float, tokens_per_s: Sequence[float], confidence: float) -> Estimate:
    """USD per million tokens from the token rates of blocks: usd/h / (tokens/s * 3600) * 1e6.

    The geometric mean over blocks with a log-t interval, so that a ratio of two such costs is the ratio of the rates.
    A block without a single token costs infinitely much: then the upper bound is None (unbounded), the estimate is
    the price over the arithmetic mean rate, and the lower bound comes from a t-interval of the rates themselves. If no
    block gave a token, nothing is known but the price.
    """
    rates = [float(rate) for rate in tokens_per_s]
    if not rates or min(rates) > 0:
        return mean_interval([usd_per_hour / (rate * 3600) * 1e6 for rate in rates], confidence)
    n = len(rates)
    method = "t over rates, a block without tokens"
    mean = math.fsum(rates) / n
    if n < 2 or mean <= 0:
        return Estimate(usd_per_million(usd_per_hour, max(mean, 0.0)), None, None, n, method)
    variance = math.fsum((rate - mean) ** 2 for rate in rates) / (n - 1)
    fastest = mean + t_quantile(confidence, n - 1) * math.sqrt(variance / n)
    return Estimate(usd_per_million(usd_per_hour, mean), usd_per_million(usd_per_hour, fastest), None, n, method)


def unit_costs(
    run_id: str, arms: Sequence[ArmRow], trials: Sequence[TrialRow], price: Price, confidence: float
) -> list[UnitCostRow]:
    """One row per arm and load point it was tried at, over its valid blocks. USD per million tokens.

    The price is that of the whole machine an engine occupies, the same for every arm. An arm with only invalid trials
    gets a row with unknown costs; an arm never tried gets none.
    """
    rows: list[UnitCostRow] = []
    for point, by_arm in trials_by_point(run_id, trials).items():
        for arm in arms:
            if arm.run_id != run_id or arm.arm not in by_arm:
                continue
            output = values_of(by_arm[arm.arm], "output_tokens_per_s")
            good = values_of(by_arm[arm.arm], "slo_tokens_per_s")
            per_output = cost_interval(price.usd_per_hour, list(output.values()), confidence)
            per_good = cost_interval(price.usd_per_hour, list(good.values()), confidence)
            rows.append(
                UnitCostRow(
                    run_id=run_id, arm=arm.arm, deployment_digest=arm.deployment_digest, load_point=point,
                    price=price.name, usd_per_hour=price.usd_per_hour,
                    blocks=len({trial.block for trial in by_arm[arm.arm] if trial.valid}), confidence=confidence,
                    usd_per_million_output_tokens=per_output.value,
                    output_low=per_output.low, output_high=per_output.high,
                    usd_per_million_slo_tokens=per_good.value,
                    slo_low=per_good.low, slo_high=per_good.high,
                )
            )  # fmt: skip
    return rows
