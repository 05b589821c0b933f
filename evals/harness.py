"""lm-eval tasks, loaded once a process and kept quiet, offline and seeded.

Every trap of lm-eval's task loading is met here: broken YAML that its index skips without a word, `data_files`
relative to the working folder, global random state, progress bars, download counters and caches in other places.
`evals/README.md` lists them.
"""

from __future__ import annotations

import difflib
import functools
import logging
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.errors import InputError, SteelyardError
from steelyard.home import home, quiet
from steelyard.study import Suite

SUITES = Path(__file__).resolve().parent / "suites"
"""Steelyard's own suites: where a task is looked for when a suite names no folder."""
LOAD_SEED = 0
FEWSHOT_SEED = 1234
LOCAL_BUILDERS = frozenset({"json", "csv", "parquet", "text", "arrow", "pandas", "xml"})
_BUSY = threading.RLock()


@dataclass(frozen=True, slots=True)
class Loaded:
    """Tasks of one suite by name, in lm-eval's order, and where they come from."""

    name: str
    tasks: Mapping[str, Any]
    version: str | None
    source: Path | None

    @property
    def documents(self) -> dict[str, int]:
        """Documents of each task."""
        return {name: len(task.eval_docs) for name, task in self.tasks.items()}


def folder_of(suite: Suite, study_root: Path) -> Path:
    """The folder with the suite's task YAML. Raises InputError if the study names one that does not exist."""
    if suite.path is None:
        return SUITES
    folder = (study_root / Path(suite.path).expanduser()).resolve()
    if not folder.is_dir():
        raise InputError(
            f"suite {suite.name}: there is no folder {suite.path} next to the study.",
            remedy="Write the folder that holds the task YAML, relative to the study file.",
            field="suites.path",
        )
    return folder


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

    datasets.disable_progress_bars()
    # lm-eval offers no switch for this bar, and tqdm reads its own only when first imported.
    lm_eval.api.task.tqdm = _no_bar
    for name in ("lm_eval", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)


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
def _offline() -> Iterator[None]:
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


def load(suite: Suite, study_root: Path) -> Loaded:
    """The tasks of a suite, the same objects for every arm until its folder changes. Call inside `session`.

    Raises InputError for an unknown task (with close matches), broken YAML (with the file), a data set that is
    not there, and task types whose scores no gate can use.
    """
    folder = folder_of(suite, study_root)
    return _load(folder, _stamp(folder), suite.task)


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What tells that a suite folder was edited in a long-lived process."""
    stats = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc")
    return tuple((path.as_posix(), stat.st_mtime_ns, stat.st_size) for path, stat in stats)


@functools.lru_cache(maxsize=64)
def _load(folder: Path, stamp: tuple[tuple[str, int, int], ...], name: str) -> Loaded:
    manager = _local_index(folder, stamp)
    local = manager.task_index.get(name)
    if local is None:
        _report_broken_yaml(folder, name)
        manager = _builtin_index()
        if name not in manager.task_index:
            raise _unknown(name, folder, [*_local_index(folder, stamp).all_tasks, *manager.all_tasks])
    source = manager.task_index[name].yaml_path
    try:
        if local is not None and not _needs_hub(manager.task_index, name):
            with _offline():
                found = manager.load([name])
        else:
            found = manager.load([name])
        loaded = Loaded(name=name, tasks=found["tasks"], version=_version(found), source=source)
        counts = loaded.documents
    except SteelyardError:
        raise
    except Exception as error:
        raise InputError(
            f"lm-eval cannot load the task {name}: {_line(error)}.",
            remedy="Correct the task file."
            if local is not None
            else "Its data set must be reachable or already in the Hugging Face cache (HF_HOME).",
            file=str(source) if source else None,
        ) from error
    _usable(loaded, counts)
    return loaded


def _version(found: Mapping[str, Any]) -> str | None:
    versions = sorted({str(task.VERSION) for task in found["tasks"].values() if task.VERSION is not None})
    return ", ".join(versions) or None


@functools.lru_cache(maxsize=16)
def _local_index(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> Any:  # noqa: ARG001 - part of the key
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    for entry in manager.task_index.values():
        _anchor_data_files(entry)
    return manager


@functools.cache
def _builtin_index() -> Any:
    """lm-eval's own tasks. Indexing its 14,000 files takes seconds, so only when a name is not found locally."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _anchor_data_files(entry: Any) -> None:
    """Make `data_files` relative to the task file: lm-eval takes them relative to the working folder."""
    settings = (entry.cfg or {}).get("dataset_kwargs")
    files = settings.get("data_files") if isinstance(settings, dict) else None
    if entry.yaml_path is None or files is None:
        return
    root = entry.yaml_path.parent

    def anchored(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: anchored(item) for key, item in value.items()}
        if isinstance(value, list):
            return [anchored(item) for item in value]
        return str(root / value) if isinstance(value, str) and (root / value).exists() else value

    if anchored(files) == files:
        return
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        resolved = load_yaml(entry.yaml_path, resolve_func=True)
    except Exception:  # noqa: BLE001 - it is loaded again, and reported, if it is the task asked for
        return
    resolved["dataset_kwargs"] = {**resolved["dataset_kwargs"], "data_files": anchored(files)}
    # The factory reads `cfg` only where there is no file to read.
    entry.cfg, entry.yaml_path = resolved, None


