"""From an engine's exit status and log to the named error, with the lines that matter."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from steelyard.errors import BadArgument, CrashedAtStart, EngineError, OutOfMemory, PortInUse

MARK = "STEELYARD_REFUSED "
TAIL_LINES = 15
_READ_BYTES = 256 * 1024

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PREFIX = re.compile(r"^\((?:APIServer|EngineCore|Worker)[^)]*\) ?(?:ERROR \d\d-\d\d [\d:]+ \[[\w./]+:\d+\] ?)?")
# Frames of a traceback: the exception below them says more, and the whole log keeps them.
_FRAME = re.compile(r"^\s{2,}|^Traceback \(|^(?:The above exception was|During handling of the above)|^\s*$")
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception)\b[^:]*: \S")
_FOLLOWS = re.compile(r"Engine core initialization failed|EngineDeadError|See root cause")
_NOISE = re.compile(
    r"nanobind: |^ *- (?:leaked|a reference leak|if this) |^ *- leaked|leaked (?:instance|type|function|keep_alive)|"
    r"See https://nanobind|Route: /|Available routes are|resource_tracker|warnings\.warn\(|[▀▄█]|"
    r"Triton is (?:not )?installed|triton-cpu is expected|LD_PRELOAD|huggingface/tokenizers|^\s*\^+\s*$|"
    r"Exception ignored in: |^INFO:\s+(?:Started|Waiting|Shutting|Finished|Application)"
)
_MEMORY = re.compile(
    r"out of memory|is less than requested memory|OutOfMemoryError|\bMemoryError\b|Cannot allocate memory|"
    r"can't allocate memory|std::bad_alloc|No available memory for the cache|less than desired (?:GPU|CPU) memory|"
    r"[Nn]ot enough memory|larger than the available KV cache memory|exceeds available memory"
)
_PORT = re.compile(r"Address already in use|\[Errno 98\]|EADDRINUSE")


def log_text(log: Path | None) -> str:
    """The last 256 KiB of a log; empty if there is none."""
    if log is None or not log.is_file():
        return ""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _READ_BYTES))
        return stream.read().decode(errors="replace")


def meaningful(text: str, lines: int = TAIL_LINES) -> tuple[str, ...]:
    """The last lines of a log that help: no colours, prefixes, traceback frames, routes, banners or exit noise."""
    kept: list[str] = []
    for raw in text.splitlines():
        line = _PREFIX.sub("", _ANSI.sub("", raw)).rstrip()
        if line.startswith(MARK) or _FRAME.search(line) or _NOISE.search(line) or line[:300] in kept[-8:]:
            continue
        kept.append(line[:300])
    return tuple(kept[-lines:])


def log_tail(log: Path | None) -> tuple[str, ...]:
    """`meaningful` lines of a log file."""
    return meaningful(log_text(log))


def refusal(text: str) -> str | None:
    """What the engine's own parser or configuration check refused, if it did."""
    found = [line for line in text.splitlines() if MARK in line]
    return json.loads(found[-1].split(MARK, 1)[1]) if found else None


def start_failure(arm: str, status: int, log: Path | None, *, port: int | None = None) -> EngineError:
    """The named error of an engine that ended with `status` before its first token."""
    text = log_text(log)
    tail = meaningful(text)
    if (refused := refusal(text)) is not None:
        return BadArgument(
            f"The engine refuses the configuration: {refused}.",
            remedy="Correct args or env of this arm in the study.",
            arm=arm,
        )
    if _PORT.search(text):
        return PortInUse(
            f"Port {port} is taken." if port else "The port is taken.",
            remedy="Stop what listens there or let Steelyard choose a port.",
            arm=arm,
            log_tail=tail,
        )
    if status == -signal.SIGKILL or _MEMORY.search(text):
        how = "was killed (SIGKILL), most often by the kernel for lack of memory" if status < 0 else "ran out of memory"
        return OutOfMemory(
            f"The engine {how} before its first token.",
            remedy="Give it less (kv_cache_memory_bytes, gpu_memory_utilization, max_model_len, max_num_seqs), "
            "or set residency: exclusive.",
            arm=arm,
            log_tail=tail,
        )
    return CrashedAtStart(
        f"The engine ended with {status_text(status)} before its first token{_cause(tail)}.",
        remedy=f"The whole log is {log}." if log else "",
        arm=arm,
        log_tail=tail,
    )


def status_text(status: int) -> str:
    """`status 1` or `signal SIGSEGV`."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def _cause(tail: Sequence[str]) -> str:
    """The first exception that is not the echo of another process's."""
    errors = [line for line in tail if _EXCEPTION.match(line)]
    roots = [line for line in errors if not _FOLLOWS.search(line)] or errors
    return f": {roots[0].rstrip('.')}" if roots else ""
