"""Samples of one lm-eval task as rows: one suite for each filter and metric."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from steelyard.importers.common import deployment_digest
from steelyard.importers.fields import Field
from steelyard.records_quality import SampleRow

PROMPT_CHARACTERS = 2000
TARGET_CHARACTERS = 500
_HASH = re.compile(r"[0-9a-f]{64}")
OLD = "Run the task again with lm-eval 0.4.3 or later, which writes it."


@dataclass(slots=True)
class ForeignSuite:
    """One filter and metric of a task. `generated`: whether the model wrote text. `key` is its name in results."""

    name: str
    key: str
    metric: str
    generated: bool
    empty: int = 0
    duplicates: int = 0
    rows: list[SampleRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Found:
    """All suites of a task, and what was left out of them."""

    suites: list[ForeignSuite]
    notes: list[str]


def sample_rows(samples: Sequence[Field], task: str, *, run_id: str, arm: str) -> Found:
    """The suites of a task. InputError at the line of a sample that is malformed.

    Documents that a data set holds twice are scored once, as in our own suites, and counted; a document id that comes
    twice is a damaged file.
    """
    by_filter: dict[str, list[Field]] = {}
    for sample in samples:
        by_filter.setdefault(_filter(sample), []).append(sample)
    most = max(map(len, by_filter.values()))
    for name, group in by_filter.items():
        if len(group) < most:
            raise group[0].problem(f"filter {name} has {len(group)} samples, another has {most}.")
    suites: list[ForeignSuite] = []
    notes: list[str] = []
    for name, group in by_filter.items():
        _unique(group)
        for metric in _metrics(group):
            scores = _scores(group, metric)
            if isinstance(scores, str):
                notes.append(f"Task {task}: metric {metric} is left out, {scores}.")
                continue
            if lacking := sum(not _has(sample, metric) for sample in group):
                notes.append(f"Task {task}: {lacking} of {len(group)} samples have no {metric} and no score of it.")
            suites.append(_suite(group, metric, name, scores, run_id, arm))
    if not suites:
        raise samples[0].problem(
            "has no metric that is a number between 0 and 1 for each sample.",
            "Import a task with one, such as acc, exact_match or f1.",
        )
    for suite in suites:
        suite.name = task if len(suites) == 1 else f"{task}:{suite.name}"
        suite.rows = [dataclasses.replace(row, suite=suite.name) for row in suite.rows]
    return Found(suites, notes)


def _filter(sample: Field) -> str:
    found = sample.get("filter")
    return "none" if found is None else found.string()


def _unique(group: Sequence[Field]) -> None:
    seen: dict[int, Field] = {}
    for sample in group:
        number = sample.need("doc_id").integer()
        if number in seen:
            first = seen[number].document.first_line
            raise sample.need("doc_id").problem(f"{number} is also that of line {first}.")
        seen[number] = sample


def _metrics(group: Sequence[Field]) -> list[str]:
    named: dict[str, None] = {}
    for sample in group:
        for item in sample.need("metrics", remedy=OLD).items():
            named.setdefault(item.string())
    if not named:
        raise group[0].need("metrics").problem("names no metric.")
    return list(named)


def _scores(group: Sequence[Field], metric: str) -> list[float | None] | str:
    """The score of every sample; or why the metric has none for a single sample."""
    values = [sample.data.get(metric) for sample in group]
    if all(
        isinstance(value, (list, dict)) for value, sample in zip(values, group, strict=True) if _has(sample, metric)
    ):
        return "it exists only over all samples"
    scores: list[float | None] = []
    for sample, value in zip(group, values, strict=True):
        if not _has(sample, metric):
            # A task may leave a metric out for some documents.
            scores.append(None)
            continue
        found = sample.need(metric)
        if isinstance(value, bool):
            scores.append(float(value))
        elif isinstance(value, float) and math.isnan(value):
            # lm-eval writes NaN where a metric is undefined for an answer.
            scores.append(None)
        else:
            scores.append(found.number(None))
    outside = [score for score in scores if score is not None and not 0.0 <= score <= 1.0]
    return f"it goes to {outside[0]:g}, and a score lies between 0 and 1" if outside else scores


def _has(sample: Field, metric: str) -> bool:
    return metric in sample.data["metrics"]


def _suite(
    group: Sequence[Field], metric: str, filtered: str, scores: Sequence[float | None], run_id: str, arm: str
) -> ForeignSuite:
    named = f"{metric},{filtered}"
    suite = ForeignSuite(named, named, metric, generated=any(_generated(sample) for sample in group))
    seen: set[tuple[str, str]] = set()
    for sample, score in zip(group, scores, strict=True):
        key = (_hash(sample, "doc_hash"), _hash(sample, "prompt_hash"))
        if key in seen:
            suite.duplicates += 1
            continue
        seen.add(key)
        answer = _answer(sample)
        suite.empty += answer is not None and _generated(sample) and not answer.strip()
        suite.rows.append(
            SampleRow(
                run_id=run_id, arm=arm, suite=suite.name, deployment_digest=deployment_digest(run_id, arm),
                doc_hash=key[0], prompt_hash=key[1], subgroup=_subgroup(sample),
                prompt=_prompt(sample)[:PROMPT_CHARACTERS], target=_target(sample),
                answer=None if answer is None else answer[:PROMPT_CHARACTERS], score=score, finish_reason=None,
                error=None if score is not None else f"the scorer gave no number for {metric}",
            )
        )  # fmt: skip
    return suite


def _hash(sample: Field, name: str) -> str:
    found = sample.need(name, remedy=OLD)
    if not _HASH.fullmatch(found.string()):
        raise found.problem("is no sha256 of 64 hex digits.")
    return found.string()


def _requests(sample: Field) -> list[list[Any]]:
    """The arguments of each request of a sample: written as objects, in memory and before 0.4.3 as lists."""
    found = sample.need("arguments")
    requests = list(found.members().values()) if isinstance(found.data, dict) else found.items()
    if not requests:
        raise found.problem("holds no request.")
    lists = []
    for request in requests:
        if isinstance(request.data, dict):
            lists.append(list(request.data.values()))
        elif isinstance(request.data, list):
            lists.append(request.data)
        else:
            raise request.wrong("an object")
        if not lists[-1]:
            raise request.problem("is empty.")
    return lists


def _generated(sample: Field) -> bool:
    first = _requests(sample)[0]
    return len(first) > 1 and isinstance(first[1], dict)


def _prompt(sample: Field) -> str:
    return _text(_requests(sample)[0][0])


def _target(sample: Field) -> str | None:
    target = sample.data.get("target")
    return None if target is None else _text(target)[:TARGET_CHARACTERS]


def _answer(sample: Field) -> str | None:
    """The text as it came, before any filter; of choices the likeliest; nothing for a plain likelihood."""
    responses = sample.need("resps").items()
    if not responses:
        raise sample.need("resps").problem("holds no response.")
    if _generated(sample):
        first = responses[0].data
        return _text(first[0] if isinstance(first, list) and first else first)
    requests = _requests(sample)
    if len(requests) < 2 or any(len(request) < 2 for request in requests):
        return None
    # Responses beyond the choices are unconditional ones, for mutual information.
    contexts = [request[0] for request in requests]
    choices = [request[1] for request in requests]
    likelihoods = [_likelihood(response) for response in responses][: len(choices)]
    best = likelihoods.index(max(likelihoods))
    # Where choices are contexts (winogrande), the continuation is the same in all and the context was chosen.
    return _text(contexts[best] if len(set(map(_text, choices))) == 1 else choices[best]).strip()


def _likelihood(response: Field) -> float:
    value = response.data
    while isinstance(value, list) and value:
        value = value[0]
    try:
        return float(value)
    except (TypeError, ValueError):
        raise response.problem("holds no log-likelihood.") from None


def _subgroup(sample: Field) -> str | None:
    document = sample.data.get("doc")
    named = document.get("subgroup") if isinstance(document, dict) else None
    return None if named in (None, "") else _text(named)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
