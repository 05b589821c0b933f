"""What an arm makes of its machine: MFU and MBU of prefill and decode, beside ceilings measured in the same run.

MFU as in Chowdhery et al. 2022 (PaLM, appendix B): operations the model needs, over time, over the peak; MBU is the
same of bytes (Agarwal et al. 2023, LLM Inference Performance Engineering). The peak is not a data sheet's: it is the
best that a large product, or a read of as many bytes as the weights, reached here with the threads of the engine.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from steelyard.engines.base import Deployment
from steelyard.engines.process import engine_env
from steelyard.errors import InfrastructureError
from steelyard.profiling.rows import entries_of, phase_of
from steelyard.profiling.shape import BYTES, Shape, dtype_name
from steelyard.profiling.step_model import Batch
from steelyard.records_profile import CeilingRow, ProfileStepRow, RooflineRow

TIMEOUT_S = 300.0
TOKENS = (1, 2, 4, 8, 16, 64, 256, 1024, 4096)


def dtype_of(resolved: Mapping[str, Any]) -> str | None:
    """Data type the engine resolved for weights and activations."""
    value = (resolved.get("model_config") or {}).get("dtype")
    return dtype_name(value) if value else None


class Meter:
    """The program that measures what a machine can do with the threads of a deployment. A context manager.

    From `prepare` on it imports torch, seconds of one core, and then waits to be asked.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.device = deployment.device
        self._env = deployment.env
        self._program: subprocess.Popen[str] | None = None

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._program is not None:
            self._program.kill()
            self._program.communicate()

    def prepare(self) -> subprocess.Popen[str]:
        """The program, started if it was not."""
        if self._program is None:
            self._program = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "steelyard.profiling.machine"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=engine_env(self._env),
            )  # fmt: skip
        return self._program

    def measure(self, wanted: Mapping[str, Any]) -> list[tuple[str, str, int, float]]:
        """What the program answers (see there). Once only; nothing else may run meanwhile.

        Raises InfrastructureError if torch gives no answer.
        """
        said = ""
        try:
            out, said = self.prepare().communicate(json.dumps(wanted), timeout=TIMEOUT_S)
            return [(kind, dtype, int(size), float(value)) for kind, dtype, size, value in _last(out)]
        except (IndexError, ValueError) as error:
            why = said.strip().splitlines()[-1:] or ["no message"]
            raise InfrastructureError(
                f"The machine's ceilings could not be measured: {why[0]}", remedy="Try `python -c 'import torch'`."
            ) from error
        except subprocess.TimeoutExpired as error:
            raise InfrastructureError(
                f"The machine's ceilings were not measured within {TIMEOUT_S:.0f} s.", remedy="The machine may be busy."
            ) from error


def _last(out: str) -> Any:
    return json.loads(out.splitlines()[-1])


def measure_ceilings(
    run_id: str, meter: Meter, shape: Shape, dtypes: Sequence[str], most_tokens: int
) -> list[CeilingRow]:
    """The ceilings that a model of this shape comes near to. Raises InfrastructureError as `Meter.measure` does."""
    wanted = {
        "device": meter.device,
        "dtypes": list(dtypes),
        "tokens": [each for each in TOKENS if each < 2 * most_tokens],
        # One copy of a layer's experts is timed for the tokens that choose it, as if all chose alike.
        "matrices": [[each.inner, each.outer, max(1, round(each.copies * each.share))] for each in shape.matrices],
        "head": [shape.head.inner, shape.head.outer],
        "weights_bytes": int(shape.weight_bytes(1, BYTES.get(dtypes[0], 2.0))),
    }
    return [
        CeilingRow(run_id=run_id, kind=kind, dtype=dtype, size=size, value=value)
        for kind, dtype, size, value in meter.measure(wanted)
    ]


def rooflines(
    steps: Sequence[ProfileStepRow], ceilings: Sequence[CeilingRow], shape: Shape, dtype: str,
    *, weight_bytes_each: float | None, kv_bytes_each: float,
) -> list[RooflineRow]:  # fmt: skip
    """One row for each load point and phase of the steps of one arm, tracing taken out (`step_model.untraced`).

    `weight_bytes_each` and `kv_bytes_each` are bytes of a weight and of a number in the KV cache. Utilisation is None
    where the trace does not tell how long sequences were, and where weights are quantized: their products have another
    ceiling.
    """
    peak = max((row.value for row in ceilings if row.kind == "peak" and row.dtype == dtype), default=None)
    reads = [row for row in ceilings if row.kind == "read"]
    groups: dict[tuple[str, str], list[ProfileStepRow]] = {}
    for row in steps:
        if (phase := phase_of(row)) != "idle":
            groups.setdefault((row.load_point, phase), []).append(row)
    found = []
    for (point, phase), rows in groups.items():
        seconds = math.fsum(row.until_next_s - row.idle_s for row in rows)
        batches = [Batch.of(row) for row in rows]
        operations = math.fsum(
            shape.operations(each.tokens, each.sampled, each.context_pairs + each.generation_pairs) for each in batches
        )
        weights = None
        if weight_bytes_each is not None:
            weights = math.fsum(shape.weight_bytes(each.tokens, weight_bytes_each) for each in batches)
        entries = [_entries(row) for row in rows]
        kv = None
        if all(each is not None for each in entries):
            kv = math.fsum(shape.kv_bytes(each or 0.0, kv_bytes_each) for each in entries)
        known = kv is not None and weights is not None
        size = weights / len(rows) if weights is not None else math.inf
        bandwidth = min(reads, key=lambda row: abs(row.size - size)).value if reads else None
        moved = None if weights is None or kv is None else weights + kv
        found.append(
            RooflineRow(
                run_id=rows[0].run_id, arm=rows[0].arm, load_point=point, phase=phase, steps=len(rows),
                seconds=seconds, tokens=sum(each.tokens for each in batches), operations=operations,
                weight_bytes=weights, kv_bytes=kv, peak_operations_per_s=peak, peak_bytes_per_s=bandwidth,
                mfu=operations / seconds / peak if known and peak and seconds else None,
                mbu=moved / seconds / bandwidth if moved is not None and bandwidth and seconds else None,
            )
        )  # fmt: skip
    return found


def _entries(row: ProfileStepRow) -> float | None:
    """Entries of the KV cache a step reads, and those that it writes."""
    read = entries_of(row)
    return None if read is None else read + row.context_tokens + row.generation_tokens


def weight_bytes_each(dtype: str, quantization: str | None) -> float | None:
    """Bytes of a weight as served: the data type the engine resolved, whatever the file has; None if quantized."""
    return BYTES.get(dtype) if quantization is None else None


def kv_bytes_each(resolved: Mapping[str, Any], dtype: str) -> float:
    """Bytes of a number in the KV cache of an engine that resolved to this and computes in `dtype`."""
    kind = str((resolved.get("cache_config") or {}).get("cache_dtype") or "auto")
    return 1.0 if kind.startswith(("fp8", "int8")) else BYTES.get(kind, BYTES.get(dtype, 2.0))
