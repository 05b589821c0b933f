"""What a change of a deployment does to the time of a step, as far as can be said before it is tried.

Each argument, variable or transformation of weights that has a known mechanism is one line here: which category of a
step's time it scales, and between which factors, from the most it can gain to what it may cost. What decides *who* is
in a step (seats, budgets, caches, drafts) is no factor: the scheduler is played with it. A change that is not here has
no model, and says so; a guess would look like knowledge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steelyard.profiling.shape import BYTES, dtype_name
from steelyard.study import Arm
from steelyard.study_weights import steps as weight_steps

Span = tuple[float, float]
"""Factors on seconds: at best, at worst."""


class NoModel(Exception):
    """Why nothing can be predicted, in words."""


@dataclass(slots=True)
class Effect:
    """Factors by category, another data type of products with the span of its factor, whether seats, budgets or caches
    change, settings of n-gram drafts, and why in words.
    """

    factors: dict[str, Span] = field(default_factory=dict)
    products: tuple[str, Span] | None = None
    schedules: bool = False
    drafts: tuple[int, int, int] | None = None
    why: list[str] = field(default_factory=list)

    def scale(self, why: str, **factors: Span) -> None:
        """Add spans of factors: those of the same category multiply."""
        for category, (best, worst) in factors.items():
            low, high = self.factors.get(category, (1.0, 1.0))
            self.factors[category] = (low * best, high * worst)
        self.why.append(why)


_NOTHING = frozenset({
    "gpu_memory_utilization", "kv_cache_memory_bytes", "max_model_len", "disable_log_stats", "seed", "max_logprobs",
    "enable_log_requests", "disable_uvicorn_access_log", "tokenizer_mode", "scheduling_policy",
})  # fmt: skip
"""Changes nothing of a step while memory suffices and no request has a priority."""
_SCHEDULES: Mapping[str, str] = {
    "max_num_seqs": "more sequences share each step's fixed costs and weights",
    "max_num_batched_tokens": "a step may read more of the prompts that wait",
    "enable_chunked_prefill": "long prompts are cut, or not, between decodes",
    "enable_prefix_caching": "a beginning that an earlier prompt had is not computed again",
}
RESOLVED: Mapping[str, tuple[str, str]] = {
    "max_num_seqs": ("scheduler_config", "max_num_seqs"),
    "max_num_batched_tokens": ("scheduler_config", "max_num_batched_tokens"),
    "enable_chunked_prefill": ("scheduler_config", "enable_chunked_prefill"),
    "async_scheduling": ("scheduler_config", "async_scheduling"),
    "enable_prefix_caching": ("cache_config", "enable_prefix_caching"),
    "block_size": ("cache_config", "block_size"),
    "kv_cache_dtype": ("cache_config", "cache_dtype"),
    "dtype": ("model_config", "dtype"),
    "enforce_eager": ("model_config", "enforce_eager"),
    "attention_backend": ("attention_config", "backend"),
    "tensor_parallel_size": ("parallel_config", "tensor_parallel_size"),
    "pipeline_parallel_size": ("parallel_config", "pipeline_parallel_size"),
    "data_parallel_size": ("parallel_config", "data_parallel_size"),
}
"""Where a resolved configuration keeps an argument: what counts is what the engine made of it."""
PRODUCTS: Span = (0.85, 1.2)
"""How far products inside the engine may be from those that were measured alone."""
_NARROW = {"fp8", "fp8_e4m3", "fp8_e5m2", "int8", "int8_per_token_head", "nvfp4"}


def effect_of(arm: Arm, baseline: Arm, ours: Mapping[str, Any], theirs: Mapping[str, Any], *, device: str) -> Effect:
    """The effect of everything in which `arm` differs from the baseline. `ours` and `theirs` are what their engines
    resolved: an argument that changed nothing there changes nothing here. Raises NoModel for what has no model.
    """
    if arm.engine != baseline.engine:
        raise NoModel(f"another engine ({arm.engine}) shares nothing with this profile")
    found = Effect()
    for name in sorted(changed(arm.args, baseline.args)):
        now, before = resolved_value(ours, name, arm.args), resolved_value(theirs, name, baseline.args)
        if now != before and name not in _NOTHING:
            _argument(found, name, now, before)
    for name in sorted(changed(arm.env, baseline.env)):
        _variable(found, name, arm.env.get(name), baseline.env.get(name), device)
    for step in weight_steps(arm.weights) if arm.weights is not None else ():
        if step.method == "int8_w8a8":
            found.products = ("int8", (0.9, 2.0))
            found.scale("INT8 products; activations are rounded before each", elementwise=(1.0, 1.3))
    if not found.why:
        found.why.append("the same arithmetic in the same order")
    return found


def changed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> set[str]:
    """Names whose values differ."""
    return {name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)}


def resolved_value(resolved: Mapping[str, Any], name: str, args: Mapping[str, Any]) -> Any:
    """The value the engine resolved for an argument; the one asked for where it does not tell."""
    section, key = RESOLVED.get(name, ("", ""))
    told = resolved.get(section)
    value = told[key] if isinstance(told, Mapping) and told.get(key) is not None else args.get(name)
    if value is None or name not in ("dtype", "kv_cache_dtype"):
        return value
    return dtype_name(value)


def _argument(found: Effect, name: str, now: Any, before: Any) -> None:
    if name in _SCHEDULES:
        found.schedules = True
        found.why.append(_SCHEDULES[name])
    elif name == "block_size":
        found.scale("less or more bookkeeping of the KV cache", attention=(0.9, 1.1))
    elif name == "attention_backend":
        found.scale("another kernel for attention", attention=(0.5, 1.5))
    elif name == "async_scheduling":
        span = (0.1, 1.0) if now else (1.0, 10.0)
        found.scale("the next step is planned while the device computes, or not", scheduling=span)
    elif name == "dtype":
        _other_type(found, str(now), str(before))
    elif name == "kv_cache_dtype":
        if before not in (None, "auto"):
            raise NoModel(f"the baseline's KV cache is {before}")
        best = 0.6 if now in _NARROW else 0.9
        found.scale("fewer bytes of the KV cache, converted at each look", attention=(best, 1.4))
    elif name == "enforce_eager":
        spans: dict[str, Span] = {"host": (0.3, 0.9), "elementwise": (0.4, 0.9), "normalisation": (0.3, 0.9)}
        if now:
            spans = {kind: (1 / worst, 1 / best) for kind, (best, worst) in spans.items()}
        found.scale("compiled code fuses small operators and needs less Python", **spans)
    elif name == "speculative_config":
        if before:
            raise NoModel("the baseline drafts already")
        _speculation(found, now)
    elif name == "tensor_parallel_size" and before == 1 and isinstance(now, int):
        spans = {"gemm": (1 / now, 1.0), "attention": (1 / now, 1.0)}
        found.scale("matrices divided among devices, results exchanged", host=(1.0, 1.3), **spans)
    else:
        raise NoModel(f"there is no model of {name}")


def _other_type(found: Effect, now: str, before: str) -> None:
    ratio = BYTES.get(now, 0.0) / BYTES.get(before, 1.0)
    if not ratio:
        raise NoModel(f"there is no model of {now}")
    found.products = (now, PRODUCTS)
    # As many bytes leave everything but products alone; half of them may halve what only moves data.
    best, worst = (0.6, 1.2) if ratio < 1 else (1 / 1.2, 1 / 0.6) if ratio > 1 else (0.95, 1.05)
    spans: dict[str, Span] = dict.fromkeys(("elementwise", "normalisation", "attention"), (best, worst))
    found.scale(f"matrix products in {now}, other bytes everywhere", **spans)


def _variable(found: Effect, name: str, value: Any, before: Any, device: str) -> None:
    if name == "OMP_NUM_THREADS" and device == "cpu":
        now, then = _whole(value), _whole(before)
        if not now or not then:
            raise NoModel("how many threads the engine takes by itself is not known")
        best, worst = sorted((then / now, 1.0))
        names = ("gemm", "attention", "elementwise", "normalisation")
        found.scale("another number of threads for each operator", **dict.fromkeys(names, (best, worst)))
    elif name in ("LD_PRELOAD", "VLLM_CPU_OMP_THREADS_BIND"):
        found.scale("another allocator, or other cores", host=(0.9, 1.05))
    else:
        raise NoModel(f"there is no model of {name}")


def _speculation(found: Effect, value: Any) -> None:
    if not isinstance(value, Mapping) or value.get("method") != "ngram":
        raise NoModel("how many drafts would be accepted is known only for n-grams")
    # As vLLM's SpeculativeConfig: 5 where neither is given, else one is the other.
    given = [value.get("prompt_lookup_min"), value.get("prompt_lookup_max")]
    least = int(given[0] or given[1] or 5)
    most = int(given[1] or given[0] or 5)
    found.drafts = (int(value.get("num_speculative_tokens") or 1), least, most)
    found.scale("several tokens a step where the text repeats itself", host=(1.0, 1.6), scheduling=(1.0, 1.5))


def _whole(value: Any) -> int | None:
    return int(value) if str(value).isdigit() and int(value) > 0 else None
