"""Which levers there are here: each is given to the installed engine, which says what it makes of it.

vLLM's parser accepts much that a platform then refuses or changes without a word, so its whole configuration is
resolved, once plainly and once for each lever. What changes nothing in it is no lever here.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.engines.process import engine_env
from steelyard.errors import InfrastructureError, InputError
from steelyard.levers.catalogue import CATALOGUE, Entry

TIMEOUT_S = 300.0
PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """A lever here. `here` is None where only trying would tell (what no argument brings). `changed` are the fields of
    the engine's resolved configuration that it changes: (before, with it).
    """

    entry: Entry
    here: bool | None
    why: str | None
    changed: Mapping[str, tuple[Any, Any]]


def available(device: str, model: Path, catalogue: Sequence[Entry] = CATALOGUE) -> list[Availability]:
    """Every lever of the catalogue on `device`, asked of the installed vLLM with the weights in `model`.

    Takes six seconds for the import of vLLM and about half a second a lever. Raises InputError if vLLM is not installed
    or `model` holds no configuration, InfrastructureError if vLLM cannot resolve even its plain configuration.
    """
    if importlib.util.find_spec("vllm") is None:
        raise InputError("vLLM is not installed.", remedy="Install it as docs/ say for this machine.")
    if not (model / "config.json").is_file():
        raise InputError(f"{model} holds no config.json.", remedy="Name a folder in Hugging Face format.")
    asked = [entry for entry in catalogue if _asks_the_engine(entry, device)]
    cases = [{"name": PLAIN, "args": {}}, *({"name": each.name, "args": dict(each.args)} for each in asked)]
    told = resolve(cases, device, model)
    plain = told.get(PLAIN, {})
    if "resolved" not in plain:
        raise InfrastructureError(
            f"vLLM cannot resolve its plain configuration for {model}: {plain.get('refused', 'no answer')}.",
            remedy="Try to serve the model first.",
        )
    return [judge(entry, device, told.get(entry.name), plain["resolved"]) for entry in catalogue]


def _asks_the_engine(entry: Entry, device: str) -> bool:
    return entry.engine == "vllm" and bool(entry.args) and device in entry.devices


def judge(
    entry: Entry, device: str, told: Mapping[str, Any] | None, plain: Mapping[str, Any]
) -> Availability:
    """What an answer of the engine (`resolved` or `refused`) says of a lever."""
    if device not in entry.devices:
        return Availability(entry=entry, here=False, why=f"for {' and '.join(entry.devices)} only", changed={})
    if not _asks_the_engine(entry, device):
        return Availability(entry=entry, here=None if entry.needs else True, why=entry.needs, changed={})
    if told is None or "resolved" not in told:
        why = (told or {}).get("refused") or "the engine gave no answer"
        return Availability(entry=entry, here=False, why=str(why), changed={})
    changed = differences(plain, told["resolved"])
    if not changed:
        why = "the engine resolves to the same configuration: it is so already, or the device overrules it"
        return Availability(entry=entry, here=False, why=why, changed={})
    return Availability(entry=entry, here=True, why=None, changed=changed)


def differences(plain: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields, as `section.field`, in which two resolved configurations differ."""
    found: dict[str, tuple[Any, Any]] = {}
    for section in sorted(plain.keys() | other.keys()):
        before, after = plain.get(section), other.get(section)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            inner = differences(before, after)
            found |= {f"{section.removesuffix('_config')}.{name}": pair for name, pair in inner.items()}
        elif before != after:
            found[section.removesuffix("_config")] = (before, after)
    return found


def resolve(cases: Sequence[Mapping[str, Any]], device: str, model: Path) -> dict[str, dict[str, Any]]:
    """What vLLM makes of each case's arguments, by name: `{"resolved": ...}` or `{"refused": ...}`."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "steelyard.engines.vllm_resolve", device, str(model)],
            input=json.dumps(list(cases)), capture_output=True, text=True, timeout=TIMEOUT_S,
            env=engine_env({"HF_HUB_OFFLINE": "1"}), check=False,
        )  # fmt: skip
        told: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
        raise InfrastructureError(
            "vLLM could not be asked about its levers.", remedy="Try `python -c 'import vllm'`; it says why."
        ) from error
    return told
