"""Files that are there whole or not at all, also for who reads while another writes."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes, *, durable: bool = False) -> Path:
    """Write a file beside its place and move it there; folders are made. With `durable` it outlives a power cut.

    The name it has meanwhile ends with the process id, so that no `*.json` finds what a crash left half. Raises
    OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())
    beside.replace(path)
    if durable:
        to_disk(path.parent)
    return path


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would outlive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
