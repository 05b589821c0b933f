"""The baseline's answers for the divergence screen, kept on disk so that every arm is compared with the same ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steelyard.digest import digest

if TYPE_CHECKING:
    from evals.divergence import Reference


def save(path: Path, reference: Reference) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(dataclasses.asdict(reference), ensure_ascii=False), "utf-8")
    temporary.replace(path)


def load(path: Path) -> Reference:
    """The reference as it was saved."""
    from evals.divergence import Answer, Reference
    from evals.divergence_prompts import Prompt

    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    answers = []
    for each in data.pop("answers"):
        prompt = each.pop("prompt")
        prompt["messages"] = tuple(prompt["messages"])
        tops = tuple({int(token): value for token, value in top.items()} for top in each.pop("tops"))
        prompt_ids, ids = (tuple(each.pop(name)) for name in ("prompt_ids", "ids"))
        answers.append(
            Answer(Prompt(**prompt), prompt_ids=prompt_ids, ids=ids, tops=tops, text=each["text"], error=each["error"])
        )
    return Reference(answers=tuple(answers), **data)


def reference_digest(reference: Reference) -> str:
    """Identity of the answers: another one, and no arm's divergence counts any more."""
    return digest(
        [reference.digest, reference.top_k, reference.max_tokens, reference.seed]
        + [[each.prompt.doc_hash, each.prompt_ids, each.ids, each.text, each.error] for each in reference.answers]
    )
