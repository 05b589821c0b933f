"""What every test stands on: locks of its own, and processes that can be ended wherever the tests were started."""

import os
import tempfile

from steelyard.signals import heed_interrupts

# Locks of accelerators are the machine's: tests take their own, each worker of theirs too, and leave a run beside them
# alone.
os.environ["STEELYARD_LOCKS"] = tempfile.mkdtemp(prefix="steelyard-test-locks-")
heed_interrupts()
