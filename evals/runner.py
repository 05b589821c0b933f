"""One suite against one served engine: lm-eval's documents, prompts and scorers; our asking; a row a document.

lm-eval's `evaluate` is called, not `simple_evaluate`: that one adds, at every call, an environment report that runs
pip, compilers and git (seconds), imports torch, and leaves the process's random seeds changed. What else it does -
few-shot seeds, task loading - `harness` does.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evals import harness
from evals.judge import calibrated
from evals.order import Place, declared, indices
from evals.sample_rows import Scored, labelled, sample_rows, unique_samples
from evals.served_model import ServedModel
from evals.tasks import require_metric
from evals.tokens import load_tokens
from evals.transport import Transport
from steelyard.engines.base import Engine
from steelyard.errors import InputError, SteelyardError
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.study import Suite
from steelyard.suite_counts import generated_counts, suite_counts


class SuiteResult(NamedTuple):
    """What goes into the warehouse together."""

    suite: SuiteRow
    samples: list[SampleRow]


def run_suite(
    engine: Engine,
    suite: Suite,
    *,
    run_id: str,
    seed: int,
    study_root: Path,
    tokenizer: str,
    concurrency: int = 16,
    timeout_s: float = 300.0,
    first: int = 0,
    last: int | None = None,
    only: Sequence[int] | None = None,
) -> SuiteResult:
    """Evaluate `suite` on `engine` and return its rows; of its declared order only what lies from `first` to `last`,
    or the places named in `only`.

    Generation tasks go through /v1/chat/completions, likelihood and multiple-choice tasks through /v1/completions.
    Documents and their order depend on `seed` and the task's name alone: the same in every arm
    (`order.declared`). Where a task has several filters, the first counts. `tokenizer` is a folder or hub id;
    `timeout_s` bounds one request, in seconds. Not for use inside a running event loop.

    A request that fails makes its sample missing: score None, error set. An answer without text is scored as such and
    counted in `empty`; a document that the data set repeats is scored once and counted in `duplicates`. A judge is
    measured before the engine is asked. Raises EngineError if the engine is dead or hung, InputError if the suite, its
    data, its metric, its scores or its judge cannot be used, InfrastructureError if the judge does not answer.
    """
    with harness.session():
        loaded = harness.load(suite, study_root)
        for task in loaded.tasks.values():
            require_metric(task, suite)
        judge = calibrated(suite, study_root, run_id) if suite.judge is not None else None
        order = declared(loaded, suite, seed)
        places = {(place.task, place.index): number for number, place in enumerate(order)}
        asked = order[first:last] if only is None else [order[place] for place in only]
        drawn = indices(asked, loaded.documents)
        model = ServedModel(
            Transport(engine, concurrency=concurrency, timeout_s=timeout_s), load_tokens(tokenizer), seed=seed
        )
        start = time.perf_counter()
        # In the declared order, so that of repeated documents the same one counts, however many windows there are.
        scored = sorted(_evaluate(model, loaded.tasks, drawn), key=lambda each: places[each.task.task_name, each.index])
        duration_s = time.perf_counter() - start
        unique = unique_samples(scored, next(iter(loaded.tasks)))
        labels = [None] * len(unique) if judge is None else labelled(unique.values(), judge[0].labels)
        samples = sample_rows(unique, labels, engine, suite, run_id, several=len(loaded.tasks) > 1)
        samples = [
            dataclasses.replace(sample, position=place, cluster=order[place].cluster)
            for sample, each in zip(samples, unique.values(), strict=True)
            for place in (places[each.task.task_name, each.index],)
        ]
    generated = [sample for sample, each in zip(samples, unique.values(), strict=True) if each.chat]
    routes = {each.chat for each in scored}
    row = SuiteRow(
        run_id=run_id, arm=engine.arm, suite=suite.name, deployment_digest=engine.digest, category=suite.category,
        task=suite.task, task_version=loaded.version,
        route="mixed" if len(routes) == 2 else "chat" if True in routes else "loglikelihood",
        metric=suite.metric, **suite_counts(samples), **generated_counts(generated),
        lm_eval_version=_version(), duration_s=duration_s,
        duplicates=len(scored) - len(unique),
        judge_json=judge[0].summary(judge[1], [each for each in labels if each is not None]) if judge else None,
        declared=len(order),
    )  # fmt: skip
    return SuiteResult(row, samples)


def order_of_suite(suite: Suite, study_root: Path, seed: int) -> Sequence[Place]:
    """The suite's declared order (`order.declared`)."""
    with harness.session():
        return declared(harness.load(suite, study_root), suite, seed)


def extended(before: SuiteRow | None, known: Sequence[SampleRow], found: SuiteResult) -> SuiteResult:
    """A suite after one more window: its row, and all its samples, those `known` first.

    A document that the data set repeats was scored in an earlier window, and counts as a duplicate here too.
    """
    if before is None:
        return found
    keys = {(sample.doc_hash, sample.prompt_hash) for sample in known}
    new = [sample for sample in found.samples if (sample.doc_hash, sample.prompt_hash) not in keys]
    every = [*known, *new]
    route = found.suite.route if found.suite.route == before.route else "mixed"
    counts = generated_counts([] if route == "loglikelihood" else every)
    if route == "mixed":
        # No sample says which of them were generated.
        counts["empty"] = _sum(before.empty, found.suite.empty)
    row = dataclasses.replace(
        found.suite,
        route=route,
        **suite_counts(every),
        **counts,
        duration_s=(before.duration_s or 0.0) + (found.suite.duration_s or 0.0),
        duplicates=(before.duplicates or 0) + (found.suite.duplicates or 0) + len(found.samples) - len(new),
        reused_from=before.reused_from,
        reused=before.reused,
        rechecked=before.rechecked,
        changed=before.changed,
    )
    return SuiteResult(row, every)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


@functools.cache
def _version() -> str:
    return importlib.metadata.version("lm_eval")


def is_chat(task: Any) -> bool:
    """Whether a task generates, and so goes through the chat route."""
    return task.OUTPUT_TYPE == "generate_until"


def _evaluate(model: ServedModel, tasks: Mapping[str, Any], drawn: Mapping[str, list[int] | None]) -> Iterator[Scored]:
    """Run lm-eval once for the generation tasks and once for the others."""
    from lm_eval.evaluator import evaluate

    for chat in (True, False):
        part = {name: tasks[name] for name in drawn if is_chat(tasks[name]) is chat}
        if not part:
            continue
        for task in part.values():
            task.set_fewshot_seed(seed=harness.FEWSHOT_SEED)
        try:
            # lm-eval also aggregates each metric over the documents; the mean of none warns, and nobody reads it here.
            with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
                results = evaluate(
                    lm=model,
                    task_dict={"tasks": part, "groups": {}},
                    samples={name: drawn[name] for name in part if drawn[name] is not None},
                    bootstrap_iters=0,
                    log_samples=True,
                    apply_chat_template=chat,
                    fewshot_as_multiturn=chat,
                )
        except SteelyardError:
            raise
        except Exception as error:
            raise InputError(
                f"lm-eval cannot run {', '.join(part)}: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
                remedy="Correct the task's prompt, filter or scorer.",
            ) from error
        for name, task in part.items():
            indices = drawn[name]
            position = None if indices is None else {index: place for place, index in enumerate(indices)}
            seen: set[int] = set()
            for sample in results["samples"][name]:
                number = sample["doc_id"]
                # Samples come filter by filter; the first filter's come first.
                if number in seen:
                    continue
                seen.add(number)
                place = number if position is None else position[number]
                yield Scored(task, sample, model.outcomes[name, place], chat, number)
