"""Questions to a running engine, and its freezing: all synchronous, all bounded in time."""

from __future__ import annotations

import math
import re
import signal
import time
from pathlib import Path
from typing import Any

from steelyard.engines.base import Engine
from steelyard.engines.failure import log_tail
from steelyard.engines.http import Answer, NoAnswerInTime, Unreachable, ask
from steelyard.engines.launcher import group_members, kill_group, processes_of
from steelyard.errors import CrashedWhileServing, Hung, WrongModelServed
from steelyard.wall_time import WALL_TIME

PROBE_PROMPT = "The"
_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{.*\})?\s+(\S+)(?:\s+-?\d+)?$")


def served_models(base_url: str, *, timeout_s: float = 5.0, local: bool = True) -> list[dict[str, Any]] | None:
    """The entries of `/v1/models`; None if the answer is none. Raises Unreachable or NoAnswerInTime."""
    answer = ask(f"{base_url}/v1/models", timeout_s=timeout_s, local=local)
    body = answer.json() if answer.ok else None
    entries = body.get("data") if isinstance(body, dict) else None
    return [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else None


def check_model(base_url: str, model: str, arm: str, *, timeout_s: float = 5.0, local: bool = True) -> dict[str, Any]:
    """The entry of `/v1/models` for `model`. Raises WrongModelServed, Unreachable or NoAnswerInTime."""
    entries = served_models(base_url, timeout_s=timeout_s, local=local)
    for each in entries or ():
        if each.get("id") == model:
            return each
    names = ", ".join(str(each.get("id")) for each in entries or ()) or "nothing"
    raise WrongModelServed(
        f"{base_url} serves {names}, not {model}.",
        remedy="Correct model.name in the study, or the URL.",
        arm=arm,
    )


def one_token(base_url: str, model: str, *, timeout_s: float, local: bool = True) -> Answer:
    """Ask for a completion of one token: the only sign of life that `/health` cannot fake."""
    payload = {"model": model, "prompt": PROBE_PROMPT, "max_tokens": 1, "temperature": 0}
    return ask(f"{base_url}/v1/completions", payload=payload, timeout_s=timeout_s, local=local)


def has_token(answer: Answer) -> bool:
    """Whether an answer holds a completion that stopped for a reason other than an error."""
    body = answer.json() if answer.ok else None
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(first, dict) and first.get("finish_reason") in ("length", "stop")


def version_of(base_url: str, *, local: bool = True) -> str | None:
    """Version the engine gives of itself, None if it gives none."""
    try:
        answer = ask(f"{base_url}/version", local=local)
    except (Unreachable, NoAnswerInTime):
        return None
    body = answer.json() if answer.ok else None
    version = body.get("version") if isinstance(body, dict) else None
    return str(version) if version else None


def check_alive(engine: Engine, *, timeout_s: float | None = None) -> None:
    """Raise CrashedWhileServing or Hung unless the engine answers a one-token completion in time (seconds; default:
    the deployment's). After a core died vLLM's server lives on for some seconds and answers 500: that is a crash.
    """
    limit = engine.deployment.max_answer_wait_s if timeout_s is None else timeout_s
    if engine.pgid is not None and not group_members(engine.pgid):
        raise _crashed(engine, "its processes are gone")
    started = time.monotonic()
    try:
        with WALL_TIME.engines("answering"):
            answer = one_token(engine.base_url, engine.model_name, timeout_s=limit, local=is_local(engine))
    except NoAnswerInTime:
        raise Hung(
            f"The engine gave no token within {limit:g} s.",
            remedy="Restart it; /health says nothing about this. Look for a stopped process or a deadlock in its log.",
            arm=engine.arm,
            log_tail=log_tail(engine.log),
        ) from None
    except Unreachable as error:
        if engine.pgid is not None:
            _let_it_end(engine.pgid, limit - (time.monotonic() - started))
        raise _crashed(engine, f"nobody answers ({error})") from None
    if not has_token(answer):
        raise _crashed(engine, f"it answered {answer.status} to a one-token completion: {answer.text}")


def _let_it_end(pgid: int, at_most_s: float) -> None:
    deadline = time.monotonic() + min(1.0, max(0.0, at_most_s))
    while group_members(pgid) and time.monotonic() < deadline:
        time.sleep(0.05)


def _crashed(engine: Engine, why: str) -> CrashedWhileServing:
    return CrashedWhileServing(
        f"The engine ended while serving: {why}.",
        remedy=f"Its whole log is {engine.log}." if engine.log else "Ask whoever runs it.",
        arm=engine.arm,
        log_tail=log_tail(engine.log),
    )


def is_local(engine: Engine) -> bool:
    """Whether we started it, so that no proxy and no key belong into a request."""
    return engine.deployment.engine != "attach"


def reset_prefix_cache(engine: Engine) -> bool:
    """Empty the prefix cache. False if the engine cannot or will not (busy, or no such endpoint)."""
    url = f"{engine.base_url}/reset_prefix_cache"
    for _ in range(3):
        try:
            with WALL_TIME.engines("answering"):
                answer = ask(url, payload={}, method="POST", timeout_s=10.0, local=is_local(engine))
        except (Unreachable, NoAnswerInTime):
            return False
        if not answer.ok:
            return False
        body = answer.json()
        if not (isinstance(body, dict) and body.get("success") is False):
            return True
        time.sleep(0.1)
    return False


def scrape(engine: Engine) -> dict[str, tuple[str, float]]:
    """The engine's metrics: name -> (counter or gauge, value), labels summed. Empty if it has none."""
    try:
        with WALL_TIME.engines("answering"):
            answer = ask(f"{engine.base_url}/metrics", timeout_s=10.0, local=is_local(engine))
    except (Unreachable, NoAnswerInTime):
        return {}
    return parse_metrics(answer.body.decode(errors="replace")) if answer.ok else {}


def parse_metrics(text: str) -> dict[str, tuple[str, float]]:
    """Prometheus text as `scrape` gives it. Of histograms and summaries `_sum` and `_count`, as counters; buckets,
    quantiles, creation times and `_info` say nothing as sums and stay out, as do NaN and infinity. Lines that are no
    metrics are passed over: a gateway may answer with a page of its own.
    """
    types: dict[str, str] = {}
    found: dict[str, tuple[str, float]] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, _, kind = line.removeprefix("# TYPE ").strip().partition(" ")
            types[name] = kind.strip()
        elif (sample := _SAMPLE.match(line)) is not None:
            name, value = sample.group(1), _number(sample.group(2))
            counted = _kind(name, types)
            if counted is not None and math.isfinite(value):
                found[name] = (counted, found.get(name, (counted, 0.0))[1] + value)
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _kind(name: str, types: dict[str, str]) -> str | None:
    if name.endswith(("_created", "_info", "_bucket")):
        return None
    for suffix in ("_sum", "_count"):
        if types.get(name.removesuffix(suffix)) in ("histogram", "summary") and name.endswith(suffix):
            return "counter"
    kind = types.get(name) or types.get(name.removesuffix("_total"))
    return kind if kind in ("counter", "gauge") else None


def freeze(engine: Engine) -> None:
    """SIGSTOP to its group: an idle arm can then disturb nobody. Nothing happens to engines somebody else runs.

    Returns once every process has stopped, 2 s at most (one in an uninterruptible wait takes the signal later).
    """
    if engine.pgid is None or not kill_group(engine.pgid, signal.SIGSTOP):
        return
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline and any(fields[0] not in "TtZX" for fields in processes_of(engine.pgid).values()):
        time.sleep(0.002)


def thaw(engine: Engine) -> None:
    """SIGCONT to its group."""
    if engine.pgid is not None:
        kill_group(engine.pgid, signal.SIGCONT)


def memory_bytes(engine: Engine) -> int | None:
    """Memory of the group, shared pages divided among their users (PSS), bytes; None where that cannot be read."""
    return None if engine.pgid is None else group_memory(engine.pgid)


def group_memory(pgid: int) -> int | None:
    """PSS of a process group, bytes; resident sizes where the kernel does not tell PSS."""
    total = 0
    for pid, fields in processes_of(pgid).items():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
        except OSError:
            total += int(fields[21]) * 4096
    return total or None
