"""Which levers there are here: each is given to the installed engine, which says what it makes of it.

vLLM's parser accepts much that a platform then refuses or changes without a word, so its whole configuration is
resolved, once plainly and once for each lever. Even that accepts what cannot run (kernels of another device): only
`tried` knows, which starts an engine for each and waits for a token.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steelyard.engines.arguments import ask_vllm, require_vllm
from steelyard.engines.base import Deployment
from steelyard.engines.failure import log_text
from steelyard.engines.serving import serve
from steelyard.errors import EngineError, InfrastructureError, InputError
from steelyard.levers.catalogue import CATALOGUE, Entry

State = Literal["serves", "accepted", "already", "unknown", "overruled", "refused", "fails", "elsewhere"]
"""serves: an engine with it gave a token; accepted: its configuration resolves; already: the plain configuration has
it; unknown: no argument brings it, so only a study can tell; overruled: the engine leaves it out; refused: it is no
valid configuration; fails: no engine with it gave a token; elsewhere: for other devices.
"""
TIMEOUT_S = 300.0
TRY_S = 120.0
PLAIN = "plain"
_UNUSED = re.compile(r"Cannot use [^\n]{1,160}")
FIELDS = {"kv_cache_dtype": "cache_dtype", "scheduling_policy": "policy", "attention_backend": "backend"}
"""Where a resolved configuration names an argument otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """A lever here. `changed` are the fields of the resolved configuration that it changes: (before, with it)."""

    entry: Entry
    state: State
    why: str | None = None
    changed: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)

    @property
    def here(self) -> bool:
        """Whether a candidate may pull it, as far as is known."""
        return self.state in ("serves", "accepted", "unknown")


def available(device: str, model: Path, catalogue: Sequence[Entry] = CATALOGUE) -> list[Availability]:
    """Every lever of the catalogue on `device`, asked of the installed vLLM with the weights in `model`.

    Takes six seconds for the import of vLLM and about half a second a lever. Raises InputError if vLLM is not installed
    or `model` holds no configuration, InfrastructureError if vLLM cannot resolve even its plain configuration.
    """
    require_vllm()
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


def judge(entry: Entry, device: str, told: Mapping[str, Any] | None, plain: Mapping[str, Any]) -> Availability:
    """What an answer of the engine (`resolved` or `refused`) says of a lever."""
    if device not in entry.devices:
        return Availability(entry=entry, state="elsewhere", why=f"for {' and '.join(entry.devices)} only")
    if not _asks_the_engine(entry, device):
        return Availability(entry=entry, state="unknown" if entry.needs else "accepted", why=entry.needs)
    if told is None or "resolved" not in told:
        why = (told or {}).get("refused") or "the engine gave no answer"
        return Availability(entry=entry, state="refused", why=str(why))
    if changed := differences(plain, told["resolved"]):
        return Availability(entry=entry, state="accepted", changed=changed)
    has = {name: _value(plain, name) for name in entry.args}
    if all(_same(has[name], value) for name, value in entry.args.items()):
        return Availability(entry=entry, state="already", why="the engine does so unless told otherwise")
    kept = ", ".join(f"{name} {value}" for name, value in has.items())
    return Availability(entry=entry, state="overruled", why=f"the engine takes it and stays with {kept}")


def _value(resolved: Mapping[str, Any], name: str) -> Any:
    field = FIELDS.get(name, name)
    return next((each[field] for each in resolved.values() if isinstance(each, Mapping) and field in each), None)


def _same(resolved: Any, asked: Any) -> bool:
    return str(resolved).removeprefix("torch.").lower() == str(asked).lower()


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
    return ask_vllm(
        "steelyard.engines.vllm_resolve", device, str(model), cases=cases, what="levers",
        env={"HF_HUB_OFFLINE": "1"}, timeout_s=TIMEOUT_S,
    )  # fmt: skip


def tried(
    found: Sequence[Availability], device: str, model: Path, run_log_dir: Path, tell: Callable[[str], None]
) -> list[Availability]:
    """The same after an engine was started with each lever that is accepted, one at a time, up to two minutes each."""
    again = []
    for each in found:
        if each.state == "accepted" and each.entry.engine == "vllm" and each.entry.weights is None:
            again.append(_try(each, device, model, run_log_dir))
            tell(f"{each.entry.name}: {again[-1].state}")
        else:
            again.append(each)
    return again


def _try(each: Availability, device: str, model: Path, run_log_dir: Path) -> Availability:
    entry = each.entry
    deployment = Deployment(
        arm=entry.name, engine="vllm", model_name="model", weights=str(model), tokenizer=str(model), chat_template=None,
        args={"max_model_len": 512, **entry.args}, env=entry.env, url=None, device=device, weights_digest=None,
        tokenizer_digest=None, template_digest=None,
    )  # fmt: skip
    try:
        with serve(deployment, run_log_dir=run_log_dir, start_timeout_s=TRY_S) as engine:
            unused = _UNUSED.search(log_text(engine.log) if engine.log else "")
    except EngineError as error:
        return dataclasses.replace(each, state="fails", why=error.message)
    if unused is not None:
        return dataclasses.replace(each, state="overruled", why=f"the engine serves and says: {unused.group(0)}")
    return dataclasses.replace(each, state="serves")