def _needs_hub(index: Mapping[str, Any], name: str) -> bool:
    """Whether a task, or one below a group, names a data set that is neither generated nor a local file."""
    entry = index.get(name)
    if entry is None:
        return True
    config = entry.cfg or {}
    children = config.get("task")
    if isinstance(children, list):
        names = [child if isinstance(child, str) else child.get("task") for child in children]
        return any(not isinstance(child, str) or _needs_hub(index, child) for child in names)
    if entry.cfg is None:
        return any(_needs_hub(index, tagged) for tagged in entry.tags)
    path = config.get("dataset_path")
    return "custom_dataset" not in config and (path not in LOCAL_BUILDERS or "hf://" in str(config))


def _report_broken_yaml(folder: Path, name: str) -> None:
    """Raise InputError if a task file of the folder cannot be read: lm-eval skips those silently."""
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    for path in sorted(folder.rglob("*.yaml")):
        try:
            load_yaml(path, resolve_func=False)
        except (yaml.YAMLError, ValueError, OSError, TypeError) as error:
            mark = getattr(error, "problem_mark", None)
            raise InputError(
                f"the task {name} was not found, and this task file cannot be read: {_line(error)}.",
                remedy="Correct the YAML.",
                file=str(path),
                line=mark.line + 1 if mark is not None else None,
            ) from error


def _unknown(name: str, folder: Path, known: list[str]) -> InputError:
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.6)
    return InputError(
        f"there is no lm-eval task {name}, neither in {folder.name}/ nor among lm-eval's own.",
        remedy=f"Did you mean {', '.join(close)}?" if close else "`lm-eval ls tasks` lists lm-eval's own.",
        field="suites.task",
    )


def _usable(loaded: Loaded, counts: Mapping[str, int]) -> None:
    reasons: list[tuple[Callable[[Any], bool], str]] = [
        (lambda task: bool(getattr(task, "MULTIMODAL", False)), "needs images or sound"),
        (lambda task: bool(getattr(task, "UNSAFE_CODE", False)), "runs code that the model writes"),
        (lambda task: task.OUTPUT_TYPE == "loglikelihood_rolling", "gives perplexities, which are not scores 0 to 1"),
    ]
    for name, task in loaded.tasks.items():
        why = next((reason for test, reason in reasons if test(task)), None)
        if why is None and not counts[name]:
            why = "has no documents"
        if why is not None:
            raise InputError(
                f"the task {name} {why}, so it cannot be a suite.",
                remedy="Choose a generation or multiple-choice task.",
                file=str(loaded.source) if loaded.source else None,
            )
    if not loaded.tasks:
        raise InputError(f"the group {loaded.name} holds no task.", remedy="List its tasks under `task:`.")


def _line(error: BaseException) -> str:
    """An error on one line, short enough to read."""
    text = (" ".join(str(error).split()) or type(error).__name__).rstrip(". ")
    return text if len(text) <= 300 else text[:297] + "..."
