"""Which levers change anything here: each on the baseline, resolved by the installed engine before any is started."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from steelyard.engines.arguments import require_vllm
from steelyard.environment import gpus
from steelyard.levers.available import differences, resolve
from steelyard.study import Arm
from steelyard.tuning.levers import Pull

PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
NODES = Path("/sys/devices/system/node")
REFUSED = "the engine refuses it"
NOTHING = "the engine resolves the same as without it"


def devices_of(device: str) -> int:
    """GPUs, or what parallel engines on a CPU take for devices: its memory nodes."""
    if device == "cuda":
        return max(1, gpus())
    return max(1, sum(1 for each in NODES.glob("node[0-9]*")))


def asked(pulls: Sequence[Pull], base: Arm, device: str, model: Path) -> tuple[list[Pull], dict[str, str]]:
    """The levers that change what the engine resolves, or that only an engine's start can tell; and why others do not.

    Arguments are resolved together with the baseline's, so that what is refused or changes nothing *there* is seen. Six
    seconds and half a second a lever. Only vLLM is asked: levers of other engines are all tried.
    """
    if base.engine != "vllm":
        return list(pulls), {}
    require_vllm()
    plain = {name: value for name, value in base.args.items() if value is not None}
    devices = devices_of(device)
    not_here = {
        each.name: f"it needs {need} devices, and this machine has {devices}"
        for each in pulls
        if (need := math.prod(int({**plain, **each.args}.get(name) or 1) for name in PARALLEL)) > devices
    }
    pulls = [each for each in pulls if each.name not in not_here]
    cases = [{"name": base.name, "args": plain}]
    for each in pulls:
        merged = {**plain, **each.args}
        cases.append({"name": each.name, "args": {name: value for name, value in merged.items() if value is not None}})
    told = resolve([case for case in cases if case["args"] != plain or case["name"] == base.name], device, model)
    reference = told.get(base.name, {})
    here = []
    for each in pulls:
        answer = told.get(each.name)
        if answer is None or "resolved" not in reference:
            here.append(each)
        elif "resolved" not in answer:
            not_here[each.name] = f"{REFUSED}: {answer.get('refused', 'no answer')}"
        elif not differences(reference["resolved"], answer["resolved"]) and not each.env and not each.weights:
            not_here[each.name] = NOTHING
        else:
            here.append(each)
    return here, not_here
