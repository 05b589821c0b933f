"""Comparisons of a study that stops early: what may be left out, what may not, and what the looks cost."""

from __future__ import annotations

import dataclasses

import pytest
from evidence_rows import POLICY, RUN, cost, samples, suite_row, trial
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.comparisons import compare_cost, compare_speed
from steelyard.gates.policy import Policy
from steelyard.gates.settled import looks_of, settled
from steelyard.quality_comparisons import compare_quality
from steelyard.records import ComparisonRow, GateRow
from steelyard.records_quality import SampleRow
from steelyard.stats.sequential import Looks

EARLY = Policy(**{**POLICY.model_dump(), "gates": POLICY.gates, "stop_early": True})


def asked(arm: str, scores: list[float | None], clusters: list[str] | None = None) -> list[SampleRow]:
    return [
        dataclasses.replace(sample, position=place, cluster=clusters[place] if clusters else None)
        for place, sample in enumerate(samples(arm, scores))
    ]


def score(
    theirs: list[SampleRow], ours: list[SampleRow], *, documents: int | None = None, declared: int = 400
) -> ComparisonRow:
    suites = [
        suite_row("baseline", documents=len(theirs), declared=declared),
        suite_row("fast", documents=len(ours) if documents is None else documents, declared=declared),
    ]
    (row,) = compare_quality(RUN, [*theirs, *ours], suites, arms=["fast"], confidence=0.95, stop_early=True)
    return row


def test_the_beginning_of_a_suite_is_compared_with_the_same_beginning() -> None:
    row = score(asked("baseline", [1.0] * 400), asked("fast", [1.0] * 100))
    assert (row.n, row.n_missing, row.estimate, row.lost) == (100, 0, 0.0, 0)
    assert row.low < row.fixed_low < row.fixed_high < row.high  # type: ignore[operator]


def test_what_is_missing_in_the_middle_counts_against_the_arm() -> None:
    baseline, ours = asked("baseline", [1.0] * 400), asked("fast", [1.0] * 100)
    holed = score(baseline, ours[:40] + ours[41:])
    # The one in the hole is missing, and the last has no partner among the 99 that the row says were asked.
    assert (holed.n, holed.n_missing, holed.lost) == (100, 2, 1)
    # So does a row of the suite that says another number than there are samples.
    said = score(baseline, ours[:99], documents=100)
    assert (said.n, said.n_missing, said.lost) == (100, 1, 1)


def test_a_document_that_the_data_repeats_leaves_no_hole() -> None:
    """Repeated documents keep their places in the order and have no sample of their own."""
    repeated = {3, 50, 77, 250}
    baseline, ours = (
        [row for row in asked(arm, [1.0] * count) if row.position not in repeated]
        for arm, count in (("baseline", 400), ("fast", 100))
    )
    suites = [
        suite_row("baseline", documents=396, duplicates=4, declared=400),
        suite_row("fast", documents=97, duplicates=3, declared=400),
    ]
    (row,) = compare_quality(RUN, [*baseline, *ours], suites, arms=["fast"], confidence=0.95, stop_early=True)
    assert (row.n, row.n_missing, row.lost) == (97, 0, 0)
    whole = [row for row in asked("fast", [1.0] * 400) if row.position not in repeated]
    suites[1] = suite_row("fast", documents=396, duplicates=4, declared=400)
    (row,) = compare_quality(RUN, [*baseline, *whole], suites, arms=["fast"], confidence=0.95, stop_early=True)
    assert row.n_missing == 0
    assert "at the last look" in row.method


def test_only_the_last_look_has_the_fixed_interval_of_half_the_error() -> None:
    baseline = asked("baseline", [1.0] * 300)
    early = score(baseline, asked("fast", [1.0] * 300), declared=400)
    last = score(baseline, asked("fast", [1.0] * 300), declared=300)
    assert last.low > early.low  # type: ignore[operator]
    assert "at the last look" in last.method
    assert "at the last look" not in early.method


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_dropping_samples_of_the_arm_never_raises_its_lower_bound(data: st.DataObject) -> None:
    scores = data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=30, max_size=60))
    theirs = data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=len(scores), max_size=len(scores)))
    ours, baseline = asked("fast", list(scores)), asked("baseline", list(theirs))
    full = score(baseline, ours)
    gone = data.draw(st.sets(st.integers(0, len(ours) - 1), min_size=1, max_size=10))
    kept = [sample for sample in ours if sample.position not in gone]
    assert score(baseline, kept, documents=len(ours)).low <= full.low + 1e-12  # type: ignore[operator]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(20, 60), st.randoms(use_true_random=False))
