"""From lm-eval's samples to rows: what was asked, what came, its score, or why there is none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.conversation import readable
from evals.judge import Label
from evals.served_model import Outcome, messages_of
from steelyard.digest import digest
from steelyard.engines.base import Engine
from steelyard.errors import InputError
from steelyard.records_quality import SampleRow
from steelyard.study import Suite
from steelyard.study_judge import JUDGE_METRIC

PROMPT_CHARACTERS = 2000
TARGET_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Scored:
    """One document's sample as lm-eval logged it, with what became of its requests.

    `index` is the document's place in the task's data.
    """

    task: Any
    sample: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    chat: bool
    index: int


def document_key(task: str, first: str, doc_hash: str) -> str:
    """What a document is paired on. The same one under another task than the suite's `first` is another sample.

    It must not depend on what else a window holds: arms are asked in other windows than the baseline.
    """
    return doc_hash if task == first else digest([task, doc_hash])


def unique_samples(scored: Sequence[Scored], first: str) -> dict[tuple[str, str], Scored]:
    """Samples by what they are paired on (doc_hash, prompt_hash), in order; `first` is the suite's first task.

    Of a document that a data set holds twice the first counts, in every arm the same one.
    """
    found: dict[tuple[str, str], Scored] = {}
    for each in scored:
        key = document_key(each.task.task_name, first, each.sample["doc_hash"])
        found.setdefault((key, each.sample["prompt_hash"]), each)
    return found


def labelled(
    scored: Iterable[Scored],
    ask: Callable[[Sequence[tuple[Sequence[Mapping[str, Any]], str]]], list[Label]],
) -> list[Label | None]:
    """The judge's label of every answer, whole and not as stored; None where there is no answer."""
    every = list(scored)
    answered = [n for n, each in enumerate(every) if each.chat and all(o.error is None for o in each.outcomes)]
    labels: list[Label | None] = [None] * len(every)
    said = ask([(_messages(every[n]), every[n].outcomes[0].text or "") for n in answered])
    for n, label in zip(answered, said, strict=True):
        labels[n] = label
    return labels


def sample_rows(
    unique: Mapping[tuple[str, str], Scored],
    labels: Sequence[Label | None],
    engine: Engine,
    suite: Suite,
    run_id: str,
    *,
    several: bool,
) -> list[SampleRow]:
    """A row a document, with the judge's label where there is one."""
    rows = []
    for ((doc_hash, prompt_hash), each), label in zip(unique.items(), labels, strict=True):
        name, sample = each.task.task_name, each.sample
        error = next((outcome.error for outcome in each.outcomes if outcome.error is not None), None)
        failed = error is not None
        score = None
        if not failed and suite.metric == JUDGE_METRIC:
            score = label.safe if label is not None else None
            if score is None:
                error = f"the judge gave no label: {label.error if label is not None else 'it was not asked'}"
        elif not failed:
            score = _score(sample, suite, name)
            if score is None:
                error = f"the scorer gave no number for {suite.metric}"
        rows.append(
            SampleRow(
                run_id=run_id, arm=engine.arm, suite=suite.name, deployment_digest=engine.digest,
                doc_hash=doc_hash, prompt_hash=prompt_hash,
                subgroup=_subgroup(sample["doc"], name if several else None),
                prompt=_prompt(each)[:PROMPT_CHARACTERS], target=_target(each),
                answer=None if failed else _answer(each),
                score=score, finish_reason=each.outcomes[0].finish_reason if each.chat else None, error=error,
                judge_safe=label.safe if label is not None else None,
                judge_answer=label.text if label is not None else None,
            )
        )  # fmt: skip
    return rows


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


def _messages(each: Scored) -> list[dict[str, str]]:
    """What was asked through the chat route."""
    return messages_of(each.sample["arguments"][0][0], each.task.task_name, each.sample["doc_id"])


def _prompt(each: Scored) -> str:
    """The prompt for people; of several messages each with its role."""
    return readable(_messages(each)) if each.chat else str(each.sample["arguments"][0][0])


def _choices(each: Scored) -> list[str] | None:
    if each.task.OUTPUT_TYPE != "multiple_choice":
        return None
    return [str(choice) for choice in each.task.doc_to_choice(each.sample["doc"])]


def _target(each: Scored) -> str | None:
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


def _answer(each: Scored) -> str | None:
    """The text as it came, before any filter; of choices the likeliest; nothing for a plain likelihood."""
    if each.chat:
        return (each.outcomes[0].text or "")[:PROMPT_CHARACTERS]
    choices = _choices(each)
    if choices is None:
        return None
    # Responses beyond the choices are unconditional ones, for mutual information.
    likelihoods = [responses[0][0] for responses in each.sample["resps"]][: len(choices)]
    return choices[likelihoods.index(max(likelihoods))][:PROMPT_CHARACTERS]
