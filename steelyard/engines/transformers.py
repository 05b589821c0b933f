"""Hugging Face `generate` behind an OpenAI-compatible server of ours: the legacy baseline, static batches and all."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steelyard.engines.base import Deployment, Engine
from steelyard.engines.http import ask
from steelyard.engines.identity import deployment_digest
from steelyard.engines.probe import version_of
from steelyard.engines.process import engine_env, launcher
from steelyard.engines.vllm import LOOPBACK, check_files, check_port, free_port, wait_for_token
from steelyard.errors import BadArgument

DTYPES = ("auto", "bfloat16", "float16", "float32")
DEFAULTS: dict[str, Any] = {"dtype": "auto", "max_batch_size": 8, "max_model_len": None}


def refusal_of(args: dict[str, Any]) -> str | None:
    """What is wrong with the arguments of this engine, None if nothing."""
    import difflib

    problems = []
    for name, value in args.items():
        if name not in DEFAULTS:
            close = difflib.get_close_matches(name, DEFAULTS, n=2)
            hint = f" (did you mean {', '.join(close)}?)" if close else ""
            problems.append(f"the transformers engine has no argument {name}{hint}; it has {', '.join(DEFAULTS)}")
        elif name == "dtype" and value not in DTYPES:
            problems.append(f"dtype must be one of {', '.join(DTYPES)}, not {value}")
        elif name != "dtype" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            problems.append(f"{name} must be a whole number from 1, not {value}")
    return "; ".join(problems) or None


@contextmanager
def serve_transformers(
    deployment: Deployment, *, run_log_dir: Path, start_timeout_s: float, port: int | None
) -> Iterator[Engine]:
    """As `steelyard.engines.serve`. Arguments: dtype, max_batch_size (requests of one static batch), max_model_len."""
    if (refused := refusal_of(dict(deployment.args))) is not None:
        raise BadArgument(
            f"The arguments cannot be used: {refused}.", remedy="Correct args of this arm.", arm=deployment.arm
        )
    check_files(deployment)
    if port is not None:
        check_port(port, deployment.arm)
    chosen = port if port is not None else free_port()
    run_log_dir.mkdir(parents=True, exist_ok=True)
    log = run_log_dir / f"{deployment.arm}.log"
    log.unlink(missing_ok=True)
    spec = {
        **DEFAULTS, **deployment.args, "weights": deployment.weights, "tokenizer": deployment.tokenizer,
        "model_name": deployment.model_name, "device": deployment.device, "host": LOOPBACK, "port": chosen,
        "chat_template": str(deployment.chat_template) if deployment.chat_template else None,
    }  # fmt: skip
    defaults = {"HF_HUB_OFFLINE": "1"} if Path(deployment.weights).is_dir() else {}
    command = [sys.executable, "-W", "ignore", "-m", "steelyard.engines.transformers_server", json.dumps(spec)]
    began, started_at = time.monotonic(), datetime.now(UTC)
    process = launcher("none").start(
        arm=deployment.arm, argv=command, spec={}, env=engine_env(deployment.env, defaults), log=log
    )
    try:
        base_url = f"http://{LOOPBACK}:{chosen}"
        wait_for_token(process, deployment, base_url, log, began + start_timeout_s)
        start_s = time.monotonic() - began
        version = version_of(base_url)
        resolved = ask(f"{base_url}/server_info").json() or {}
        yield Engine(
            deployment=deployment, base_url=base_url, version=version, resolved=resolved,
            digest=deployment_digest(deployment, version=version, resolved=resolved),
            started_at=started_at, start_s=start_s, pgid=process.pgid, log=log, extra={"launch": "executed"},
        )  # fmt: skip
    finally:
        process.stop()
