"""What kind of work an operator of a trace is, from its name: torch's, vLLM's own, or a kernel's of a GPU library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

CATEGORIES = (
    "gemm", "attention", "normalisation", "elementwise", "sampling", "communication", "host", "scheduling",
)  # fmt: skip
"""gemm: matrix products; attention: with the writes to its cache; elementwise: activations, positions, copies, casts,
look-ups; sampling: from logits to token ids; host: Python and dispatch within a step, while no operator ran;
scheduling: between two steps, while there was work.
"""

# First match wins: an attention kernel's name may hold "gemm", an all-reduce's "norm".
_RULES = (
    ("communication", r"nccl|all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|gloo|c10d|broadcast_(?!to)|custom_ar|"
                      r"send_recv|shm_(broadcast|all)"),
    ("sampling", r"argmax|multinomial|top_?k_?(?!softmax|gating)|top_?p|sampl|exponential_|penalt|rejection|"
                 r"softmax_warp|log_softmax|count_greater|gumbel|radix_?sort|bitonic"),
    ("attention", r"attention|attn|fmha|flash_?(fwd|bwd|infer)?|paged|kv_cache|reshape_and_cache|"
                  r"concat_and_cache|mla_|merge_state|prefill_with|decode_with"),
    ("gemm", r"gemm|gemv|(^|::|_)(mm|bmm|addmm|linear|matmul|baddbmm)($|_)|onednn_mm|scaled_mm|cutlass|cublas|nvjet|"
             r"wmma|mma_|xmma|marlin|machete|splitk|moe_?(kernel|align|sum)?|fused_experts|deep_?gemm|s\d{3,5}_tensorop"),
    ("normalisation", r"norm"),
)  # fmt: skip
_COMPILED = tuple((category, re.compile(pattern, re.IGNORECASE)) for category, pattern in _RULES)


@lru_cache(maxsize=4096)
def category_of(name: str) -> str:
    """The category of one operator or kernel; elementwise if nothing more is known."""
    return next((category for category, pattern in _COMPILED if pattern.search(name)), "elementwise")


def categories_of(names: Sequence[str]) -> list[str]:
    """Categories of operators in the order in which they ran.

    A root-mean-square norm that no kernel fuses is a run of plain operators: from the square through the product with
    its weight, the second product after the inverse root. Only their order tells them from other products.
    """
    found = [category_of(name) for name in names]
    at = 0
    while at < len(names):
        if names[at] == "aten::pow" and (end := _norm_end(names, at)) is not None:
            found[at : end + 1] = ["normalisation"] * (end + 1 - at)
            at = end
        at += 1
    return found


_NORM_LONGEST = 12


def _norm_end(names: Sequence[str], start: int) -> int | None:
    products, rooted = 0, False
    for at in range(start, min(start + _NORM_LONGEST, len(names))):
        rooted = rooted or names[at] == "aten::rsqrt"
        products += rooted and names[at] == "aten::mul"
        if products == 2:
            return at
    return None
