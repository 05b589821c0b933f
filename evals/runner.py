"""One suite against one served engine: lm-eval's documents, prompts and scorers; our asking; a row a document.

lm-eval's `evaluate` is called, not `simple_evaluate`: that one adds, at every call, an environment report that runs
pip, compilers and git (seconds), imports torch, and leaves the process's random seeds changed. What else it does -
few-shot seeds, task loading - `harness` does.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evals import harness
from evals.served_model import Outcome, ServedModel
from evals.tasks import require_metric
from evals.tokens import load_tokens
from evals.transport import Transport
from steelyard.digest import digest
from steelyard.engines.base import Engine
from steelyard.errors import InputError, SteelyardError
from steelyard.records import SampleRow, SuiteRow
from steelyard.study import Suite

PROMPT_CHARACTERS = 2000
TARGET_CHARACTERS = 500


class SuiteResult(NamedTuple):
    """What goes into the warehouse together."""

    suite: SuiteRow
    samples: list[SampleRow]


@dataclass(frozen=True, slots=True)
class _Scored:
    """One document's sample as lm-eval logged it, with what became of its requests."""

    task: Any
    sample: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    chat: bool


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
) -> SuiteResult:
    """Evaluate `suite` on `engine` and return its rows.

    Generation tasks go through /v1/chat/completions, likelihood and multiple-choice tasks through /v1/completions.
    With a limit, documents are drawn by `seed` and the task's name alone: the same in every arm, and a smaller limit
    draws a subset of a larger one's. Where a task has several filters, the first counts. `tokenizer` is a folder or
    hub id; `timeout_s` bounds one request, in seconds. Not for use inside a running event loop.

    A request that fails makes its sample missing: score None, error set. Raises EngineError if the engine is dead or
    hung, InputError if the suite, its metric or its scores cannot be used.
    """
    with harness.session():
        loaded = harness.load(suite, study_root)
        for task in loaded.tasks.values():
            require_metric(task, suite)
        drawn = draw(loaded.documents, suite.limit, seed=seed, name=suite.task)
        model = ServedModel(
            Transport(engine, concurrency=concurrency, timeout_s=timeout_s), load_tokens(tokenizer), seed=seed
        )
        start = time.perf_counter()
        scored = list(_evaluate(model, loaded.tasks, drawn))
        duration_s = time.perf_counter() - start
        samples = _rows(scored, engine, suite, run_id, several=len(loaded.tasks) > 1)
    scores = [sample.score for sample in samples if sample.score is not None]
    routes = {each.chat for each in scored}
    row = SuiteRow(
        run_id=run_id, arm=engine.arm, suite=suite.name, deployment_digest=engine.digest, category=suite.category,
        task=suite.task, task_version=loaded.version,
        route="mixed" if len(routes) == 2 else "chat" if True in routes else "loglikelihood",
        metric=suite.metric, documents=len(samples), answered=len(scores),
        mean_score=math.fsum(scores) / len(scores) if scores else None,
        documents_digest=digest(sorted(sample.doc_hash for sample in samples)),
        lm_eval_version=importlib.metadata.version("lm_eval"), duration_s=duration_s,
    )  # fmt: skip
    return SuiteResult(row, samples)


def draw(documents: Mapping[str, int], limit: int | None, *, seed: int, name: str) -> dict[str, list[int] | None]:
    """Which documents of each task are asked: sorted indices, or None for all of them.

    Tasks none of whose documents are drawn are left out, because lm-eval takes an empty list for "all".
    """
    everything = [(task, index) for task, count in documents.items() for index in range(count)]
    if limit is None or limit >= len(everything):
        return dict.fromkeys(documents)
    random.Random(digest([seed, name])).shuffle(everything)
    picked: dict[str, list[int] | None] = {}
    for task in documents:
        indices = sorted(index for owner, index in everything[:limit] if owner == task)
        if indices:
            picked[task] = indices if len(indices) < documents[task] else None
    return picked


def is_chat(task: Any) -> bool:
    """Whether a task generates, and so goes through the chat route."""
    return task.OUTPUT_TYPE == "generate_until"


def _evaluate(model: ServedModel, tasks: Mapping[str, Any], drawn: Mapping[str, list[int] | None]) -> Iterator[_Scored]:
    """Run lm-eval once for the generation tasks and once for the others."""
    from lm_eval.evaluator import evaluate

    for chat in (True, False):
        part = {name: tasks[name] for name in drawn if is_chat(tasks[name]) is chat}
        if not part:
            continue
        for task in part.values():
            task.set_fewshot_seed(seed=harness.FEWSHOT_SEED)
        try:
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
                yield _Scored(task, sample, model.outcomes[name, place], chat)


