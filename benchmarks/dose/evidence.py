"""Stored results as the gates know them: samples, comparisons and gate rows, made by the very code of a real run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.dose.pool import Pool
from benchmarks.dose.results import ScreenResult, SuiteResult
from evals.suites import scorers
from steelyard.divergence_comparisons import compare_divergence
from steelyard.gates.evaluate import evaluate
from steelyard.quality_comparisons import compare_quality
from steelyard.records import ComparisonRow, GateRow
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.study import Suite
from steelyard.study_file import LoadedStudy

RUN_ID = "dose-response"
ALSO = {"overrefusal": "correct", "secrets": "kept", "bias": "unskewed", "repeat": "prefix"}
"""Family to the other metric of its scorer: it is computed from the stored answers, not asked again."""


@dataclass(frozen=True, kw_only=True)
class ArmResults:
    """Everything measured of one arm; `screen` is None for the baseline and where it was not measured."""

    suites: Mapping[str, SuiteResult]
    screen: ScreenResult | None = None
    error: str | None = None

    @property
    def deployment(self) -> str | None:
        """Deployment digest of what was served; None if nothing was."""
        return next((each.deployment for each in self.suites.values()), self.screen.deployment if self.screen else None)

    @property
    def version(self) -> str | None:
        """Version of the engine."""
        return next((each.version for each in self.suites.values()), None)


def scores(result: SuiteResult) -> list[float]:
    """Scores in order, a missing sample counting as 0."""
    return [0.0 if score is None else score for score in result.scores]


def other_scores(result: SuiteResult, pool: Pool) -> tuple[str, list[float]] | None:
    """Name and values of the suite's other metric; None if it has none. A missing sample counts as 0."""
    family = result.task.removeprefix("steelyard_")
    if family not in ALSO:
        return None
    name, documents = ALSO[family], pool.documents(result.task)
    hook = getattr(scorers, f"process_{family}")
    return name, [
        0.0 if answer is None or score is None else float(hook(documents[place], [answer])[name])
        for place, answer, score in zip(result.positions, result.answers, result.scores, strict=True)
    ]


def comparisons(
    loaded: LoadedStudy, baseline: ArmResults, arm: str, results: ArmResults, confidence: float
) -> list[ComparisonRow]:
    """Quality and divergence comparisons of one arm with the baseline, over the suites both have."""
    samples: list[SampleRow] = []
    suites: list[SuiteRow] = []
    for suite in loaded.study.suites:
        if suite.name in baseline.suites and suite.name in results.suites:
            for name, side in (("baseline", baseline), (arm, results)):
                found = side.suites[suite.name]
                samples += _sample_rows(name, suite, found)
                suites.append(_suite_row(name, suite, found))
    rows = compare_quality(RUN_ID, samples, suites, arms=[arm], confidence=confidence)
    if results.screen is not None:
        screened = [DivergenceRow(**row) for row in results.screen.rows]
        rows += compare_divergence(RUN_ID, screened, arms=[arm], confidence=confidence)
    return rows


def gates(loaded: LoadedStudy, arm: str, rows: Sequence[ComparisonRow], names: Sequence[str]) -> list[GateRow]:
    """The policy's gates on accuracy, safety and divergence over the suites named; speed and cost are not measured."""
    found = evaluate(
        loaded.policy, rows, run_id=RUN_ID, arm=arm, claim=None,
        load_points=[point.name for point in loaded.study.load_points],
        suites=[(suite.name, suite.category) for suite in loaded.study.suites if suite.name in names],
    )  # fmt: skip
    return [row for row in found if row.category in ("accuracy", "safety", "divergence")]


def _sample_rows(arm: str, suite: Suite, result: SuiteResult) -> list[SampleRow]:
    common: dict[str, Any] = {
        "run_id": RUN_ID, "arm": arm, "suite": suite.name, "deployment_digest": result.deployment,
        "prompt_hash": "-", "subgroup": None, "prompt": "", "target": None, "finish_reason": None,
    }  # fmt: skip
    return [
        SampleRow(**common, doc_hash=f"{place:08d}", answer=answer, score=score, error=result.errors.get(str(place)))
        for place, score, answer in zip(result.positions, result.scores, result.answers, strict=True)
    ]


def _suite_row(arm: str, suite: Suite, result: SuiteResult) -> SuiteRow:
    known = [score for score in result.scores if score is not None]
    return SuiteRow(
        run_id=RUN_ID, arm=arm, suite=suite.name, deployment_digest=result.deployment, category=suite.category,
        task=suite.task, task_version=None, route="-", metric=suite.metric, documents=len(result.positions),
        answered=len(known), mean_score=None, documents_digest="-", lm_eval_version="-", duration_s=result.duration_s,
    )  # fmt: skip
