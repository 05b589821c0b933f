"""Content digests: one canonical form, so that two rooms can never disagree on an identity.

A digest is the lowercase hex sha256 of canonical JSON (RFC 8785 in spirit: sorted keys, no spaces, UTF-8;
floats as Python's shortest repr) or of file contents. Short forms for people are the first 12 characters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def canonical(value: Any) -> str:
    """`value` as canonical JSON. Raises TypeError for what JSON cannot hold, ValueError for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def text_digest(text: str) -> str:
    """sha256 of a text, as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_digest(paths: Iterable[Path]) -> str:
    """One digest of several files: their names and contents, order-independent. Folders are not descended."""
    return digest(sorted((path.name, file_digest(path)) for path in paths))
