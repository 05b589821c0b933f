"""vLLM, started by us: launched, waited for until its first token, identified, and stopped for certain."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steelyard.engines.base import Deployment, Engine
from steelyard.engines.failure import log_tail, log_text, refusal, start_failure
from steelyard.engines.http import NoAnswerInTime, Unreachable, ask
from steelyard.engines.identity import deployment_digest, reduce_vllm
from steelyard.engines.launcher import group_listens
from steelyard.engines.probe import check_model, has_token, one_token, version_of
from steelyard.engines.process import EngineProcess, engine_env, launcher
from steelyard.engines.vllm_args import flags, with_defaults
from steelyard.errors import CrashedAtStart, Hung, InfrastructureError, InputError, PortInUse
from steelyard.home import home

LOOPBACK = "127.0.0.1"

# Read when vLLM is used, not when it is imported, so that engines forked from one launcher may differ in them. Every
# other variable (OMP_NUM_THREADS above all) must be there at the import, or the engine is started plainly.
_READ_LATE = frozenset({
    "VLLM_CPU_KVCACHE_SPACE", "VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_OMP_THREADS_BIND",
    "VLLM_CPU_NUM_OF_RESERVED_CPU", "VLLM_SERVER_DEV_MODE", "HF_HUB_OFFLINE", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT",
})  # fmt: skip


@contextmanager
def serve_vllm(
    deployment: Deployment, *, run_log_dir: Path, start_timeout_s: float, port: int | None, preload: bool | None = None
) -> Iterator[Engine]:
    """As `steelyard.engines.serve`. `preload` forces (True) or forbids (False) forking from a preloaded launcher."""
    check_files(deployment)
    for attempt in (1, 2):
        try:
            process, engine = _start(deployment, run_log_dir, start_timeout_s, port, preload)
            break
        except PortInUse:
            # Somebody took the free port between our choice and the engine's bind; a port that was asked for is final.
            if port is not None or attempt == 2:
                raise
    try:
        yield engine
    finally:
        process.stop()


def check_files(deployment: Deployment) -> None:
    """Name what is missing before anything is imported: vLLM takes a missing folder for a hub id, 100 s later."""
    for what, where in (("weights", deployment.weights), ("tokenizer", deployment.tokenizer)):
        looks_local = where.startswith(("/", "./", "../", "~")) or where.count("/") > 1
        if looks_local and not Path(where).is_dir():
            raise InputError(
                f"{deployment.arm}: there is no {what} folder {where}.",
                remedy="Correct model in the study, or make the weights first.",
                field=f"model.{what}",
            )
    if Path(deployment.weights).is_dir() and not (Path(deployment.weights) / "config.json").is_file():
        raise InputError(
            f"{deployment.arm}: {deployment.weights} holds no config.json.",
            remedy="Name a folder in Hugging Face format.",
            field="model.weights",
        )
    if deployment.chat_template is not None and not deployment.chat_template.is_file():
        raise InputError(
            f"{deployment.arm}: there is no chat template {deployment.chat_template}.",
            remedy="Correct chat_template in the study.",
            field="chat_template",
        )


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def check_port(port: int, arm: str) -> None:
    """Raise PortInUse if somebody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise PortInUse(
                f"Port {port} cannot be listened on: {error.strerror}.",
                remedy="Stop what listens there or let Steelyard choose a port.",
                arm=arm,
            ) from None


def _env(deployment: Deployment) -> dict[str, str]:
    defaults = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_CACHE_ROOT": str(home() / "cache" / "vllm"),
        "VLLM_CONFIG_ROOT": str(home() / "cache" / "vllm-config"),
    }
    if Path(deployment.weights).is_dir():
        defaults["HF_HUB_OFFLINE"] = "1"
    return engine_env(deployment.env, {**defaults, **_core_env(deployment)})


def _core_env(deployment: Deployment) -> dict[str, str]:
    """On a CPU the engine core runs where it is started, or its worker would have one core less."""
    return {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} if deployment.device == "cpu" else {}


def _argv(deployment: Deployment, args: dict[str, Any], port: int) -> list[str]:
    argv = [f"--model={deployment.weights}", f"--served-model-name={deployment.model_name}"]
    argv += [f"--host={LOOPBACK}", f"--port={port}"]
    if deployment.tokenizer and deployment.tokenizer != deployment.weights:
        argv.append(f"--tokenizer={deployment.tokenizer}")
    if deployment.chat_template is not None:
        argv.append(f"--chat-template={deployment.chat_template}")
    return argv + flags(args)


def production_command(deployment: Deployment, port: int = 8000) -> tuple[list[str], dict[str, str]]:
    """Command line and environment that serve the same deployment elsewhere, without Steelyard.

    What is left out changes nothing that is computed: the endpoints for developers, and the places of caches.
    """
    args = with_defaults(deployment.args, deployment.env, deployment.device)
    command = ["python", "-m", "vllm.entrypoints.openai.api_server", *_argv(deployment, args, port)]
    return command, {**_core_env(deployment), **deployment.env}


