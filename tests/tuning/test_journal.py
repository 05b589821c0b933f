"""A resumed search: it goes through what is stored, by the clock of then, and comes to the same end."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import pytest

from steelyard.stats.incomplete_blocks import Observation
from steelyard.tuning.journal import Event, Journal, blocks_of
from steelyard.tuning.knobs import Knobs
from steelyard.tuning.search import Search
from steelyard.tuning.stack import Stack
from steelyard.tuning.terms import Settings
from tests.tuning.bench import KnownBench, pull
from tests.tuning.test_search import GAINS, truth


class Killed(BaseException):
    """The process ends here."""


class JournalledBench(KnownBench):
    """The known bench behind a journal, as the real one is; its clock is that of the known bench's budget."""

    def __init__(self, events: Sequence[Event], seen: Sequence[Observation], spent_s: float, dies_after: int) -> None:
        super().__init__(truth, seed=5, budget_s=10_000.0)
        self.kept, self.dies_after, self.whole_s = list(seen), dies_after, self.budget_s
        self.journal = Journal(events, spent_s, self._count, clock=lambda: self.whole_s - self.budget_s)

    def _count(self, journal: Journal) -> None:
        if len(journal.events) == self.dies_after:
            raise Killed

    def serve(self, stack: Stack) -> str | None:
        return self.journal.once("serve", stack.name, lambda: super(JournalledBench, self).serve(stack))

    def block(self, stacks: Sequence[Stack]) -> dict[str, str]:
        number = self.blocks

        def live() -> dict[str, Any]:
            return {"number": number, "dead": super(JournalledBench, self).block(stacks)}

        known = len(self.seen)
        came = self.journal.once("block", [each.name for each in stacks], live)
        if len(self.seen) == known:
            self.blocks += 1
            self.seen += [each for each in self.kept if each.block == came["number"]]
        return came["dead"]

    def harm(self, stack: Stack) -> tuple[str, str] | None:
        came = self.journal.once("harm", stack.name, lambda: super(JournalledBench, self).harm(stack))
        return None if came is None else (came[0], came[1])

    @property
    def left_s(self) -> float:
        return self.whole_s - self.journal.tick_s


def searched(bench: JournalledBench) -> list[tuple[Any, ...]]:
    knobs = Knobs(None, lambda _: {"scheduler_config": {"max_num_seqs": 8}}, 3)
    search = Search(bench, Settings(), lambda _: None, pulls=[pull(name) for name in GAINS])
    found = search.run(knobs)
    winner = found.winner.name if found.winner else None
    return [(each.round, each.stack.name, each.fate, each.blocks) for each in search.tried] + [(winner,)]


@pytest.fixture(scope="module")
def undisturbed() -> tuple[list[tuple[Any, ...]], list[Event]]:
    bench = JournalledBench([], [], 0.0, dies_after=-1)
    return searched(bench), bench.journal.events


@pytest.mark.parametrize("after", [1, 2, 7, 9, 12, 20, 31, 40])
def test_killed_anywhere_it_comes_to_the_same_end(undisturbed: Any, after: int) -> None:
    whole, events = undisturbed
    first = JournalledBench([], [], 0.0, dies_after=after)
    with pytest.raises(Killed):
        searched(first)
    stored = json.loads(json.dumps(first.journal.events))
    assert stored == events[:after]
    second = JournalledBench(stored, first.seen, first.journal.spent_s, dies_after=-1)
    assert searched(second) == whole
    assert second.journal.events == events


def test_where_another_answer_is_asked_for_the_rest_is_dropped() -> None:
    events = [{"what": "serve", "of": "a", "came": None, "spent_s": 1.0}, {"what": "serve", "of": "b", "came": None,
              "spent_s": 2.0}]  # fmt: skip
    seconds = iter([100.0, 103.0, 103.0, 103.0])
    journal = Journal(copy.deepcopy(events), 2.0, lambda _: None, clock=lambda: next(seconds))
    assert journal.once("serve", "a", lambda: "never") is None
    assert journal.tick_s == 1.0
    assert journal.once("serve", "c", lambda: "no kernel") == "no kernel"
    assert [event["of"] for event in journal.events] == ["a", "c"]
    # What the dropped event took was spent all the same.
    assert journal.tick_s == 5.0


def test_whole_blocks_by_number() -> None:
    events = [{"what": "block", "of": ["a"], "came": {"number": 4, "dead": {}}, "spent_s": 1.0},
              {"what": "harm", "of": "a", "came": None, "spent_s": 2.0}]  # fmt: skip
    assert blocks_of(events) == [4]
