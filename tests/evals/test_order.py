"""The order in which documents are asked: nested, sorted for lm-eval, never half a cluster."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.order import Place, indices, looks, shuffled, whole

COUNTS = {"a": 50, "b": 3, "c": 0}
PLACES = [Place(name, index) for name, size in COUNTS.items() for index in range(size)]


def test_draws_are_sorted_nested_and_never_empty() -> None:
    for seed in range(20):
        order = shuffled(PLACES, seed=seed, name="t")
        small, large = indices(order[:5], COUNTS), indices(order[:20], COUNTS)
        assert sum(len(each) for each in small.values() if each) == 5
        for task, drawn in small.items():
            assert drawn
            assert drawn == sorted(set(drawn))
            assert large[task] is None or set(drawn) <= set(large[task])
    assert indices(PLACES, COUNTS) == {"a": None, "b": None}
    found = {tuple(indices(shuffled(PLACES, seed=seed, name="t")[:5], COUNTS).get("a") or ()) for seed in range(20)}
    assert len(found) > 10


clusters = st.lists(st.sampled_from(["x", "y", "z", "w", None]), min_size=1, max_size=40)


@given(clusters, st.integers(0, 99), st.integers(1, 15))
def test_clusters_stay_whole_and_every_document_comes_once(named: list[str | None], seed: int, batch: int) -> None:
    places = [Place("t", index, cluster) for index, cluster in enumerate(named)]
    order = shuffled(places, seed=seed, name="t")
    assert sorted(place.index for place in order) == list(range(len(named)))
    ends = whole(order)
    assert ends[-1] == len(order)
    met: Counter[str] = Counter()
    for start, end in zip([0, *ends], ends, strict=False):
        about = {place.cluster for place in order[start:end]}
        assert len(about) == 1
        assert end - start == 1 or None not in about
        met.update(each for each in about if each is not None)
    assert set(met.values()) <= {1}
    stops = looks(order, batch)
    assert set(stops) <= set(ends)
    assert stops[-1] == len(order)
    assert all(end - start >= batch for start, end in zip([0, *stops], stops[:-1], strict=False))


@pytest.mark.parametrize(("size", "batch", "ends"), [(10, 4, [4, 8, 10]), (8, 4, [4, 8]), (3, 4, [3])])
def test_looks_are_a_batch_apart(size: int, batch: int, ends: list[int]) -> None:
    assert looks([Place("t", index) for index in range(size)], batch) == ends
