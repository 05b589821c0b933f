"""The prompts of the divergence screen: documents of the study's generation suites, as the suites ask them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evals import harness
from evals.order import Place, declared, indices
from evals.runner import is_chat
from evals.sample_rows import document_key
from evals.served_model import messages_of
from steelyard.errors import InputError
from steelyard.study import Study, Suite


@dataclass(frozen=True, slots=True)
class Prompt:
    """One document as chat messages, with the hashes its samples carry."""

    suite: str
    doc_hash: str
    prompt_hash: str
    messages: tuple[Mapping[str, Any], ...]


def prompts_of(suites: Sequence[Suite], count: int, *, seed: int, study_root: Path) -> list[Prompt]:
    """At most `count` prompts, spread evenly over the suites that generate, in the order of their hashes.

    They are the first of the order in which a suite is asked, so that what is asked here was (or will be) asked there
    too and joins its samples by suite, doc_hash and prompt_hash, and nothing sealed is asked. A suite with too few
    documents leaves its share to the others. Raises InputError if no suite generates text, or cannot be loaded.
    """
    with harness.session():
        loaded = {suite.name: _generating(suite, study_root, seed) for suite in suites}
        room = {name: len(each.order) for name, each in loaded.items() if each.order}
        if not room:
            raise InputError(
                "divergence asks the prompts of generation suites, and no suite of the study generates text.",
                remedy="Add a generation suite, or remove `divergence`.",
                field="divergence",
            )
        shares = spread(count, room)
        found = [
            prompt
            for suite in suites
            if shares.get(suite.name)
            for prompt in _of_suite(suite, loaded[suite.name], shares[suite.name])
        ]
    return sorted(found, key=lambda each: (each.doc_hash, each.prompt_hash, each.suite))


def screen_problems(study: Study, study_root: Path) -> list[str]:
    """Why the study's suites have no prompts for the screen it asks for; empty if they have, or it asks for none."""
    if study.divergence is None:
        return []
    try:
        prompts_of(study.suites, 1, seed=study.seed, study_root=study_root)
    except InputError as error:
        return [str(error)]
    return []


def spread(count: int, room: Mapping[str, int]) -> dict[str, int]:
    """`count` divided as evenly as `room` allows, in its order: those with little give what they cannot take."""
    shares = dict.fromkeys(room, 0)
    left = min(count, sum(room.values()))
    while left:
        hungry = [name for name in room if shares[name] < room[name]]
        fair = max(1, left // len(hungry))
        for name in hungry:
            take = min(fair, room[name] - shares[name], left)
            shares[name] += take
            left -= take
    return shares


class _Generating(NamedTuple):
    """The tasks of a suite that generate, their documents in the order in which the suite asks them, and the name of
    its first task, which may not generate.
    """

    tasks: Mapping[str, Any]
    order: Sequence[Place]
    first: str


def _generating(suite: Suite, study_root: Path, seed: int) -> _Generating:
    loaded = harness.load(suite, study_root)
    tasks = {name: task for name, task in loaded.tasks.items() if is_chat(task)}
    order = [place for place in declared(loaded, suite, seed) if place.task in tasks]
    return _Generating(tasks, order, next(iter(loaded.tasks)))


def _of_suite(suite: Suite, generating: _Generating, count: int) -> list[Prompt]:
    from lm_eval.utils import handle_non_serializable, hash_string

    lengths = {name: len(task.eval_docs) for name, task in generating.tasks.items()}
    drawn = indices(generating.order[:count], lengths)
    found: dict[tuple[str, str], Prompt] = {}
    for name, samples in drawn.items():
        task = generating.tasks[name]
        task.set_fewshot_seed(seed=harness.FEWSHOT_SEED)
        try:
            # As lm-eval's own `evaluate` builds requests, which asks them at once and so is of no use here.
            task.build_all_requests(
                samples=samples, apply_chat_template=True, fewshot_as_multiturn=True,
                chat_template=_as_json,
            )  # fmt: skip
        except Exception as error:
            raise InputError(
                f"lm-eval cannot build the prompts of {name}: {type(error).__name__}: {' '.join(str(error).split())}",
                remedy="Correct the task's prompt.",
            ) from error
        for request in task.instances:
            context = request.arguments[0]
            document = json.dumps(request.doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
            messages = tuple(messages_of(context, name, request.doc_id))
            key = document_key(name, generating.first, hash_string(document))
            prompt = Prompt(suite.name, key, hash_string(context), messages)
            found.setdefault((prompt.doc_hash, prompt.prompt_hash), prompt)
    return list(found.values())


def _as_json(history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:  # noqa: ARG001
    """The messages as `ServedModel.apply_chat_template` writes them, so that prompt hashes are those of samples."""
    messages = [{"role": each["role"], "content": each["content"]} for each in history]
    return json.dumps(messages, ensure_ascii=False)
