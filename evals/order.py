"""In which order a suite's documents are asked: random, fixed by the study's seed, the same for every arm.

A suite may stop when its gates are decided, so what was asked must be the beginning of one order that nobody could
choose by the answers. Documents that are about the same thing stand together and are asked together: they are one
replicate, and half a replicate would change afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from evals.harness import Loaded
from steelyard.digest import digest
from steelyard.errors import InputError
from steelyard.study import Suite


@dataclass(frozen=True, slots=True)
class Place:
    """A document: its task, its index there, and what it is about (None: itself alone)."""

    task: str
    index: int
    cluster: str | None = None


def declared(loaded: Loaded, suite: Suite, seed: int) -> Sequence[Place]:
    """The documents the study would ask of a suite at most, in the order in which it asks them.

    The sealed ones are drawn whatever the study and its seed, so that no other study of the suite unseals them.

    Without clusters a smaller limit takes the beginning of a larger one's order. With clusters only whole ones are
    taken, one at least, so that up to a cluster's size fewer documents than the limit may be declared. Raises
    InputError for a cluster field that a document lacks.

    Found once as long as the suite's folder is unchanged: it reads every document, and is asked for at every window.
    """
    key = (suite.model_dump_json(), seed)
    known = _DECLARED.get(key)
    if known is None or known[0] is not loaded:
        known = _DECLARED[key] = (loaded, _declared(loaded, suite, seed))
    return known[1]


_DECLARED: dict[tuple[str, int], tuple[Loaded, tuple[Place, ...]]] = {}


def _declared(loaded: Loaded, suite: Suite, seed: int) -> tuple[Place, ...]:
    found: list[Place] = []
    for name, task in loaded.tasks.items():
        fields = suite.cluster if suite.cluster is not None else declared_cluster(task)
        found += [
            Place(name, index, _cluster(suite, name, fields, document) if fields else None)
            for index, document in enumerate(task.eval_docs if fields else range(loaded.documents[name]))
        ]
    if suite.sealed:
        found = _part(found, suite)
    order = shuffled(found, seed=seed, name=suite.task)
    limit = len(order) if suite.limit is None else min(suite.limit, len(order))
    ends = [end for end in whole(order) if end <= limit]
    return tuple(order[: ends[-1] if ends else next(iter(whole(order)))])


def _part(places: Sequence[Place], suite: Suite) -> list[Place]:
    """The sealed documents, whole clusters of them, or all others. Raises InputError if none would be left."""
    order = shuffled(places, seed=0, name=f"sealed {suite.task}")
    cut = next((end for end in whole(order) if end >= suite.sealed), len(order))
    if cut == len(order):
        raise InputError(
            f"suite {suite.name}: {suite.sealed} documents are to be sealed, and it has only {len(order)}.",
            remedy="Seal fewer.",
            field="suites.sealed",
        )
    return order[:cut] if suite.part == "sealed" else order[cut:]


def shuffled(places: Sequence[Place], *, seed: int, name: str) -> list[Place]:
    """All places in random order, those of a cluster next to each other."""
    order = list(places)
    random.Random(digest([seed, name])).shuffle(order)
    first: dict[tuple[object, ...], int] = {}
    for number, place in enumerate(order):
        first.setdefault(_key(place), number)
    return sorted(order, key=lambda place: first[_key(place)])


def whole(order: Iterable[Place]) -> list[int]:
    """How many documents have been asked after each whole cluster."""
    ends, count = [], 0
    for _, members in groupby(order, key=_key):
        count += len(list(members))
        ends.append(count)
    return ends


def looks(order: Sequence[Place], batch: int) -> list[int]:
    """After how many documents the gates are looked at: every `batch`, up to the next whole cluster, and at the end."""
    found: list[int] = []
    for end in whole(order):
        if end >= (found[-1] if found else 0) + batch:
            found.append(end)
    return found if found and found[-1] == len(order) else [*found, len(order)]


def indices(places: Iterable[Place], documents: Mapping[str, int]) -> dict[str, list[int] | None]:
    """Sorted indices by task as lm-eval wants them, None for a whole task.

    Tasks without a document are left out, because lm-eval takes an empty list for "all".
    """
    by_task: dict[str, list[int]] = {}
    for place in places:
        by_task.setdefault(place.task, []).append(place.index)
    return {
        task: sorted(by_task[task]) if len(by_task[task]) < count else None
        for task, count in documents.items()
        if task in by_task
    }


def declared_cluster(task: Any) -> tuple[str, ...]:
    """The cluster fields that the task's own metadata names, if any: one name or a list of them."""
    metadata = task.config.metadata if isinstance(task.config.metadata, Mapping) else {}
    named = metadata.get("cluster", ())
    return (named,) if isinstance(named, str) else tuple(str(each) for each in named)


def _cluster(suite: Suite, task: str, fields: Sequence[str], document: Mapping[str, Any]) -> str:
    missing = [name for name in fields if name not in document]
    if missing:
        raise InputError(
            f"suite {suite.name}: a document of the task {task} has no field {missing[0]}, which names its cluster; "
            f"it has {', '.join(document)}.",
            remedy="Name fields that every document has.",
            field="suites.cluster",
        )
    return " / ".join(str(document[name]) for name in fields)


def _key(place: Place) -> tuple[object, ...]:
    return (place.task, place.index) if place.cluster is None else (place.cluster,)
