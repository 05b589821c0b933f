"""vLLM arguments: from a study's names to command-line flags, and what vLLM's own parser says of them.

Only `refusals` imports vLLM; it runs in a process that has it loaded anyway (the launcher, or the engine itself).
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn

# Steelyard sets these itself, from the study's model and its own choice of port.
RESERVED = frozenset({
    "model", "model_tag", "tokenizer", "served_model_name", "host", "port", "uds", "chat_template", "api_key",
    "revision", "tokenizer_revision", "config", "headless", "ssl_keyfile", "ssl_certfile", "ssl_ca_certs",
    "root_path", "api_server_count",
})  # fmt: skip
# Touched at the start, so each resident arm pays it: 180,000 tokens of the reference model in bfloat16.
CPU_KV_BYTES = 256 << 20


def flags(args: Mapping[str, Any]) -> list[str]:
    """`{"max_num_seqs": 4, "enable_prefix_caching": False}` -> `--max-num-seqs=4 --no-enable-prefix-caching`."""
    made = []
    for name, value in args.items():
        flag = name.replace("_", "-")
        if value is True:
            made.append(f"--{flag}")
        elif value is False:
            made.append(f"--no-{flag}")
        elif isinstance(value, (dict, list)):
            made.append(f"--{flag}={json.dumps(value, sort_keys=True)}")
        elif value is not None:
            made.append(f"--{flag}={value}")
    return made


def with_defaults(args: Mapping[str, Any], env: Mapping[str, str], device: str) -> dict[str, Any]:
    """The arguments asked for, plus what a shared CPU machine needs unless the arm says otherwise.

    On a CPU vLLM would claim 92 % of the memory and compile for 40 s, which a compilation lever may ask for, but no
    other arm should pay. Elsewhere nothing but the access log is touched.
    """
    made = dict(args)
    made.setdefault("disable_uvicorn_access_log", True)
    if device == "cpu":
        made.setdefault("enforce_eager", True)
        made.setdefault("gpu_memory_utilization", 0.05)
        if "VLLM_CPU_KVCACHE_SPACE" not in env:
            made.setdefault("kv_cache_memory_bytes", CPU_KV_BYTES)
    return made


def serve_parser() -> tuple[Any, Any]:
    """The parser of vLLM's server and its check of what was parsed. They moved; older places are tried too."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    try:
        place = importlib.import_module("vllm.entrypoints.launchers.cli_args")
    except ImportError:
        place = importlib.import_module("vllm.entrypoints.openai.cli_args")
    parser = place.make_arg_parser(FlexibleArgumentParser(prog="vllm"))
    parser.allow_abbrev = False
    return parser, place.validate_parsed_serve_args


class _Refused(Exception):
    pass


def refusals(args: Mapping[str, Any]) -> str | None:
    """What vLLM's parser and configuration classes refuse of `args`, in a sentence without a full stop; None if
    nothing. Abbreviated flags, which argparse would complete, are refused too.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs

    parser, validate_parsed_serve_args = serve_parser()
    known = {option[2:].replace("-", "_") for option in parser._option_string_actions if option.startswith("--")}
    if (found := _names(args, known)) is not None:
        return found

    def refuse(message: str) -> NoReturn:
        raise _Refused(message)

    parser.error = refuse  # type: ignore[method-assign]
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            # Offline, vLLM looks the model up at once; any folder that exists will do for a check of arguments.
            parsed = parser.parse_args(["--model=.", *flags(args)])
            validate_parsed_serve_args(parsed)
            AsyncEngineArgs.from_cli_args(parsed)
    except _Refused as error:
        return _one_line(str(error))
    except (SystemExit, Exception) as error:  # noqa: BLE001 - anything the parser raises is its refusal
        return _one_line(f"{type(error).__name__}: {error}")
    return _values(args)


def _names(args: Mapping[str, Any], known: set[str]) -> str | None:
    problems = []
    for name, value in args.items():
        if name in RESERVED:
            problems.append(f"{name} is set by Steelyard itself, from model and engine of the study")
        elif name.split(".")[0] not in known:
            close = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
            hint = f" (did you mean {', '.join(close)}?)" if close else ""
            problems.append(f"vLLM has no argument {name}{hint}")
        elif value is False and f"no_{name}" not in known:
            problems.append(f"{name} cannot be switched off; leave it out")
    return "; ".join(problems) or None


def _values(args: Mapping[str, Any]) -> str | None:
    """Check values against the fields of vLLM's configuration classes: the parser knows types, not ranges."""
    import pydantic
    import vllm.config

    problems = []
    for group in (
        "CacheConfig", "SchedulerConfig", "ModelConfig", "ParallelConfig", "LoadConfig", "CompilationConfig",
    ):  # fmt: skip
        fields = getattr(getattr(vllm.config, group, None), "__pydantic_fields__", {})
        for name, value in args.items():
            field = fields.get(name)
            if field is None or not field.metadata or not isinstance(value, (int, float)) or isinstance(value, bool):
                continue
            try:
                annotated: Any = Annotated[(field.annotation, *field.metadata)]
                pydantic.TypeAdapter(annotated).validate_python(value)
            except pydantic.ValidationError as error:
                problems.append(f"{name}: {error.errors()[0]['msg']}, not {value}")
            except Exception:  # noqa: BLE001 - a field that cannot be checked alone is checked at the start
                continue
    return "; ".join(problems) or None


def check(cases: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Refusals by arm of `[{"arm": ..., "args": ...}]`; arms without one are left out."""
    found = {case["arm"]: refusals(case["args"]) for case in cases}
    return {arm: refused for arm, refused in found.items() if refused is not None}


def _one_line(text: str) -> str:
    return " ".join(text.split())[:600].rstrip(".")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(check(json.load(sys.stdin))) + "\n")
