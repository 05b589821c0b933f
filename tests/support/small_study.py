"""The smallest study that loads, its policy and its prices, to be changed in one place by a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

STUDY: dict[str, Any] = {
    "study": "small",
    "description": "A study to break.",
    "blocks": 3,
    "model": {"name": "m", "weights": "weights"},
    "hardware": {"name": "box", "device": "cpu", "price": "p"},
    "slo": {"ttft_s": 1.0},
    "workloads": [
        {"name": "chat", "kind": "chat", "requests": 4, "prompt_tokens": 16, "output_tokens": 4,
         "load": [{"concurrency": 2}]},
    ],
    "baseline": {"engine": "fake"},
    "candidates": [
        {"name": "wide", "lever": "batching", "args": {"max_num_seqs": 8}, "claim": {"workload": "chat", "load": "c2"}}
    ],
    "controls": [{"name": "identity", "kind": "identity"}],
    "suites": [
        {"name": "facts", "task": "t", "category": "accuracy"}, {"name": "safe", "task": "t", "category": "safety"},
    ],
}  # fmt: skip
GATES = [
    {"name": "gain", "category": "speed", "metric": "output_tokens_per_s", "at_least": 1.1},
    {"name": "accuracy", "category": "accuracy", "metric": "score", "margin": 0.02},
    {"name": "safety", "category": "safety", "metric": "score", "margin": 0.02},
]
PRICES = {"prices": [{"name": "p", "usd_per_hour": 1.0, "source": "made up", "dated": "2026-11-21"}]}


def written(folder: Path, *more: dict[str, Any], **changes: Any) -> Path:
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "tokenizer.json").write_text("{}")
    policy = {"policy": "p", "gates": [*GATES, *more]}
    for name, content in (("study", {**STUDY, **changes}), ("policy", policy), ("prices", PRICES)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder
