"""Half characters: valid JSON, and no text that UTF-8 can hold."""

from __future__ import annotations

import re
from typing import Any

ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
"""Where the text of a JSON document may hold one; a pair of them is a whole character."""


def whole(value: Any) -> Any:
    """A JSON value with each half character replaced by a question mark.

    An answer cut by tokens, or by a gateway that counts UTF-16 units, may end with one, and no column takes it.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {whole(key): whole(item) for key, item in value.items()}
    return value
