"""From a valid study to deployments an engine can serve: paths resolved, weights derived, identities computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steelyard.digest import digest, files_digest, text_digest
from steelyard.engines.base import Deployment
from steelyard.errors import InputError
from steelyard.study import Arm
from steelyard.study_file import LoadedStudy
from steelyard.study_paths import local_folder
from steelyard.study_weights import steps
from steelyard.weights import adapter_file, materialise, weights_digest

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "tekken.json",
)  # fmt: skip


def deployments(loaded: LoadedStudy, *, weights_into: Path) -> list[Deployment]:
    """One deployment for each arm, in the study's order.

    The engine launcher passes model, served name, tokenizer and chat template itself, from the fields of `Deployment`,
    so `args` stay as the arm has them. A hub model is served from its snapshot folder in the local cache, so that the
    bytes measured are the bytes digested. Raises InputError where weights cannot be found or derived.
    """
    return [deployment(loaded, arm, weights_into=weights_into) for arm in loaded.study.arms]


def deployment(loaded: LoadedStudy, arm: Arm, *, weights_into: Path) -> Deployment:
    """The deployment of one arm, as `deployments` makes it; nothing is derived for the others."""
    model = loaded.study.model
    template = arm.chat_template or model.chat_template
    template_file = (loaded.root / Path(template).expanduser()).resolve() if template else None
    # Of the reference weights for every arm, so that all arms count the same tokens.
    tokenizer = _folder(loaded, "tokenizer" if model.tokenizer else "weights", model.tokenizer or model.weights)
    if arm.engine == "attach":
        return Deployment(
            arm=arm.name, engine=arm.engine, model_name=model.name, weights=model.weights, tokenizer=str(tokenizer),
            chat_template=template_file, args=arm.args, env=arm.env, url=arm.url,
            device=loaded.study.hardware.device, weights_digest=None, tokenizer_digest=None, template_digest=None,
            faults=arm.faults,
        )  # fmt: skip
    weights = _folder(loaded, "weights", model.weights)
    if arm.weights is not None:
        weights = _derived(loaded, arm, weights, weights_into)
    declared = _weights_identity(weights, arm)
    swapped = arm.faults.serve_weights if arm.faults is not None else None
    if swapped is not None:
        weights = (loaded.root / Path(swapped).expanduser()).resolve()
    return Deployment(
        arm=arm.name, engine=arm.engine, model_name=model.name, weights=str(weights), tokenizer=str(tokenizer),
        chat_template=template_file, args=arm.args, env=arm.env, url=None, device=loaded.study.hardware.device,
        weights_digest=declared, tokenizer_digest=tokenizer_digest(tokenizer),
        template_digest=template_digest(template_file, tokenizer), faults=arm.faults,
        served_weights_digest=_weights_identity(weights, arm) if swapped is not None else None,
    )  # fmt: skip


def _derived(loaded: LoadedStudy, arm: Arm, weights: Path, into: Path) -> Path:
    """The arm's weights. InputError at the line of the study that names an adapter which is not there."""
    for index, step in enumerate(steps(arm.weights)):
        if step.adapter is not None and not adapter_file(step.adapter, loaded.root).is_file():
            section = "candidates" if arm.role == "candidate" else "controls"
            number = [each.name for each in getattr(loaded.study, section)].index(arm.name)
            at = ("weights", index) if isinstance(arm.weights, tuple) else ("weights",)
            raise loaded.problem(
                f"there is no file {step.adapter}.", "The path is relative to the study file.",
                section, number, *at, "adapter",
            )  # fmt: skip
    return materialise(weights, steps(arm.weights), into, root=loaded.root)


def _folder(loaded: LoadedStudy, field: str, text: str) -> Path:
    """The folder of a checkpoint or tokenizer: beside the study, or its snapshot in the local hub cache."""
    folder = local_folder(text, loaded.root)
    if folder is not None:
        return folder
    revision = loaded.study.model.revision if field == "weights" else None
    snapshot = cached_snapshot(text, revision)
    if snapshot is None:
        pinned = f" --revision {revision}" if revision else ""
        raise loaded.problem(
            f"{text} is not on this machine.", f"Fetch it first: hf download {text}{pinned}", "model", field
        )
    return snapshot


def cached_snapshot(repo: str, revision: str | None) -> Path | None:
    """The folder of a hub model that is in the local cache; None if it is not. Asks nobody on the network."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def _weights_identity(folder: Path, arm: Arm) -> str | None:
    """Digest of the weights. The fake engine loads none, so a folder without any has no digest there; where vLLM makes
    random ones, their shape is what is served.
    """
    if not any(folder.glob("*.safetensors")):
        if arm.engine == "fake":
            return None
        if arm.args.get("load_format") == "dummy":
            return files_digest([folder / "config.json"])
    return weights_digest(folder)


def tokenizer_digest(folder: Path) -> str:
    """sha256 over the names and contents of the tokenizer files of a folder."""
    return files_digest(path for name in TOKENIZER_FILES if (path := folder / name).is_file())


def template_digest(file: Path | None, tokenizer: Path) -> str | None:
    """sha256 of the chat template in force: the file's text, else the tokenizer's own; None if there is neither.

    The same text has the same digest, wherever it is written.
    """
    own = _text(file) if file is not None else own_template(tokenizer)
    if own is None:
        return None
    return text_digest(own) if isinstance(own, str) else digest(own)


def own_template(folder: Path) -> Any:
    """The chat template a tokenizer folder brings: a text, a list of named ones, or None."""
    if (folder / "chat_template.jinja").is_file():
        return _text(folder / "chat_template.jinja")
    config = folder / "tokenizer_config.json"
    return json.loads(_text(config)).get("chat_template") if config.is_file() else None


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the file cannot be read as UTF-8 text.", remedy="Check it.", file=str(file)) from error
