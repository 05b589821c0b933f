"""Imported while engines start and this process only waits for them: what later steps need, ten seconds of one core."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LATER = 5
"""Niceness: engines that start go first. No more of it, because who waits for their first token is a thread of this
process too, and what holds the interpreter must get on.
"""


@contextmanager
def imports_beside() -> Iterator[None]:
    """Import beside what happens meanwhile, and have it done at its end: nothing may run beside what is measured next.

    What fails meanwhile is not held up, since nothing is measured after it. What cannot be imported is told by whoever
    needs it.
    """
    thread = threading.Thread(target=_import, name="imports", daemon=True)
    thread.start()
    yield
    thread.join()
    # What was imported stays: no later collection need look at it again.
    gc.collect()
    gc.freeze()


def _import() -> None:
    if sys.platform == "linux":
        # There a priority is a thread's; elsewhere it would be the whole process's.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LATER)
    with suppress(Exception):
        from warehouse.contracts import prepare

        prepare()
    with suppress(Exception):
        # The name is what takes the time: transformers imports a module when it is asked for what is in it.
        from transformers import AutoTokenizer  # noqa: F401
