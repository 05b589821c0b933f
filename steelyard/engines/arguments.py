"""Engine arguments checked before anything is served, by the engine's own parser."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from steelyard.engines.process import engine_env, launcher, running
from steelyard.engines.serving import KINDS
from steelyard.engines.vllm import import_env
from steelyard.errors import BadArgument, InfrastructureError, InputError

_TIMEOUT_S = 180.0


def check_arguments(kind: str, args: Mapping[str, Any], device: str) -> None:
    """Raise BadArgument if an engine of that kind refuses `args`; see `check_many` to check several arms at once."""
    refused = check_many([("arm", kind, args)], device).get("arm")
    if refused is not None:
        raise BadArgument(f"The engine refuses the arguments: {refused}.", remedy="Correct args in the study.")


def check_many(
    arms: Iterable[tuple[str, str, Mapping[str, Any]]], device: str, *, env: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What is refused, by arm, of `(arm, kind, args)`; arms that are fine are left out.

    vLLM is imported once for all arms, in another process: 6 s. On a CPU it is the very process that engines are
    forked from later, so give the arms' common `env`, or it is imported once more for them. Raises InputError for an
    unknown kind of engine, or if vLLM is asked for but not installed.
    """
    refused: dict[str, str] = {}
    vllm: list[dict[str, Any]] = []
    for arm, kind, args in arms:
        if kind not in KINDS:
            raise InputError(f"{arm}: there is no engine {kind}.", remedy=f"Use one of {', '.join(KINDS)}.")
        if kind == "vllm":
            vllm.append({"arm": arm, "args": dict(args)})
        elif (why := _refusal(kind, args)) is not None:
            refused[arm] = why
    return {**refused, **(_check_vllm(vllm, device, env or {}) if vllm else {})}


def _refusal(kind: str, args: Mapping[str, Any]) -> str | None:
    if kind == "transformers":
        from steelyard.engines.transformers import refusal_of

        return refusal_of(dict(args))
    if kind == "fake":
        from steelyard.engines.fake import Behaviour

        try:
            Behaviour.of(args)
        except BadArgument as error:
            return str(error).rstrip(".")
        return None
    return f"an engine somebody else runs takes no arguments, not {', '.join(args)}" if args else None


def require_vllm() -> None:
    """Raise InputError unless vLLM is installed."""
    if importlib.util.find_spec("vllm") is None:
        raise InputError("vLLM is not installed.", remedy="Install it as docs/ say for this machine, or use attach.")


def ask_vllm(
    module: str, *arguments: str, cases: Sequence[Mapping[str, Any]], what: str, env: Mapping[str, str],
    timeout_s: float,
) -> dict[str, Any]:  # fmt: skip
    """What one of our programs that import vLLM answers to `cases`: JSON, its last line. `what` is asked about.

    Raises InfrastructureError if it gives no answer within `timeout_s`.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", module, *arguments], input=json.dumps(list(cases)),
            capture_output=True, text=True, timeout=timeout_s, env=engine_env(env), check=False,
        )  # fmt: skip
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
        raise InfrastructureError(
            f"vLLM could not be asked about its {what}.", remedy="Try `python -c 'import vllm'`; it says why."
        ) from error
    return told


def _check_vllm(cases: list[dict[str, Any]], device: str, env: Mapping[str, str]) -> dict[str, str]:
    require_vllm()
    if device == "cpu":
        try:
            answer = (running("vllm") or launcher("vllm", import_env(env))).check(cases)
        except InfrastructureError:
            answer = None
        if answer is not None:
            return answer
    return ask_vllm("steelyard.engines.vllm_args", cases=cases, what="arguments", env={}, timeout_s=_TIMEOUT_S)