def test_copies_in_one_cluster_never_help(copies: int, things: int, shuffler: object) -> None:
    """Asking the same thing again under other words must not make a study surer."""
    scores = [1.0 if n % 7 else 0.0 for n in range(things)]
    names = [f"thing {n}" for n in range(things)]
    once = score(asked("baseline", [1.0] * things, names), asked("fast", list(scores), names))
    many = score(
        asked("baseline", [1.0] * things * copies, names * copies), asked("fast", scores * copies, names * copies)
    )
    assert many.estimate == pytest.approx(once.estimate)
    assert many.low <= once.low + 1e-9  # type: ignore[operator]
    assert many.high >= once.high - 1e-9  # type: ignore[operator]
    assert f"over {things} clusters" in many.method
    rows = [*asked("baseline", [1.0] * things, names), *asked("fast", list(scores), names)]
    shuffler.shuffle(rows)  # type: ignore[attr-defined]
    suites = [suite_row(arm, documents=things, declared=400) for arm in ("baseline", "fast")]
    (again,) = compare_quality(RUN, rows, suites, arms=["fast"], confidence=0.95, stop_early=True)
    assert again == once


def test_flips_of_clusters_are_shares_of_clusters() -> None:
    names = ["a"] * 5 + [f"b{n}" for n in range(95)]
    theirs, ours = asked("baseline", [1.0] * 100, names), asked("fast", [0.0] * 5 + [1.0] * 95, names)
    suites = [suite_row(arm, category="safety", documents=100, declared=100) for arm in ("baseline", "fast")]
    flips = compare_quality(RUN, [*theirs, *ours], suites, arms=["fast"], confidence=0.95, stop_early=True)[1]
    assert (flips.metric, flips.lost) == ("safe_to_unsafe", 5)
    assert flips.estimate == pytest.approx(1 / 96)


def test_speed_and_cost_are_compared_at_the_look_of_their_blocks() -> None:
    trials = [trial("baseline", n, output_tokens_per_s=100.0 + n) for n in range(4)]
    trials += [trial("fast", n, output_tokens_per_s=150.0 + 3 * n) for n in range(4)]
    costs = [cost("baseline", 1.0), cost("fast", 1.0)]
    once = {row.metric: row for row in compare_speed(RUN, trials, arms=["fast"], confidence=0.95)}
    looked = {row.metric: row for row in compare_speed(RUN, trials, arms=["fast"], confidence=0.95, looks=Looks(3, 6))}
    one, many = once["output_tokens_per_s"], looked["output_tokens_per_s"]
    assert many.estimate == one.estimate
    assert many.low < one.low  # type: ignore[operator]
    assert many.confidence == 0.95
    assert "look 4 of 3 to 6" in many.method
    for row in compare_cost(RUN, costs, trials, arms=["fast"], confidence=0.95, looks=Looks(3, 6)):
        assert "look 4 of 3 to 6" in row.method


def test_the_policy_says_whether_one_looks() -> None:
    assert looks_of(POLICY, 8) is None
    assert looks_of(EARLY, 8) == Looks(3, 8)


def gate(name: str, scope: str, outcome: str, *, required: bool = True, category: str = "accuracy") -> GateRow:
    return GateRow(
        run_id=RUN, arm="fast", gate=name, category=category, metric="score", scope=scope, bound_kind="margin",
        bound=0.02, benefit=False, required=required, estimate=None, low=None, high=None, n=0, outcome=outcome,
        reason=f"{name} {outcome}",
    )  # fmt: skip


def test_only_required_gates_keep_a_scope_open_and_any_of_them_rejects() -> None:
    rows = [gate("a", "facts", "pass"), gate("b", "chat@c8", "inconclusive", category="speed")]
    assert settled(rows).open == {"chat@c8"}
    assert settled(rows).rejected is None
    aside = [*rows, gate("c", "facts", "inconclusive", required=False), gate("d", "facts", "fail", required=False)]
    assert settled(aside) == settled(rows)
    assert settled([*rows, gate("e", "facts", "fail")]).rejected == "e fail"
    # A screen can only reject, and has done so by now or never will.
    screen = gate("f", "prompts", "inconclusive", category="divergence")
    assert settled([*rows, screen]).open == {"chat@c8"}
