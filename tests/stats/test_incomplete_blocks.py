"""Ratios over incomplete blocks: they equal paired ones where every block is whole, and cover the truth elsewhere."""

import math
import random

import pytest

from steelyard.stats.incomplete_blocks import Comparing, Observation
from steelyard.stats.paired import ratio_interval


def seen(config: str, block: int, value: float, stratum: str = "p") -> Observation:
    return Observation(config=config, stratum=stratum, block=block, value=value)


def noisy(seed: int, effects: dict[str, float], blocks: list[list[str]], strata: str = "xyz") -> list[Observation]:
    rng = random.Random(seed)
    found = []
    for stratum in strata:
        for number, configs in enumerate(blocks):
            shared = rng.gauss(0, 0.3)
            found += [
                seen(each, number, math.exp(effects[each] + shared + rng.gauss(0, 0.05)), stratum) for each in configs
            ]
    return found


def test_two_configurations_in_every_block_are_a_paired_comparison() -> None:
    rows = noisy(3, {"a": 0.0, "b": 0.5}, [["a", "b"]] * 5, strata="p")
    pairs = [(rows[2 * number + 1].value, rows[2 * number].value) for number in range(5)]
    ours, paired = Comparing(rows).ratio("b", "a", 0.9), ratio_interval(pairs, 0.9)
    assert ours.value == pytest.approx(paired.value)
    assert (ours.low, ours.high) == pytest.approx((paired.low, paired.high))


def test_configurations_that_share_no_block_are_compared_through_a_third() -> None:
    rows = [seen("a", 0, 1.0), seen("b", 0, 2.0), seen("b", 1, 20.0), seen("c", 1, 60.0)]
    assert Comparing(rows).ratio("c", "a", 0.9).value == pytest.approx(6.0)


def test_configurations_that_nothing_connects_are_not_compared() -> None:
    found = Comparing([seen("a", 0, 1.0), seen("b", 1, 2.0)]).ratio("b", "a", 0.9)
    assert (found.value, found.low, found.high) == (None, None, None)


def test_one_stratum_that_does_not_connect_them_makes_the_ratio_unknown() -> None:
    rows = [seen("a", 0, 1.0), seen("b", 0, 2.0), seen("a", 0, 1.0, "other"), seen("b", 1, 2.0, "other")]
    assert Comparing(rows).ratio("b", "a", 0.9).value is None


def test_without_residuals_there_is_no_interval() -> None:
    found = Comparing([seen("a", 0, 1.0), seen("b", 0, 2.0)]).ratio("b", "a", 0.9)
    assert (found.value, found.low, found.high) == (pytest.approx(2.0), None, None)


def test_swapping_the_sides_inverts_ratio_and_bounds() -> None:
    compare = Comparing(noisy(1, {"a": 0.0, "b": 0.2, "c": 0.1}, [["a", "b"], ["b", "c"], ["a", "c"]]))
    one, other = compare.ratio("a", "b", 0.9), compare.ratio("b", "a", 0.9)
    assert one.value is not None
    assert other.low is not None
    assert one.value == pytest.approx(1 / other.value)
    assert one.high == pytest.approx(1 / other.low)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    effects = {name: 0.1 * place for place, name in enumerate("abcdef")}
    blocks = [list("abcd"), list("abcd"), list("def"), list("def")]
    hits = total = 0
    for seed in range(300):
        compare = Comparing(noisy(seed, effects, blocks))
        for one, other in (("b", "a"), ("f", "a"), ("e", "d")):
            found = compare.ratio(one, other, 0.9)
            assert found.low is not None
            assert found.high is not None
            hits += found.low <= math.exp(effects[one] - effects[other]) <= found.high
            total += 1
    assert 0.86 <= hits / total <= 0.94


def test_a_stratum_that_must_be_there_and_is_not_makes_every_ratio_unknown() -> None:
    rows = [seen("a", 0, 1.0), seen("b", 0, 2.0)]
    assert Comparing(rows, ["p"]).ratio("b", "a", 0.9).value == pytest.approx(2.0)
    assert Comparing(rows, ["p", "q"]).ratio("b", "a", 0.9).value is None


def test_a_value_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        Comparing([seen("a", 0, 0.0)])


def test_a_configuration_over_itself_is_one() -> None:
    compare = Comparing(noisy(1, {"a": 0.0, "b": 0.2}, [["a", "b"]] * 3))
    found = compare.ratio("a", "a", 0.9)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
