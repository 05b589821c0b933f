"""Suites as they are commonly run: one `lm_eval run` over all of them, with lm-eval's own client, every document."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.versus_naive_parts.tool import run_tool
from evals.harness import folder_of
from steelyard.engines.base import Engine
from steelyard.errors import InfrastructureError, InputError
from steelyard.study import Suite

IN_FLIGHT = 16
"""As many requests as our own transport keeps; lm-eval's default is one."""
LIMIT_S = 3600.0
_BAR = re.compile(r"Requesting API:[^\[]*\[((?:\d+:)*\d+:\d\d)<")


@dataclass(frozen=True, slots=True)
class Asked:
    """What lm-eval came to: mean score by suite, documents, and seconds in which its requests were under way."""

    scores: dict[str, float]
    documents: int
    requests_s: float


def ask(engine: Engine, suites: Sequence[Suite], study_root: Path, folder: Path) -> Asked:
    """Run lm-eval on all suites at once.

    Raises InputError for suites of several folders, InfrastructureError if lm-eval fails or leaves documents out.
    """
    folders = {folder_of(suite, study_root) for suite in suites}
    if len(folders) != 1:
        raise InputError(
            "The suites lie in several folders, and one `lm_eval run` takes one.", remedy="Put their tasks into one."
        )
    said = folder / f"{engine.arm}-lm-eval.log"
    run_tool("lm_eval", ["-m", "lm_eval", "run", *arguments(engine, suites, folders.pop(), folder)], said, LIMIT_S)
    found = max((folder / engine.arm).rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
    return read(json.loads(found.read_text("utf-8")), suites, requesting_s(said.read_text("utf-8", "replace")))


def arguments(engine: Engine, suites: Sequence[Suite], tasks: Path, folder: Path) -> list[str]:
    """The suites in the words of `lm_eval run`."""
    model = {
        "model": engine.model_name,
        "base_url": f"{engine.base_url}/v1/chat/completions",
        "num_concurrent": IN_FLIGHT,
        "tokenizer_backend": "none",
        "tokenized_requests": False,
    }
    asked = ",".join(f"{name}={value}" for name, value in model.items())
    return [
        "--model", "local-chat-completions", "--model_args", asked,
        "--tasks", ",".join(suite.task for suite in suites), "--include_path", str(tasks),
        "--apply_chat_template", "--output_path", str(folder / engine.arm),
    ]  # fmt: skip


def read(results: dict[str, Any], suites: Sequence[Suite], requests_s: float) -> Asked:
    """Scores and counts out of lm-eval's results file."""
    scores = {}
    documents = 0
    for suite in suites:
        counts = results["n-samples"][suite.task]
        if counts["effective"] != counts["original"]:
            raise InfrastructureError(
                f"lm_eval asked {counts['effective']} of {counts['original']} documents of {suite.task}.",
                remedy="Nothing limits it here; see its log.",
            )
        documents += counts["effective"]
        scores[suite.name] = next(
            float(value)
            for name, value in results["results"][suite.task].items()
            if name.startswith(f"{suite.metric},")
        )
    return Asked(scores, documents, requests_s)


def requesting_s(log: str) -> float:
    """Seconds during which lm-eval's requests were under way, to a second a bar: it tells them by bars only.

    Bars follow one another, and each begins at zero.
    """
    total = last = 0.0
    for clock in _BAR.findall(log):
        now = 0.0
        for part in clock.split(":"):
            now = now * 60 + int(part)
        if now < last:
            total += last
        last = now
    return total + last
