"""A program: what vLLM makes of arguments on this device, without serving. Reads cases, writes one JSON object.

    python -m steelyard.engines.vllm_resolve DEVICE MODEL < cases.json

Each case is resolved in a process forked from one import, because resolving sets variables and threads.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from steelyard.engines.identity import reduce_vllm
from steelyard.engines.launcher import in_fork
from steelyard.engines.vllm_args import flags, refusals, serve_parser, with_defaults


def resolved(args: Mapping[str, Any], device: str, model: str) -> dict[str, Any]:
    """The reduced configuration, as `resolved`, or the reason it is refused, as `refused`."""
    if (why := refusals(args)) is not None:
        return {"refused": why}
    import pydantic
    from vllm.config import VllmConfig
    from vllm.engine.arg_utils import AsyncEngineArgs

    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            parser, _ = serve_parser()
            parsed = parser.parse_args([f"--model={model}", *flags(with_defaults(args, {}, device))])
            config = AsyncEngineArgs.from_cli_args(parsed).create_engine_config()
            whole = pydantic.TypeAdapter(VllmConfig).dump_python(config, mode="json", fallback=str)
    except (SystemExit, Exception) as error:  # noqa: BLE001 - whatever the engine raises is its refusal
        # Of a validation error what it says, not where its page is.
        text = " ".join(str(error).split()).partition(" [type=")[0] or type(error).__name__
        return {"refused": text[:400].rstrip(".")}
    return {"resolved": reduce_vllm(whole)}


def main() -> int:
    """The program."""
    device, model = sys.argv[1:3]
    cases = json.load(sys.stdin)
    import vllm.engine.arg_utils  # noqa: F401 - once, before the forks

    told = {}
    for case in cases:
        found = in_fork(partial(resolved, case["args"], device, model))
        told[case["name"]] = found or {"refused": "the engine ended while it resolved this"}
    sys.stdout.write("\n" + json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
