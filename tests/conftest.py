"""Locks of accelerators are the machine's: tests take their own, and leave a run beside them alone."""

import os
import tempfile

os.environ.setdefault("STEELYARD_LOCKS", tempfile.mkdtemp(prefix="steelyard-test-locks-"))
