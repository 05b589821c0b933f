"""What a suite is before anything is asked: for `steelyard check`, and for the rule on levers and routes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals import harness
from evals.judge import Bench, calibrated
from evals.order import declared
from steelyard.errors import InputError
from steelyard.study import Study, Suite
from steelyard.study_judge import JUDGE_METRIC


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A suite's task or group.

    `output_types` are lm-eval's, sorted (generate_until, loglikelihood, multiple_choice); `documents` counts all of
    them, before any limit; `metrics` are those every task of it has and `Suite.metric` may name.
    """

    task: str
    version: str | None
    output_types: tuple[str, ...]
    documents: int
    metrics: tuple[str, ...]

    @property
    def generates(self) -> bool:
        """Whether it exercises decoding: prefix-cache hits, speculation and multi-step decode need that."""
        return "generate_until" in self.output_types


def describe(suite: Suite, study_root: Path) -> TaskInfo:
    """Load the suite's task and tell what it is.

    Raises InputError for an unknown task (with close matches), YAML that cannot be read (with its file), a data set
    that is not there or has faults, a metric that the task does not have, and files of a judge that cannot be used.
    """
    if suite.judge is not None:
        Bench(suite, study_root)
    with harness.session():
        loaded = harness.load(suite, study_root)
        for task in loaded.tasks.values():
            require_metric(task, suite)
        # Cluster fields that are not there, and more sealed documents than there are, are told before anything starts.
        declared(loaded, suite, seed=0)
        common = set.intersection(*(set(metrics_of(task)) for task in loaded.tasks.values()))
        return TaskInfo(
            task=suite.task,
            version=loaded.version,
            output_types=tuple(sorted({str(task.OUTPUT_TYPE) for task in loaded.tasks.values()})),
            documents=sum(loaded.documents.values()),
            metrics=tuple(sorted(common | {suite.metric})),
        )


DECODING = frozenset({"cache", "batching", "speculation", "combined"})
"""Levers that a loglikelihood cannot exercise: it is one prefill, which skips the prefix cache and never decodes
(vLLM sets `skip_reading_prefix_cache` for prompt log-probabilities)."""


def suite_problems(study: Study, study_root: Path, *, run_id: str | None = None) -> list[str]:
    """Why the study's suites cannot judge its candidates; empty if they can.

    With a `run_id` judges are also measured, once for that run; without, their servers are not asked.

    Every suite must load and have its metric. A candidate that pulls a lever only decoding exercises needs at least
    one generation suite of accuracy and one of safety, or it would be judged by answers it never gave.
    """
    problems: list[str] = []
    generates: set[str] = set()
    for suite in study.suites:
        try:
            if describe(suite, study_root).generates:
                generates.add(suite.category)
            if suite.judge is not None and run_id is not None:
                calibrated(suite, study_root, run_id)
        except InputError as error:
            problems.append(str(error))
            generates.add(suite.category)
    blind = [each.name for each in study.candidates if each.lever in DECODING]
    problems += [
        f"suites: no {category} suite generates text, and loglikelihood cannot see what {', '.join(blind)} may break; "
        f"add a generation suite."
        for category in ("accuracy", "safety")
        if blind and category not in generates
    ]
    return problems


def metrics_of(task: Any) -> list[str]:
    """Metrics the task declares where higher is better (or nothing is said)."""
    better = task.higher_is_better()
    return [name for name in task.aggregation() if better.get(name) is not False]


def require_metric(task: Any, suite: Suite) -> None:
    """Raise InputError unless `suite.metric` is a metric of the task and higher is better, or its judge's."""
    name = task.task_name
    if suite.judge is not None and task.OUTPUT_TYPE != "generate_until":
        raise InputError(
            f"suite {suite.name}: the task {name} generates no answers that a judge could label.",
            remedy="Remove the judge, or choose a generation task.",
            field="suites.judge",
        )
    if suite.metric == JUDGE_METRIC:
        return
    if task.higher_is_better().get(suite.metric) is False:
        raise InputError(
            f"suite {suite.name}: of the metric {suite.metric} lower is better, but gates read scores.",
            remedy=f"Name one of {', '.join(metrics_of(task))}.",
            field="suites.metric",
        )
    known = metrics_of(task)
    if suite.metric in known:
        return
    # Some scorers give more than their task declares; one made-up answer shows it without an engine.
    scored = _scored_once(task)
    if suite.metric in scored:
        return
    known = sorted({*known, *scored})
    close = difflib.get_close_matches(suite.metric, known, n=1)
    raise InputError(
        f"suite {suite.name}: the task {name} has no metric {suite.metric}; it has {', '.join(known) or 'none'}.",
        remedy=f"Did you mean {close[0]}?" if close else "Name one of those under `metric:`.",
        field="suites.metric",
    )


def _scored_once(task: Any) -> list[str]:
    document = task.eval_docs[0]
    if task.OUTPUT_TYPE == "generate_until":
        responses: list[Any] = [""]
    elif task.OUTPUT_TYPE == "multiple_choice":
        responses = [(-1.0 - place, False) for place in range(len(task.doc_to_choice(document)))]
    else:
        responses = [(-1.0, False)]
    try:
        return [str(name) for name in task.process_results(document, responses)]
    except Exception:  # noqa: BLE001 - a scorer may refuse a made-up answer in any way; then only declared names count
        return []
