"""The study of the bench: what the laptop's study would deploy, beside what people deploy without measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steelyard.study_derived import data_of, write_study
from steelyard.study_file import LoadedStudy, load_study

STACK, DEFAULTS, LEGACY = "stack", "vllm-defaults", "transformers"
DOCUMENTS = 16
"""Of a suite. Quality of the stack is the business of the study it comes from; here it is asked so little that nothing
can be promoted."""


def write_stack(source: Path, folder: Path, *, arm: str, blocks: int, seed: int) -> Path:
    """Write the study into `folder` and return its file: the source's baseline, its candidate `arm` as the stack,
    vLLM as it serves if nobody asks for anything, and Hugging Face's generate behind a server.

    Every arm is timed to the end. Raises InputError if the source has no such candidate, or what was made is no study.
    """
    loaded = load_study(source)
    data = data_of(source, loaded)
    claim = {"workload": loaded.study.load_points[0].workload.name, "load": loaded.study.load_points[0].load.name}
    (chosen,) = [each for each in data["candidates"] if each["name"] == arm]
    baseline = data["baseline"]
    # Arguments and variables of the baseline are taken back by null: nothing of it may be left in the defaults.
    unset = {name: None for name in baseline["args"] if name != "max_model_len"}
    data |= {
        "study": "stack", "description": "The promoted stack beside what people deploy without measuring.",
        "seed": seed, "blocks": blocks,
    }  # fmt: skip
    data = unjudged(data)
    data["candidates"] = [
        {**chosen, "name": STACK, "claim": claim},
        {
            "name": DEFAULTS, "lever": "engine", "claim": claim,
            "note": "vLLM's own choices: compiled, its own processes and threads.",
            "args": {**unset, "enforce_eager": False},
            "env": {**dict.fromkeys(baseline.get("env", {})), "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
        },
        {
            "name": LEGACY, "lever": "engine", "engine": "transformers", "claim": claim,
            "note": "Hugging Face generate, requests batched as they wait.",
        },
    ]  # fmt: skip
    data["controls"] = [{"name": "identity", "kind": "identity"}]
    return write_study(data, loaded, folder, to_the_end(loaded))


def unjudged(data: dict[str, Any]) -> dict[str, Any]:
    """A study's data with so few documents that nothing can be promoted, and nothing beside trials."""
    kept = {name: value for name, value in data.items() if name not in ("profile", "divergence", "capacity")}
    names = _one_a_category(data["suites"])
    suites = [{**each, "limit": DOCUMENTS} for each in data["suites"] if each["name"] in names]
    return {**kept, "batch": DOCUMENTS, "reuse_baseline": False, "suites": suites}


def to_the_end(loaded: LoadedStudy) -> dict[str, Any]:
    """A policy under which every arm is timed to the end."""
    gates = [
        gate.model_dump(mode="json", exclude_none=True)
        for gate in loaded.policy.gates
        if gate.category not in ("divergence", "capacity")
    ]
    return {"attempts": "free", "stop_early": False, "gates": gates}


def _one_a_category(suites: list[dict[str, str]]) -> set[str]:
    return {next(each["name"] for each in suites if each["category"] == kind) for kind in ("accuracy", "safety")}
