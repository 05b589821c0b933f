"""A program: what this machine can do at most, measured with torch and the threads an engine is given.

    python -m steelyard.profiling.machine < wanted.json

`wanted`: `device`, `dtypes`, `tokens` (numbers of tokens a step), `matrices` ([inner, outer, copies] of all layers),
`head` ([inner, outer]) and `weights_bytes`. The answer's last line is a JSON list of [kind, dtype, size, value]:

- peak: operations a second of a large matrix product of a data type (`size`: its rows);
- read: bytes a second from a buffer of `size` bytes, one too large for any cache, one as large as the weights;
- layers, head: seconds of all the model's matrix products for `size` tokens.

The best of several tries each, since a neighbour can only slow it. Not run while anything is timed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any

LARGE_BYTES = {"cpu": 256 << 20, "cuda": 4 << 30}
MOST_BYTES = 2 << 30
"""Of a buffer that stands for the weights: larger ones are read no faster, and need not fit beside an engine."""
CYCLED_BYTES = 256 << 20
"""Of copies of one matrix that take turns, so that none is found in a cache that the model's own would not be in."""
LARGE_ROWS = {"cpu": 1024, "cuda": 8192}
TRIES = 5
TRY_S = 0.005
ENOUGH_S = 0.25
Found = list[tuple[str, str, int, float]]


def best_s(work: Callable[[], object], settle: Callable[[], object]) -> float:
    """Seconds of one call of `work` at best; `settle` waits until the device is done."""
    work()
    settle()
    best, calls, began = float("inf"), 1, time.perf_counter()
    for _ in range(TRIES):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        settle()
        took = time.perf_counter() - start
        best = min(best, took / calls)
        if time.perf_counter() - began > ENOUGH_S:
            break
        calls = max(1, min(1000, round(TRY_S / best)))
    return best


def measure(wanted: Mapping[str, Any]) -> Found:
    """Everything that is wanted; what a device or a data type cannot do is left out."""
    import torch

    device = str(wanted["device"])
    settle = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    torch.manual_seed(0)
    found: Found = []
    with torch.inference_mode():
        wants = [partial(_reads, torch, device, int(wanted["weights_bytes"]), settle)]
        wants += [partial(_products, torch, device, str(dtype), wanted, settle) for dtype in wanted["dtypes"]]
        for want in wants:
            try:
                found += want()
            except (RuntimeError, AttributeError, NotImplementedError, MemoryError) as error:
                sys.stderr.write(f"{error}\n")
    return found


def _reads(torch: Any, device: str, weights_bytes: int, settle: Callable[[], object]) -> Found:
    found: Found = []
    for size in {LARGE_BYTES[device], min(weights_bytes, MOST_BYTES)}:
        source = torch.ones(max(1, size // 4), dtype=torch.float32, device=device)
        read = best_s(source.sum, settle)
        target = torch.empty_like(source)
        # A copy reads and writes; whichever moves more bytes a second shows what the memory can do.
        copy = best_s(partial(target.copy_, source), settle)
        found.append(("read", "", size, max(size / read, 2 * size / copy)))
    return found


def _products(torch: Any, device: str, dtype: str, wanted: Mapping[str, Any], settle: Callable[[], object]) -> Found:
    rows = LARGE_ROWS[device]
    seconds = _seconds(torch, device, dtype, [(rows, rows, 1)], rows, settle)
    found: Found = [("peak", dtype, rows, 2.0 * rows**3 / seconds)]
    for tokens in wanted["tokens"]:
        found.append(("layers", dtype, tokens, _seconds(torch, device, dtype, wanted["matrices"], tokens, settle)))
        found.append(("head", dtype, tokens, _seconds(torch, device, dtype, [(*wanted["head"], 1)], tokens, settle)))
    return found


def _seconds(
    torch: Any, device: str, dtype: str, matrices: Sequence[Sequence[int]], tokens: int, settle: Callable[[], object]
) -> float:
    """Seconds of one product with each copy of each matrix, timed over as many as no cache holds."""
    total = 0.0
    for inner, outer, copies in matrices:
        if dtype == "int8":
            # A CUDA kernel takes more than 16 rows.
            least = max(tokens, 17) if device == "cuda" else tokens
            left = torch.ones(least, inner, dtype=torch.int8, device=device)
            rights = [
                torch.ones(outer, inner, dtype=torch.int8, device=device).t()
                for _ in range(_turns(copies, inner * outer))
            ]
            works: list[Callable[[], object]] = [partial(torch._int_mm, left, right) for right in rights]
        else:
            kind = getattr(torch, dtype)
            count = _turns(copies, inner * outer * kind.itemsize)
            works = [_linear(torch, device, kind, tokens, inner, outer) for _ in range(count)]
        total += copies * best_s(_in_turn(works), settle)
    return total


def _turns(copies: int, size: int) -> int:
    return max(1, min(copies, -(-CYCLED_BYTES // size)))


def _in_turn(works: Sequence[Callable[[], object]]) -> Callable[[], object]:
    turns = cycle(works)

    def work() -> object:
        return next(turns)()

    return work


def _linear(torch: Any, device: str, kind: Any, tokens: int, inner: int, outer: int) -> Callable[[], object]:
    """A product as engines do it: on a CPU by oneDNN with the weight packed beforehand, since torch's own product of
    float32 is MKL's, which leaves half of the vector units of other makers' processors idle.
    """
    activations = torch.randn(tokens, inner, device=device).to(kind)
    weight = torch.randn(outer, inner, device=device).to(kind)
    if device == "cpu":
        try:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, tokens)
            work = partial(torch.ops.mkldnn._linear_pointwise, activations, packed, None, "none", [], "")
            work()
        except (RuntimeError, AttributeError, NotImplementedError):
            return partial(torch.nn.functional.linear, activations, weight)
        return work
    return partial(torch.nn.functional.linear, activations, weight)


def main() -> None:
    """Answer one question."""
    # Before it is read: who asks starts this program ahead.
    import torch  # noqa: F401

    sys.stdout.write("\n" + json.dumps(measure(json.load(sys.stdin))) + "\n")


if __name__ == "__main__":
    main()
