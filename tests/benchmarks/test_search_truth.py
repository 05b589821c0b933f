"""The bench of the search on known truth: worlds are what they claim, and the search beats what is common."""

import statistics

from benchmarks.search_truth import CELLS, VALUES, World, measured, page


def test_a_world_is_its_seed_and_nothing_is_faster_than_its_best() -> None:
    world, again = World.drawn(5, 4), World.drawn(5, 4)
    assert world == again
    assert World.drawn(6, 4) != world
    assert world.speed((), VALUES[0]) == 1.0
    assert len(world.stacks) == 2**4 * len(VALUES)


def test_the_search_loses_less_than_what_is_common_with_as_many_measurements() -> None:
    cell = measured(6, 0.1, 400.0, worlds=12, seed=3)
    lost = {name: statistics.fmean(losses) for name, losses in cell.losses.items()}
    assert 0 <= lost["search"] < 0.1
    assert lost["search"] < lost["random"]
    assert lost["search"] < lost["one_at_a_time"]
    assert max(cell.spent) <= 400


def test_a_small_budget_is_kept_by_all() -> None:
    cell = measured(3, 0.2, 40.0, worlds=3, seed=1)
    assert max(cell.spent) <= 40
    # Within one stack's runs of the search's own: nobody is starved.
    for theirs in cell.rivals_spent.values():
        assert all(ours * 0.6 <= each <= ours for each, ours in zip(theirs, cell.spent, strict=True))
    assert all(0 <= loss < 1 for losses in cell.losses.values() for loss in losses)


def test_the_table_has_a_line_a_cell() -> None:
    cells = [measured(*each, 1, 1) for each in CELLS[:2]]
    text = page(cells, 1, 1)
    assert text.count("\n| ") == len(cells) + 2
    assert "%" in text
