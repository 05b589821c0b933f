"""What a study names on this machine: weights, tokenizers, templates, suites. Checked before anything is served."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steelyard.errors import InputError
from steelyard.study_rules import Loc, suggestion
from steelyard.yaml_lines import Document, shown

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
OWN_SUITES = Path(__file__).parent.parent / "evals" / "suites"


def local_folder(text: str, root: Path) -> Path | None:
    """The folder meant, or None if it is a hub id: `owner/name` with no such folder beside the study."""
    folder = root / Path(text).expanduser()
    if HUB_ID.match(text) and not folder.exists():
        return None
    return folder.resolve()


def path_problems(document: Document, root: Path) -> list[InputError]:
    """Every path of a study (as written, valid or not) that is not there or not what it should be."""
    study = document.data
    problems = list(_model_problems(document, root, _mapping(study.get("model"))))
    for loc, template in _templates(study):
        file = root / Path(template).expanduser()
        if not file.is_file():
            what = f"there is no file {shown(file)}."
            problems.append(document.problem(what, "The path is relative to the study file.", loc))
    for loc, adapter in _adapters(study):
        file = root / Path(adapter).expanduser()
        if not file.is_file():
            what = f"there is no file {shown(file)}."
            problems.append(document.problem(what, "The path is relative to the study file.", loc))
    for index, control in enumerate(_list(study.get("controls"))):
        problems += _swapped_problems(document, root, _mapping(control), ("controls", index))
    for index, suite in enumerate(_list(study.get("suites"))):
        problems += _suite_problems(document, root, _mapping(suite), ("suites", index))
    return problems


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _templates(study: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    """Every chat template named, with its place."""
    places: list[tuple[Loc, Any]] = [(("model",), study.get("model"))]
    for section in ("candidates", "controls"):
        places += [((section, index), arm) for index, arm in enumerate(_list(study.get(section)))]
    for loc, part in places:
        template = _mapping(part).get("chat_template")
        if isinstance(template, str):
            yield (*loc, "chat_template"), template


def _adapters(study: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    """Every adapter of derived weights named, with its place."""
    for section in ("candidates", "controls"):
        for index, arm in enumerate(_list(study.get(section))):
            weights = _mapping(arm).get("weights")
            for at, step in enumerate(weights) if isinstance(weights, list) else ((None, weights),):
                adapter = _mapping(step).get("adapter")
                if isinstance(adapter, str):
                    yield (section, index, "weights", *(() if at is None else (at,)), "adapter"), adapter


def _model_problems(document: Document, root: Path, model: Mapping[str, Any]) -> Iterator[InputError]:
    study = document.data
    engines = {_mapping(study.get("baseline")).get("engine", "vllm")} | {
        _mapping(arm).get("engine")
        for section in ("candidates", "controls")
        for arm in _list(study.get(section))
    }  # fmt: skip
    loads_weights = bool(engines & {"vllm", "transformers"}) and not _random_weights(study)
    weights, tokenizer = model.get("weights"), model.get("tokenizer")
    if isinstance(weights, str):
        folder = local_folder(weights, root)
        if folder is not None:
            at: Loc = ("model", "weights")
            if not folder.is_dir():
                remedy = "Give a folder relative to the study file, or a hub id such as owner/name."
                yield document.problem(f"there is no folder {shown(folder)}.", remedy, at)
                return
            if loads_weights:
                yield from _checkpoint_problems(document, folder, at)
    at = ("model", "tokenizer") if isinstance(tokenizer, str) else ("model", "weights")
    source = tokenizer if isinstance(tokenizer, str) else weights
    folder = local_folder(source, root) if isinstance(source, str) else None
    if folder is not None and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        message = f"{shown(folder)} holds no tokenizer ({', '.join(TOKENIZER_FILES[:2])}, ...)."
        yield document.problem(message, "Copy the model's own into it, or give model.tokenizer.", at)


def _random_weights(study: Mapping[str, Any]) -> bool:
    """Whether every arm lets vLLM make random weights (`load_format: dummy`), so that a configuration is enough."""
    baseline = _mapping(study.get("baseline"))
    arms = [_mapping(arm) for section in ("candidates", "controls") for arm in _list(study.get(section))]
    others = any("engine" in arm or "weights" in arm or "load_format" in _mapping(arm.get("args")) for arm in arms)
    return _mapping(baseline.get("args")).get("load_format") == "dummy" and not others


def _checkpoint_problems(document: Document, folder: Path, at: Loc) -> Iterator[InputError]:
    """What an engine that loads weights would miss in a folder."""
    if not any(folder.glob("*.safetensors")):
        yield document.problem(f"{shown(folder)} holds no *.safetensors.", "Save the weights in that form.", at)
    if not (folder / "config.json").is_file():
        yield document.problem(f"{shown(folder)} holds no config.json.", "Copy the model's own into it.", at)


def _swapped_problems(document: Document, root: Path, control: Mapping[str, Any], loc: Loc) -> Iterator[InputError]:
    """Weights that a fault serves in place of the model's: a folder, never a hub id, since nobody declared it."""
    swapped = _mapping(control.get("faults")).get("serve_weights")
    if not isinstance(swapped, str):
        return
    folder, at = (root / Path(swapped).expanduser()).resolve(), (*loc, "faults", "serve_weights")
    declared = _mapping(document.data.get("model")).get("weights")
    engine = control.get("engine") or _mapping(document.data.get("baseline")).get("engine", "vllm")
    if not folder.is_dir():
        remedy = "Give a folder relative to the study file; of a hub model, its snapshot folder."
        yield document.problem(f"there is no folder {shown(folder)}.", remedy, at)
    elif isinstance(declared, str) and folder == local_folder(declared, root):
        yield document.problem(f"{shown(folder)} holds the model's own weights.", "Serve others: that is no fault.", at)
    elif engine in ("vllm", "transformers"):
        yield from _checkpoint_problems(document, folder, at)


def _suite_problems(document: Document, root: Path, suite: Mapping[str, Any], loc: Loc) -> Iterator[InputError]:
    """A task that lm-eval could not find. Tasks that lm-eval brings along are known only to it, and pass."""
    task, path = suite.get("task"), suite.get("path")
    if not isinstance(task, str):
        return
    if isinstance(path, str):
        folder = root / Path(path).expanduser()
        if not folder.is_dir():
            remedy = "The path is relative to the study file."
            yield document.problem(f"there is no folder {shown(folder)}.", remedy, (*loc, "path"))
            return
        tasks = tasks_in(folder)
        if task not in tasks:
            message = f"no YAML file in {shown(folder)} defines the task {task}."
            yield document.problem(message, suggestion(task, tasks, what="There are"), (*loc, "task"))
    elif task.startswith("steelyard_") and OWN_SUITES.is_dir() and task not in tasks_in(OWN_SUITES):
        remedy = suggestion(task, tasks_in(OWN_SUITES), what="There are")
        yield document.problem(f"Steelyard has no suite {task}.", remedy, (*loc, "task"))


def tasks_in(folder: Path) -> list[str]:
    """Names of lm-eval tasks and groups defined in a folder. Read as text: task files use tags of lm-eval's own."""
    pattern = re.compile(r"^(?:task|group):[ ]*[\"']?([\w.-]+)", re.MULTILINE)
    return sorted(
        {name for file in folder.rglob("*.yaml") for name in pattern.findall(file.read_text("utf-8", "replace"))}
    )
