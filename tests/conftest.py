"""What every test stands on: locks of its own, and processes that can be ended wherever the tests were started."""

import os
import tempfile

from steelyard.signals import heed_interrupts

# Locks of accelerators are the machine's: tests take their own, and leave a run beside them alone.
os.environ.setdefault("STEELYARD_LOCKS", tempfile.mkdtemp(prefix="steelyard-test-locks-"))
heed_interrupts()
