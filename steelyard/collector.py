"""Python's collector of cyclic garbage, kept out of where it only costs time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collector() -> Iterator[None]:
    """No collection meanwhile. A full one, in a process that has loaded an orchestrator, takes a tenth of a second; and
    while many objects are made that all stay, collections take as long as the making.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
