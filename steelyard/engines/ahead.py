"""vLLM imported ahead of its use, beside what this process imports itself: it takes six seconds of one core."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Protocol

from steelyard.engines.process import preload_with
from steelyard.engines.vllm import import_env
from steelyard.home import run_lock_path
from steelyard.machine_lock import is_free
from steelyard.study import Study


class Served(Protocol):
    """What has an environment: an arm or a deployment."""

    @property
    def env(self) -> Mapping[str, str]:
        """Variables by name."""
        ...


def common_env(arms: Sequence[Served]) -> dict[str, str]:
    """Environment that all arms share, under which the engine may be imported once for all of them."""
    first, *others = (arm.env for arm in arms)
    return {name: value for name, value in first.items() if all(env.get(name) == value for env in others)}


def import_ahead(study: Study) -> None:
    """Begin to import vLLM where engines will be forked from that import, and return at once.

    Nothing is begun while another run measures on this machine. What keeps it from coming up is told by whoever asks
    for it later.
    """
    wanted = study.hardware.device == "cpu" and any(arm.engine == "vllm" for arm in study.arms)
    if not wanted or importlib.util.find_spec("vllm") is None:
        return
    if is_free(run_lock_path()):
        preload_with("vllm", import_env(common_env(study.arms)))
