"""A workload in the words of `vllm bench serve`."""

from __future__ import annotations

from steelyard.study import Workload


def prompts_of(work: Workload) -> dict[str, str | int]:
    """Its data set and lengths, by the names of the tool's options: unique random prompts, or shared beginnings."""
    if work.kind == "shared_prefix":
        shared = work.shared_tokens or 0
        return {
            "dataset_name": "prefix_repetition", "prefix_repetition_prefix_len": shared,
            "prefix_repetition_suffix_len": work.prompt_tokens - shared,
            "prefix_repetition_num_prefixes": work.prefixes, "prefix_repetition_output_len": work.output_tokens,
        }  # fmt: skip
    return {
        "dataset_name": "random", "random_input_len": work.prompt_tokens, "random_output_len": work.output_tokens
    }  # fmt: skip
