"""What a shell's `&` made Steelyard ignore: it heeds it again, so that Dagster does not make it deaf to SIGTERM too."""

import signal
import subprocess
import sys

STARTED = """
import signal
from steelyard import cli
def command(_):
    from dagster._utils.interrupts import capture_interrupts
    with capture_interrupts():
        pass
    print("up", flush=True)
    signal.pause()
class Parser:
    def parse_args(self, argv):
        return type("Arguments", (), {"command": staticmethod(command)})
cli._parser = Parser
raise SystemExit(cli.main([]))
"""


def test_a_command_in_the_background_ends_on_sigterm_after_dagster_was_there() -> None:
    shell = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, STARTED]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == "up\n"
            started.send_signal(signal.SIGTERM)
            assert started.wait(timeout=10) == 130
        finally:
            started.kill()
