"""A programmable engine of known truth, for tests only: no study that asks for it proves anything about a model.

It speaks what Steelyard asks of vLLM (completions, chat, streams with usage, echo with log-probabilities, metrics,
prefix-cache reset) and behaves as its arguments say: how fast, how wrong, how unsafe, and when it breaks. So the
whole pipeline can be checked against arms whose true difference is known.

Run it alone with `python -m steelyard.engines.fake --port 8000 --model demo --behaviour '{"ttft_s": 0.05}'`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steelyard.engines.base import Deployment, Engine
from steelyard.engines.failure import log_tail, start_failure
from steelyard.engines.http import NoAnswerInTime, Unreachable, ask
from steelyard.engines.identity import deployment_digest
from steelyard.engines.process import EngineProcess, engine_env, launcher
from steelyard.errors import BadArgument, Hung, PortInUse, WrongModelServed

VERSION = "fake-1"
POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the fake does, one field an engine argument. Times are seconds; 0 or None switches a failure off.

    `weather` is a file with a number, read at the start: times are that many times as long. It changes without another
    deployment digest, as a machine does.
    Requests of one token are probes: they are never counted towards a failure mode, but hang on a hung engine.
    """

    ttft_s: float = 0.005
    prefill_s_per_token: float = 0.0
    itl_s: float = 0.001
    jitter: float = 0.0
    jitter_seed: int = 0
    tokens_per_chunk: int = 1
    max_num_seqs: int = 256
    prefix_cache: bool = False
    block_size: int = 16
    start_delay_s: float = 0.0
    refuse_start: bool = False
    wrong_model: bool = False
    refuse_ignore_eos: bool = False
    fail_every: int = 0
    break_stream_every: int = 0
    hang_after: int | None = None
    crash_after: int | None = None
    extra_prompt_tokens: int = 0
    uncounted_tokens: int = 0
    cache_everything: bool = False
    answers_file: str | None = None
    answer_seed: int = 0
    wrong_share: float = 0.0
    unsafe_share: float = 0.0
    weather: str | None = None

    @classmethod
    def of(cls, args: Mapping[str, Any], arm: str | None = None) -> Behaviour:
        """The behaviour that arguments ask for. Raises BadArgument for an unknown name or a value of another type."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        wanted: dict[str, Any] = {}
        for name, value in args.items():
            if name not in fields:
                raise BadArgument(
                    f"the fake engine knows no argument {name!r}.", remedy=f"It knows {', '.join(fields)}.", arm=arm
                )
            kinds = {kind.strip() for kind in str(fields[name].type).split("|")}
            got = type(value).__name__ if value is not None else "None"
            if got not in kinds and not (got == "int" and "float" in kinds):
                raise BadArgument(
                    f"the fake engine takes {fields[name].type} as {name}, not {value!r}.",
                    remedy="Correct the argument in the study.",
                    arm=arm,
                )
            wanted[name] = value
        return cls(**wanted)


@contextlib.contextmanager
def serve_fake(
    deployment: Deployment, *, run_log_dir: Path, start_timeout_s: float, port: int | None = None
) -> Iterator[Engine]:
    """Serve `deployment` with the fake in its own process group on loopback; it ends with this context or process.

    Raises BadArgument, PortInUse, CrashedAtStart, Hung (no token within `start_timeout_s`) or WrongModelServed.
    """
    behaviour = Behaviour.of(deployment.args, deployment.arm)
    port = _free_port(port, deployment.arm)
    run_log_dir.mkdir(parents=True, exist_ok=True)
    log = run_log_dir / f"{deployment.arm}.log"
    # The log is kept between starts, and an old failure must not explain a new one.
    log.unlink(missing_ok=True)
    started_at, began = datetime.now(UTC), time.perf_counter()
    process = launcher("none").start(
        arm=deployment.arm, argv=_command(deployment, behaviour, port), spec={}, env=engine_env(deployment.env), log=log
    )
    try:
        base_url = f"http://127.0.0.1:{port}"
        _wait_until_ready(deployment, process, base_url, log, start_timeout_s)
        resolved = {"engine": "fake", **dataclasses.asdict(behaviour)}
        yield Engine(
            deployment=deployment,
            base_url=base_url,
            version=VERSION,
            resolved=resolved,
            digest=deployment_digest(deployment, version=VERSION, resolved=resolved),
            started_at=started_at,
            start_s=time.perf_counter() - began,
            pgid=process.pgid,
            log=log,
        )
    finally:
        process.stop()


def _command(deployment: Deployment, behaviour: Behaviour, port: int) -> list[str]:
    command = [
        sys.executable, "-m", "steelyard.engines.fake", "--port", str(port), "--model", deployment.model_name,
        "--behaviour", json.dumps(dataclasses.asdict(behaviour)),
    ]  # fmt: skip
    if (Path(deployment.tokenizer) / "tokenizer.json").is_file():
        command += ["--tokenizer", deployment.tokenizer]
    return command


def _free_port(wanted: int | None, arm: str) -> int:
    """`wanted`, or any free port. Asked before starting, because whoever holds a port would answer for our engine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise PortInUse(
                f"Port {wanted} of 127.0.0.1 is taken.", remedy="Stop what listens there or name no port.", arm=arm
            ) from error
        return int(probe.getsockname()[1])


def _wait_until_ready(
    deployment: Deployment, process: EngineProcess, base_url: str, log: Path, timeout_s: float
) -> None:
    probe = {"model": deployment.model_name, "prompt": "ready", "max_tokens": 1}
    deadline = time.perf_counter() + timeout_s
    while time.perf_counter() < deadline:
        if (status := process.poll()) is not None:
            raise start_failure(deployment.arm, status, log, port=int(base_url.rsplit(":", 1)[1]))
        try:
            served = [each["id"] for each in ask(f"{base_url}/v1/models", timeout_s=1.0).json()["data"]]
            if deployment.model_name not in served:
                raise WrongModelServed(
                    f"The engine serves {', '.join(served)}, not {deployment.model_name}.",
                    remedy="Serve the model under the name the study gives it.",
                    arm=deployment.arm,
                )
            left = max(0.1, deadline - time.perf_counter())
            if ask(f"{base_url}/v1/completions", payload=probe, timeout_s=left).ok:
                return
        except (Unreachable, NoAnswerInTime):
            pass
        time.sleep(POLL_S)
    raise Hung(
        f"The engine gave no token within {timeout_s:g} s of its start.",
        remedy="Read its log, or allow it more time to start.",
        arm=deployment.arm,
        log_tail=log_tail(log),
    )


def main(argv: list[str] | None = None) -> int:
    """Serve on loopback until SIGTERM; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m steelyard.engines.fake", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--behaviour", default="{}", help="JSON object of Behaviour fields")
    parser.add_argument("--tokenizer", type=Path, default=None, help="folder with tokenizer.json; default: words")
    options = parser.parse_args(argv)
    from steelyard.engines.fake_server import serve_forever

    return serve_forever(
        Behaviour.of(json.loads(options.behaviour)),
        model=options.model,
        port=options.port,
        tokenizer=options.tokenizer,
    )


if __name__ == "__main__":
    sys.exit(main())
