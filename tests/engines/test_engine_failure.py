"""Every failure gets its name and the lines that matter."""

import json

import pytest

from steelyard.engines.failure import MARK, log_tail, meaningful, start_failure
from steelyard.errors import BadArgument, CrashedAtStart, OutOfMemory, PortInUse

LOG = """\
(APIServer pid=1) INFO 11-21 19:37:27 [launcher.py:195] Route: /health, Methods: GET
(EngineCore pid=2) ERROR 11-21 19:37:27 [core.py:1510] EngineCore failed to start.
(EngineCore pid=2) ERROR 11-21 19:37:27 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=2) ERROR 11-21 19:37:27 [core.py:1510]   File "/x/core.py", line 1, in run
(EngineCore pid=2) ERROR 11-21 19:37:27 [core.py:1510]     raise ValueError(
(EngineCore pid=2) ERROR 11-21 19:37:27 [core.py:1510] ValueError: No common block size for 16.
(EngineCore pid=2) ValueError: No common block size for 16.
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "/x/entry.py", line 9, in main
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
nanobind: leaked 4 instances!
 - leaked instance 0x7f of type "xgrammar.Compiler"
nanobind: this is likely caused by a reference counting issue in the binding code.
"""


def failure(tmp_path, text, status=1, port=None):
    log = tmp_path / "arm.log"
    log.write_text(text)
    return start_failure("arm", status, log, port=port)


def test_the_root_cause_is_named_and_noise_is_not(tmp_path):
    error = failure(tmp_path, LOG)
    assert type(error) is CrashedAtStart
    assert "ValueError: No common block size for 16" in error.message
    assert error.log_tail == (
        "EngineCore failed to start.",
        "ValueError: No common block size for 16.",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    )


@pytest.mark.parametrize(
    ("text", "status", "named"),
    [
        ("OSError: [Errno 98] Address already in use\n", 1, PortInUse),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB\n", 1, OutOfMemory),
        ("ValueError: No available memory for the cache blocks.\n", 1, OutOfMemory),
        ("loading\n", -9, OutOfMemory),
        ("loading\n", -11, CrashedAtStart),
        ("", 0, CrashedAtStart),
    ],
)
def test_names(tmp_path, text, status, named):
    error = failure(tmp_path, text, status, port=8000)
    assert type(error) is named
    assert error.remedy
    assert error.arm == "arm"


def test_a_refusal_is_a_bad_argument_whatever_else_the_log_says(tmp_path):
    refused = "vLLM has no argument max_num_seq (did you mean max_num_seqs?)"
    error = failure(tmp_path, f"MemoryError\n{MARK}{json.dumps(refused)}\n", 64)
    assert type(error) is BadArgument
    assert refused in error.message


def test_signals_are_called_by_name(tmp_path):
    assert "SIGSEGV" in failure(tmp_path, "", -11).message


def test_the_tail_is_short_and_a_missing_log_is_empty(tmp_path):
    assert len(meaningful("\n".join(f"line {number}" for number in range(500)))) == 15
    assert log_tail(tmp_path / "none.log") == ()
    assert log_tail(None) == ()
