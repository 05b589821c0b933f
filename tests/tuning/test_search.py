"""The search on a bench of known truth: it finds what is best there, measures interactions, and says why it ended."""

import dataclasses
import math
from functools import partial

import pytest

from steelyard.errors import InputError
from steelyard.tuning.knobs import Knobs
from steelyard.tuning.search import Found, Search, ordered
from steelyard.tuning.stack import Stack
from steelyard.tuning.terms import Settings
from tests.tuning.bench import KnownBench, pull

GAINS = {"a": 1.8, "b": 1.15, "c": 1.0, "d": 0.8, "e": 1.05, "f": 1.3, "g": 1.0}


def truth(stack: Stack, **more: float) -> float:
    """`f` takes from `a` more than it gives; `c` pays only beside `a`; 32 sequences are best."""
    value = 1.0
    for lever in stack.levers:
        value *= {**GAINS, **more}[lever]
    if {"a", "f"} <= set(stack.levers):
        value *= 0.7
    if {"a", "c"} <= set(stack.levers):
        value *= 1.2
    return value * {4: 0.8, 8: 1.0, 16: 1.1, 32: 1.3, 64: 1.2}.get(stack.knobs.get("max_num_seqs", 8), 0.4)


def searched(bench: KnownBench, *names: str, knobs: Knobs | None = None, **settings: object) -> tuple[Found, Search]:
    pulls = [pull(name) for name in names or GAINS]
    search = Search(bench, dataclasses.replace(Settings(), **settings), lambda _: None, pulls=pulls)  # type: ignore[arg-type]
    return search.run(knobs), search


def fates(search: Search, stage: str) -> dict[str, str]:
    return {each.varied: each.fate for each in search.tried if each.stage == stage}


@pytest.mark.parametrize("seed", range(4))
def test_interactions_decide_what_is_stacked(seed: int) -> None:
    found, _ = searched(KnownBench(truth, seed=seed))
    assert found.winner is not None
    assert {"a", "b", "c"} <= set(found.winner.levers)
    assert not {"d", "f"} & set(found.winner.levers)
    assert found.stopped is None


def test_levers_are_screened_alone_first() -> None:
    _, search = searched(KnownBench(truth))
    alone = fates(search, "screen")
    assert alone["+a"] == "kept"
    assert alone["+d"] == "slower"
    assert alone["+c"] == "no gain"


def test_numbers_are_set_on_the_stack() -> None:
    resolved = {"scheduler_config": {"max_num_seqs": 8}}
    found, search = searched(KnownBench(truth), "a", "b", knobs=Knobs(None, lambda _: resolved, 3))
    assert found.winner is not None
    assert found.winner.knobs.get("max_num_seqs") in (32, 64)
    assert "numbers" in {each.stage for each in search.tried}


def test_numbers_alone_can_win() -> None:
    knobs = Knobs({"max_num_seqs": (8, 32)}, lambda _: {"scheduler_config": {"max_num_seqs": 8}}, 3)
    found, _ = searched(KnownBench(truth), "g", knobs=knobs)
    assert found.winner is not None
    assert (found.winner.levers, dict(found.winner.knobs)) == ((), {"max_num_seqs": 32})


def test_where_nothing_pays_nobody_wins() -> None:
    found, _ = searched(KnownBench(truth), "d", "g")
    assert found == Found(winner=None, safe=None, stopped=None)


def test_what_no_engine_serves_is_left_out_and_named() -> None:
    bench = KnownBench(truth, broken={"a": "no kernel for it"})
    found, search = searched(bench)
    assert found.winner is not None
    assert "a" not in found.winner.levers
    assert search.refused["a"] == ("failed", "no kernel for it")


def test_levers_that_do_not_serve_together_are_put_together_one_by_one() -> None:
    bench = KnownBench(truth, clashing=frozenset({"a", "b"}))
    found, search = searched(bench, "a", "b", "e")
    assert found.winner is not None
    assert "a" in found.winner.levers
    assert "b" not in found.winner.levers
    assert any("cannot be used together" in (each.reason or "") for each in search.tried)


def test_a_lever_that_pays_and_harms_is_no_part_of_the_answer() -> None:
    bench = KnownBench(partial(truth, risky=2.0), harmful={"risky": "accuracy fell by 12 points"})
    pulls = [pull("risky", risk="approximation"), pull("b")]
    search = Search(bench, Settings(), lambda _: None, pulls=pulls)
    found = search.run()
    assert found.winner is not None
    assert found.winner.levers == ("b",)
    assert search.refused["risky"] == ("harmful", "accuracy fell by 12 points")
    assert bench.asked == ["risky"]


def test_beside_a_risky_winner_stands_the_best_that_only_rounds() -> None:
    pulls = [pull("narrow", risk="approximation"), pull("b")]
    search = Search(KnownBench(partial(truth, narrow=1.5)), Settings(), lambda _: None, pulls=pulls)
    found = search.run()
    assert found.winner is not None
    assert set(found.winner.levers) == {"narrow", "b"}
    assert found.safe is not None
    assert found.safe.levers == ("b",)


def test_levers_that_exclude_each_other_are_never_pulled_together() -> None:
    speeds = {"small": 1.3, "large": 1.6}
    bench = KnownBench(lambda stack: speeds[stack.levers[-1]] if stack.levers else 1.0)
    search = Search(bench, Settings(), lambda _: None, pulls=[pull("small", seqs=8), pull("large", seqs=64)])
    found = search.run()
    assert found.winner is not None
    assert found.winner.levers == ("large",)
    assert all(len(each.stack.levers) < 2 for each in search.tried)