def _rows(scored: Sequence[_Scored], engine: Engine, suite: Suite, run_id: str, *, several: bool) -> list[SampleRow]:
    """A row a document; a document that a data set holds twice counts once, in every arm the same one."""
    rows: dict[tuple[str, str], tuple[str, SampleRow]] = {}
    for each in scored:
        name, sample = each.task.task_name, each.sample
        doc_hash = sample["doc_hash"]
        owner = rows.get((doc_hash, sample["prompt_hash"]))
        if owner is not None:
            if owner[0] == name:
                continue
            # The same document under another task of the group is another sample.
            doc_hash = digest([name, doc_hash])
        error = next((outcome.error for outcome in each.outcomes if outcome.error is not None), None)
        score = None if error is not None else _score(sample, suite, name)
        if error is None and score is None:
            error = f"the scorer gave no number for {suite.metric}"
        first = each.outcomes[0]
        rows[doc_hash, sample["prompt_hash"]] = name, SampleRow(
            run_id=run_id, arm=engine.arm, suite=suite.name, deployment_digest=engine.digest,
            doc_hash=doc_hash, prompt_hash=sample["prompt_hash"],
            subgroup=_subgroup(sample["doc"], name if several else None),
            prompt=_prompt(each)[:PROMPT_CHARACTERS], target=_target(each),
            answer=None if any(outcome.error for outcome in each.outcomes) else _answer(each),
            score=score, finish_reason=first.finish_reason if each.chat else None, error=error,
        )  # fmt: skip
    return [row for _, row in rows.values()]


def _score(sample: Mapping[str, Any], suite: Suite, task: str) -> float | None:
    """The metric as a float; None if it is not a number (NaN). Raises InputError if it is no score."""
    if suite.metric not in sample:
        raise InputError(
            f"suite {suite.name}: the task {task} gives no metric {suite.metric} for a sample; it gives "
            f"{', '.join(sample['metrics'])}.",
            remedy="Name one of those.",
            field="suites.metric",
        )
    try:
        score = float(sample[suite.metric])
    except (TypeError, ValueError):
        raise InputError(
            f"suite {suite.name}: the metric {suite.metric} of the task {task} is no number for one sample but "
            f"{type(sample[suite.metric]).__name__}: it only exists over all of them.",
            remedy=f"Name a metric that each sample has; the task gives {', '.join(sample['metrics'])}.",
            field="suites.metric",
        ) from None
    if math.isnan(score):
        return None
    if not 0.0 <= score <= 1.0:
        raise InputError(
            f"suite {suite.name}: the metric {suite.metric} of the task {task} goes to {score:g}, but a score "
            "lies between 0 and 1.",
            remedy="Name another metric, or scale it in the task's process_results.",
            field="suites.metric",
        )
    return score


def _subgroup(document: Mapping[str, Any], task: str | None) -> str | None:
    named = document.get("subgroup")
    return str(named) if named not in (None, "") else task


def _prompt(each: _Scored) -> str:
    context = each.sample["arguments"][0][0]
    if not each.chat:
        return str(context)
    return "\n".join(message["content"] for message in json.loads(context))


def _choices(each: _Scored) -> list[str] | None:
    if each.task.OUTPUT_TYPE != "multiple_choice":
        return None
    return [str(choice) for choice in each.task.doc_to_choice(each.sample["doc"])]


def _target(each: _Scored) -> str | None:
    target, choices = each.sample["target"], _choices(each)
    if choices is not None:
        if getattr(each.task, "multiple_input", 0):
            target = each.task.doc_to_text(each.sample["doc"])
        if isinstance(target, int) and 0 <= target < len(choices):
            target = choices[target]
    if target is None:
        return None
    text = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False, default=str)
    return text[:TARGET_CHARACTERS]


def _answer(each: _Scored) -> str | None:
    """The text as it came, before any filter; of choices the likeliest; nothing for a plain likelihood."""
    if each.chat:
        return (each.outcomes[0].text or "")[:PROMPT_CHARACTERS]
    choices = _choices(each)
    if choices is None:
        return None
    # Responses beyond the choices are unconditional ones, for mutual information.
    likelihoods = [responses[0][0] for responses in each.sample["resps"]][: len(choices)]
    return choices[likelihoods.index(max(likelihoods))][:PROMPT_CHARACTERS]