def import_env(env: Mapping[str, str]) -> dict[str, str]:
    """The part of an arm's environment that must be there when vLLM is imported."""
    return {name: value for name, value in env.items() if name not in _READ_LATE}


def _launch(deployment: Deployment, log: Path, port: int, preload: bool | None) -> EngineProcess:
    args = with_defaults(deployment.args, deployment.env, deployment.device)
    spec = {"device": deployment.device, "args": dict(deployment.args), "argv": _argv(deployment, args, port)}
    env = _env(deployment)
    command = [sys.executable, "-W", "ignore", "-m", "steelyard.engines.vllm_shim", json.dumps(spec)]
    if preload is None:
        preload = deployment.device == "cpu"
    if preload:
        early = import_env(deployment.env)
        # Whatever keeps the launcher from preloading will be named by the plain start that follows.
        with suppress(InfrastructureError):
            return launcher("vllm", early).start(arm=deployment.arm, argv=command, spec=spec, env=env, log=log)
    return launcher("none").start(arm=deployment.arm, argv=command, spec=spec, env=env, log=log)


def _start(
    deployment: Deployment, run_log_dir: Path, start_timeout_s: float, port: int | None, preload: bool | None
) -> tuple[EngineProcess, Engine]:
    if port is not None:
        check_port(port, deployment.arm)
    chosen = port if port is not None else free_port()
    run_log_dir.mkdir(parents=True, exist_ok=True)
    log = run_log_dir / f"{deployment.arm}.log"
    log.unlink(missing_ok=True)
    began, started_at = time.monotonic(), datetime.now(UTC)
    process = _launch(deployment, log, chosen, preload)
    try:
        base_url = f"http://{LOOPBACK}:{chosen}"
        wait_for_token(process, deployment, base_url, log, began + start_timeout_s)
        start_s = time.monotonic() - began
        version = version_of(base_url)
        resolved = _resolved(base_url, log)
        engine = Engine(
            deployment=deployment, base_url=base_url, version=version, resolved=resolved,
            digest=deployment_digest(deployment, version=version, resolved=resolved),
            started_at=started_at, start_s=start_s, pgid=process.pgid, log=log,
            extra={"launch": "forked" if process.launcher.preload == "vllm" else "executed"},
        )  # fmt: skip
    except BaseException:
        process.stop()
        raise
    return process, engine


def wait_for_token(process: EngineProcess, deployment: Deployment, base_url: str, log: Path, deadline: float) -> None:
    """Wait until the engine served its first token. Raises its named failure, at the latest at `deadline`
    (monotonic seconds).
    """
    began = time.monotonic()
    arm, port = deployment.arm, int(base_url.rsplit(":", 1)[1])
    while True:
        if (status := process.poll()) is not None:
            raise start_failure(arm, status, log, port=port)
        if refusal(log_text(log)) is not None:
            raise start_failure(arm, 1, log, port=port)
        left = deadline - time.monotonic()
        if left <= 0:
            break
        # Somebody else's engine on this port must not be taken for ours, which will find the port taken and end.
        if group_listens(process.pgid, port) is False:
            process.wait(0.05)
            continue
        try:
            check_model(base_url, deployment.model_name, arm, timeout_s=min(left, 5.0))
            answer = one_token(base_url, deployment.model_name, timeout_s=min(left, deployment.max_answer_wait_s))
        except Unreachable:
            process.wait(0.1)
            continue
        except NoAnswerInTime:
            break
        if process.wait(0) is not None:
            continue
        if has_token(answer):
            return
        raise CrashedAtStart(
            f"The engine answered {answer.status} to its first completion: {answer.text}.",
            remedy=f"The whole log is {log}.",
            arm=arm,
            log_tail=log_tail(log),
        )
    raise Hung(
        f"The engine gave no token within {time.monotonic() - began:.0f} s of its start.",
        remedy="Raise hardware.start_timeout_s of the study if it was still loading; its last lines say what it did.",
        arm=arm,
        log_tail=log_tail(log),
    )


def _resolved(base_url: str, log: Path) -> dict[str, Any]:
    """The engine's own account of its configuration, stable fields only; empty if it gives none."""
    with suppress(Unreachable, NoAnswerInTime):
        answer = ask(f"{base_url}/server_info?config_format=json", timeout_s=30.0)
        body = answer.json() if answer.ok else None
        config = body.get("vllm_config") if isinstance(body, dict) else None
        if isinstance(config, dict):
            chosen = re.search(r"Using (\S+) attention backend", log_text(log))
            return {**reduce_vllm(config), "attention_backend_chosen": chosen.group(1) if chosen else None}
    return {}