def test_levers_of_the_start_are_in_every_stack() -> None:
    found, search = searched(KnownBench(truth), "d", "a", "b", start=("d",))
    assert found.winner is not None
    assert "d" in found.winner.levers
    assert all("d" in each.stack.levers for each in search.tried[1:])
    # Beside the baseline, so that gains over it are known.
    assert search.ratio(found.winner, search.baseline).value is not None


def test_a_lever_that_cannot_be_pulled_alone_is_tried_in_the_stack() -> None:
    bench = KnownBench(partial(truth, after=1.4), taken=("after",))
    search = Search(
        bench, Settings(), lambda _: None, pulls=[pull("a"), pull("b")], later=[pull("after"), pull("never")]
    )
    found = search.run()
    assert found.winner is not None
    assert set(found.winner.levers) == {"a", "b", "after"}
    assert "+after" not in fates(search, "screen")


def test_a_budget_that_allows_no_comparison_is_an_error_that_says_what_would() -> None:
    with pytest.raises(
        InputError, match=r"one block of 7 arms takes 70 s here, and nothing can be said before 2"
    ) as told:
        searched(KnownBench(truth, budget_s=75, seconds=10.0))
    assert "--levers" in told.value.remedy


def test_a_spent_budget_ends_the_search_with_what_it_has() -> None:
    found, search = searched(KnownBench(truth, budget_s=30, seconds=1.0), together=3)
    assert found.stopped == "the budget was spent"
    assert found.winner is not None
    assert any(each.fate == "not tried" for each in search.tried)


def test_a_search_that_is_begun_again_asks_the_same() -> None:
    one, other = (searched(KnownBench(truth, seed=7)) for _ in range(2))
    assert [(each.stack.identity, each.fate) for each in one[1].tried] == [
        (each.stack.identity, each.fate) for each in other[1].tried
    ]


def test_the_most_promising_come_first_and_what_promises_nothing_last() -> None:
    names = [
        each.name for each in ordered([pull("none", predicted=0.98), pull("unknown"), pull("much", predicted=1.5)])
    ]
    assert names == ["much", "unknown", "none"]


def test_a_lever_that_pays_only_with_other_numbers_is_found() -> None:
    def speed(stack: Stack) -> float:
        wide = stack.knobs.get("max_num_seqs", 2) == 32
        return (2.0 if wide else 1.0) * (1.3 if wide and "late" in stack.levers else 1.0)

    knobs = Knobs({"max_num_seqs": (2, 32)}, lambda _: {"scheduler_config": {"max_num_seqs": 2}}, 3)
    found, search = searched(KnownBench(speed), "late", knobs=knobs)
    assert found.winner is not None
    assert (found.winner.levers, dict(found.winner.knobs)) == (("late",), {"max_num_seqs": 32})
    assert fates(search, "screen") == {"+late": "no gain"}


@pytest.mark.parametrize("seed", range(3))
def test_on_a_noisy_machine_a_gain_worth_having_gets_more_blocks(seed: int) -> None:
    found, search = searched(KnownBench(lambda stack: 1.3 if "a" in stack.levers else 1.0, noise=0.15, seed=seed), "a")
    assert found.winner is not None
    assert found.winner.levers == ("a",)
    assert max(each.blocks for each in search.tried) > 2


@pytest.mark.parametrize("seed", range(3))
def test_no_two_stacks_are_raced_twice(seed: int) -> None:
    knobs = Knobs({"max_num_seqs": (8, 16, 32)}, lambda _: {"scheduler_config": {"max_num_seqs": 8}}, 3)
    _, search = searched(KnownBench(truth, noise=0.1, seed=seed), knobs=knobs)
    raced = [(each.stack.name, each.against) for each in search.tried if each.blocks]
    assert len(raced) == len(set(raced))
    kept = {(each.against, each.stack.name) for each in search.tried if each.blocks and each.fate == "kept"}
    assert not kept & set(raced)


def test_levers_join_and_leave_a_stack_with_its_numbers() -> None:
    def speed(stack: Stack) -> float:
        wide = stack.knobs.get("max_num_seqs", 2) == 32
        late = math.prod({"early": 1.0, "late": 1.3, "later": 1.25}[each] for each in stack.levers)
        alone = math.prod({"early": 1.2, "late": 1.0, "later": 1.0}[each] for each in stack.levers)
        return 2.0 * late if wide else alone

    knobs = Knobs({"max_num_seqs": (2, 32)}, lambda stack: {"scheduler_config": {"max_num_seqs": 2, **stack.knobs}}, 3)
    found, search = searched(KnownBench(speed), "early", "late", "later", knobs=knobs)
    assert found.winner is not None
    # What paid alone and does no more is left out again; both that pay now are in, and the number is kept.
    assert set(found.winner.levers) == {"late", "later"}
    assert dict(found.winner.knobs) == {"max_num_seqs": 32}
    # A value that nobody needs to set is the stack without it, in the second search for numbers too.
    assert all(each.stack.knobs.get("max_num_seqs") != 2 for each in search.tried)


def test_what_no_engine_serves_alone_is_not_started_again() -> None:
    bench = KnownBench(truth, broken={"g": "it hangs"})
    knobs = Knobs(None, lambda stack: {"scheduler_config": {"max_num_seqs": 8, **stack.knobs}}, 3)
    searched(bench, "a", "b", "g", knobs=knobs)
    assert bench.served.count("g") == 1
    assert sum("g" in each.levers for each in searched(bench, "a", "b", "g", knobs=knobs)[1].stacks.values()) == 1
