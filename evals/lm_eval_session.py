"""lm-eval in this process: alone, quiet, seeded, its caches where they belong, offline where it needs no network."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from steelyard.home import home, quiet

LOAD_SEED = 0
_BUSY = threading.RLock()


@contextmanager
def session(*, seeded: bool = True) -> Iterator[None]:
    """lm-eval alone in this process, quiet, its caches under `home()`, the global random state as lm-eval expects.

    Tasks keep their requests in themselves and draw from global generators, so two evaluations in threads of one
    process would mix; they wait for each other here. The caller's random state is put back.
    """
    with _BUSY, _cache_at_home():
        _quiet_once()
        if not seeded:
            yield
            return
        import numpy as np

        python_state, numpy_state = random.getstate(), np.random.get_state()
        random.seed(LOAD_SEED)
        np.random.seed(LOAD_SEED)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@functools.cache
def _quiet_once() -> None:
    quiet()
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    import datasets
    import lm_eval.api.task
    import lm_eval.config.task
    import lm_eval.utils

    datasets.disable_progress_bars()
    # lm-eval offers no switch for this bar, and tqdm reads its own only when first imported.
    lm_eval.api.task.tqdm = _no_bar
    # It compiles a task's templates anew for every document, three times: a third of what a suite takes.
    lm_eval.utils.apply_template = _apply_template
    # It decodes every document of a task to find those that are asked, twice an evaluation: most of what a window of a
    # long suite took beside its answers.
    lm_eval.api.task.Task.doc_iterator = _doc_iterator(lm_eval.api.task.Task.doc_iterator)
    # At every evaluation it looks up the source of a task's functions, for a report that nobody reads here.
    lm_eval.config.task.getsource = functools.lru_cache(maxsize=256)(inspect.getsource)
    for name in ("lm_eval", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)


@functools.lru_cache(maxsize=256)
def _compiled(template: str) -> Any:
    import lm_eval.utils

    return lm_eval.utils.env.from_string(template)


def _apply_template(template: str, doc: dict[str, Any]) -> str:
    return str(_compiled(template).render(**doc))


def _doc_iterator(all_of: Callable[..., Any]) -> Callable[..., Any]:
    """lm-eval's iterator, except that documents which are not asked are not read."""

    def chosen(
        self: Any, *, rank: int = 0, limit: int | None = None, world_size: int = 1, samples: list[int] | None = None
    ) -> Iterator[tuple[int, Any]]:
        from lm_eval.utils import create_iterator

        if not samples:
            return all_of(self, rank=rank, limit=limit, world_size=world_size)  # type: ignore[no-any-return]
        asked = enumerate(_documents(self.eval_docs, sorted(set(samples))))
        return create_iterator(asked, rank=int(rank), limit=None, world_size=int(world_size))  # type: ignore[no-any-return]

    return chosen


def _documents(docs: Any, places: list[int]) -> list[Any]:
    """Documents of a task, which are a list or a data set: its rows are decoded together, a third of the time."""
    if not hasattr(docs, "column_names"):
        return [docs[place] for place in places]
    columns = docs[places]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _no_bar(iterable: Any, **_: object) -> Any:
    return iterable


@contextmanager
def _cache_at_home() -> Iterator[None]:
    """Datasets and hub caches under `home()`, unless the user says where theirs are; no download counters."""
    import datasets.config
    import huggingface_hub.constants as hub

    changes: list[tuple[Any, str, Any]] = [(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)]
    if not {"HF_HOME", "HF_DATASETS_CACHE"} & os.environ.keys():
        changes.append((datasets.config, "HF_DATASETS_CACHE", home() / "huggingface" / "datasets"))
    if not {"HF_HOME", "HF_HUB_CACHE"} & os.environ.keys():
        changes.append((hub, "HF_HUB_CACHE", str(home() / "huggingface" / "hub")))
    with _changed(changes):
        yield


@contextmanager
def offline() -> Iterator[None]:
    """Nothing is fetched: what is asked for lies on this machine, or is an error."""
    import datasets.config
    import huggingface_hub.constants as hub

    with _changed([(datasets.config, "HF_HUB_OFFLINE", True), (hub, "HF_HUB_OFFLINE", True)]):
        yield


@contextmanager
def _changed(changes: list[tuple[Any, str, Any]]) -> Iterator[None]:
    before = [(where, name, getattr(where, name)) for where, name, _ in changes]
    for where, name, value in changes:
        setattr(where, name, value)
    try:
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)
