"""A Steelyard in the background can be stopped: what its shell made it ignore, it heeds again."""

import signal


def heed_interrupts() -> None:
    """Handle SIGINT where it was inherited as ignored, as by every `steelyard ... &` in a script (POSIX 2.11).

    Dagster gives SIGTERM the handler of SIGINT for the time of a run: where that is "ignore", a run could only be
    killed, and every engine it starts would inherit the deafness.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
