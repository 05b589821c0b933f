"""Durations as people write them: `90s`, `30m`, `1h30m`, `7d`."""

from __future__ import annotations

import re

from steelyard.errors import InputError

_TIME = re.compile(
    r"(?=[\d.])(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", re.ASCII
)
_UNITS = (86400, 3600, 60, 1)


def seconds(text: str, *, most_s: float) -> float:
    """A duration in seconds; a bare number is seconds. ValueError for anything else, for zero and for more than
    `most_s`.
    """
    found = _TIME.fullmatch(text.strip().lower())
    total = sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part) if found else 0
    if not 0 < total <= most_s:
        raise ValueError(f"{text!r} is no time")
    return total


def asked(text: str, flag: str, *, most_s: float = 7 * 86400.0) -> float:
    """A duration that a flag of a command gives, a week at most. Raises InputError for anything else."""
    try:
        return seconds(text, most_s=most_s)
    except ValueError as error:
        raise InputError(f"{flag}: {error}.", remedy="Write 30m, 1h30m or 90s; a week at most.", field=flag) from error


def shown(seconds_: float) -> str:
    """A duration for people, such as `1 h 20 min`; under a minute in seconds."""
    if seconds_ < 60:
        return f"{seconds_:.0f} s"
    minutes = round(seconds_ / 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours and minutes else f"{hours} h" if hours else f"{minutes} min"
