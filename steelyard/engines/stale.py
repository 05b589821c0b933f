"""Engines whose Steelyard died: remembered on disk, ended by a later run.

The launcher ends its engines however Steelyard dies. What is left for this module is the launcher itself being killed
while an engine's children outlive its leader. `home()/logs/engines/PGID.json` says who started which engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

from steelyard.engines.launcher import group_members, kill_group, stat_fields, wait_group_gone
from steelyard.engines.scratch import remove_stale_scratch
from steelyard.files import write_whole
from steelyard.home import logs_path


def _records() -> Path:
    return logs_path() / "engines"


def start_time(pid: int) -> int | None:
    """Start of a process in clock ticks since boot: with the id it names a process for good. None if it is gone."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields is not None and fields[0] not in "ZX" else None


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def write_record(pgid: int, arm: str) -> Path:
    """Remember an engine just started; the file goes when it ends."""
    path = _records() / f"{pgid}.json"
    parent = os.getpid()
    record = {
        "pgid": pgid, "started": start_time(pgid), "arm": arm, "boot": _boot(),
        "parent": parent, "parent_started": start_time(parent),
    }  # fmt: skip
    return write_whole(path, json.dumps(record))


def reap_stale() -> list[str]:
    """Kill engines whose Steelyard is dead, and say which, one sentence each; their temporary files go too.

    A group is killed only if the process that leads it started at the recorded clock tick of the same boot, or if that
    process is gone and every member left is of its session and younger: a recycled process id is never signalled.
    """
    remove_stale_scratch()
    told = []
    for path in sorted(_records().glob("*.json")):
        try:
            record = json.loads(path.read_text())
            pgid, started = int(record["pgid"]), record["started"]
            parent, parent_started = int(record["parent"]), record["parent_started"]
            arm, boot = record["arm"], record["boot"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if boot == _boot():
            if parent_started is not None and start_time(parent) == parent_started:
                continue
            if started is not None and _is_ours(pgid, started) and kill_group(pgid, signal.SIGKILL):
                wait_group_gone(pgid)
                told.append(f"Killed the engine of arm {arm} (process group {pgid}): process {parent} left it behind.")
        path.unlink(missing_ok=True)
    return told


def _is_ours(pgid: int, started: int) -> bool:
    now = start_time(pgid)
    if now is not None:
        return now == started
    members = group_members(pgid)
    fields = [found for found in map(stat_fields, members) if found is not None]
    return bool(fields) and all(int(each[3]) == pgid and int(each[19]) >= started for each in fields)
