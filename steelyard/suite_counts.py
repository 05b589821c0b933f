"""What the samples of a suite add up to: the runner counts with it, and so does whoever checks a stored suite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from steelyard.digest import digest
from steelyard.records_quality import SampleRow


def suite_counts(samples: Sequence[SampleRow]) -> dict[str, Any]:
    """The columns of `SuiteRow` that follow from its samples whatever its route, by name. The order is irrelevant."""
    scores = [sample.score for sample in samples if sample.score is not None]
    return {
        "documents": len(samples),
        "answered": len(scores),
        "mean_score": math.fsum(scores) / len(scores) if scores else None,
        "documents_digest": digest(sorted(sample.doc_hash for sample in samples)),
    }


def generated_counts(generated: Sequence[SampleRow]) -> dict[str, Any]:
    """Its columns about the samples that were generated; unknown where none was."""
    if not generated:
        return {"empty": None, "truncated": None}
    return {
        "empty": sum(sample.answer is not None and not sample.answer.strip() for sample in generated),
        "truncated": sum(sample.finish_reason == "length" for sample in generated),
    }
