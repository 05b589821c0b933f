"""What was promoted, as somebody may serve it: chosen from the ledger, checked against it, written down in full."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.engines.base import Deployment, Engine
from steelyard.errors import InfrastructureError, InputError
from steelyard.gates.proven import most_proven
from steelyard.records import GateRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """A promotion as `promotions_in_force` tells it. `expired_because` is None while it is in force; `gates` are those
    of the run that promoted it.
    """

    study: str
    arm: str
    run_id: str
    promoted_at: str
    deployment_digest: str
    baseline_digest: str
    policy_digest: str
    expired_because: str | None
    gates: tuple[GateRow, ...] = ()


def chosen(study: str, promotions: Sequence[Promoted], arm: str | None = None) -> Promoted:
    """The promotion in force that was asked for; of several, the one whose run proved the largest gain.

    Raises InputError if there is none, naming why earlier ones have expired.
    """
    standing = [each for each in promotions if each.expired_because is None and arm in (None, each.arm)]
    if standing:
        return max(standing, key=lambda each: (proven_gain(each.gates), each.arm))
    expired = [f"{each.arm}: {each.expired_because}" for each in promotions if each.expired_because is not None]
    others = [each.arm for each in promotions if each.expired_because is None]
    if arm is not None and others:
        raise InputError(f"{arm} is not promoted in study {study}.", remedy=f"In force: {', '.join(others)}.")
    raise InputError(
        f"Nothing of study {study} is promoted now."
        + (f" Expired are {'; '.join(expired)}." if expired else ""),
        remedy="Run the study; its report says what is lacking.",
    )  # fmt: skip


def proven_gain(gates: Sequence[GateRow]) -> float:
    """The largest ratio that a required gate on a gain proved, as more is better; 0 without one."""
    return most_proven(row for row in gates if row.benefit and row.required and row.outcome == "pass")


def check_served(engine: Engine, promoted: Promoted) -> None:
    """Raise InfrastructureError unless what is served is what was promoted, to the digest."""
    if engine.digest != promoted.deployment_digest:
        raise InfrastructureError(
            f"{promoted.arm} now serves deployment {engine.digest[:12]}; promoted was "
            f"{promoted.deployment_digest[:12]} (run {promoted.run_id}).",
            remedy="Engine, weights, arguments or environment changed since. Run the study again; its verdict is about "
            "what was measured.",
        )


def document(promoted: Promoted, deployment: Deployment, command: Sequence[str], env: Mapping[str, str]) -> str:
    """Everything that says what is to be served and why, as JSON for machines and people."""
    told: dict[str, Any] = {
        "study": promoted.study,
        "arm": promoted.arm,
        "promoted_by": promoted.run_id,
        "promoted_at": promoted.promoted_at,
        "deployment_digest": promoted.deployment_digest,
        "baseline_digest": promoted.baseline_digest,
        "policy_digest": promoted.policy_digest,
        "engine": deployment.engine,
        "device": deployment.device,
        "weights": deployment.weights,
        "weights_digest": deployment.weights_digest,
        "tokenizer_digest": deployment.tokenizer_digest,
        "template_digest": deployment.template_digest,
        "args": dict(deployment.args),
        "env": dict(env),
        "command": list(command),
        "gates": [
            {
                "gate": row.gate, "scope": row.scope, "metric": row.metric, row.bound_kind: row.bound,
                "estimate": row.estimate, "low": row.low, "high": row.high, "n": row.n, "outcome": row.outcome,
                "required": row.required, "reason": row.reason,
            }
            for row in promoted.gates
        ],
    }  # fmt: skip
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def script(promoted: Promoted, command: Sequence[str], env: Mapping[str, str]) -> str:
    """The same as a shell script. Only HOST and PORT may be set from outside: anything else is another deployment."""
    words = [
        '--host="${HOST:-127.0.0.1}"' if word.startswith("--host=")
        else '--port="${PORT:-8000}"' if word.startswith("--port=")
        else shlex.quote(word)
        for word in command
    ]  # fmt: skip
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(env.items())]
    return "\n".join(
        [
            "#!/bin/sh",
            f"# {promoted.arm} of study {promoted.study}, promoted by run {promoted.run_id}, {promoted.promoted_at}.",
            f"# deployment {promoted.deployment_digest}",
            f"# policy     {promoted.policy_digest}",
            "# The digest holds for the engine version, weights and arguments that were measured.",
            *exports,
            "exec " + " \\\n  ".join(words),
            "",
        ]
    )


def bundle(
    promoted: Promoted, deployment: Deployment, command: Sequence[str], env: Mapping[str, str], into: Path
) -> list[Path]:
    """Write `deployment.json` and `serve.sh` into a folder. Raises InfrastructureError if that cannot be."""
    files = [into / "deployment.json", into / "serve.sh"]
    texts = [document(promoted, deployment, command, env), script(promoted, command, env)]
    try:
        into.mkdir(parents=True, exist_ok=True)
        for path, text in zip(files, texts, strict=True):
            path.write_text(text, "utf-8")
        files[1].chmod(0o755)
    except OSError as error:
        raise InfrastructureError(
            f"{into} cannot be written ({error.strerror}).", remedy="Choose another --out."
        ) from error
    return files
