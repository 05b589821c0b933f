"""Suites must be able to see what a lever can break."""

from pathlib import Path

from evals.tasks import suite_problems
from steelyard.study import Study

CLAIM = {"workload": "chat", "load": "c1"}


def study(lever: str, *tasks: tuple[str, str]) -> Study:
    return Study.model_validate(
        {
            "study": "s",
            "description": "d",
            "model": {"name": "m", "weights": "w"},
            "hardware": {"name": "h", "device": "cpu", "price": "p"},
            "slo": {"e2e_s": 1.0},
            "workloads": (
                {
                    "name": "chat", "kind": "chat", "requests": 4, "prompt_tokens": 8, "output_tokens": 4,
                    "load": ({"concurrency": 1},),
                },
            ),
            "baseline": {"engine": "fake"},
            "candidates": ({"name": "a", "lever": lever, "claim": CLAIM, "args": {"x": 1}},),
            "controls": ({"name": "i", "kind": "identity"},),
            "suites": tuple({"name": f"s{n}", "task": task, "category": kind} for n, (task, kind) in enumerate(tasks)),
        }
    )  # fmt: skip


GENERATES = ("steelyard_facts", "accuracy")
LIKELIHOOD = ("steelyard_facts_choice", "accuracy")
REFUSAL = ("steelyard_refusal", "safety")


def test_a_cache_lever_judged_by_likelihood_alone_is_refused() -> None:
    [problem] = suite_problems(study("cache", LIKELIHOOD, REFUSAL), Path())
    assert "accuracy" in problem
    assert "generation suite" in problem


def test_weights_may_be_judged_by_likelihood() -> None:
    assert suite_problems(study("quantization", LIKELIHOOD, REFUSAL), Path()) == []


def test_a_generation_suite_a_category_is_enough() -> None:
    assert suite_problems(study("speculation", LIKELIHOOD, GENERATES, REFUSAL), Path()) == []


def test_an_unknown_task_is_one_problem_not_two() -> None:
    [problem] = suite_problems(study("cache", ("steelyard_factz", "accuracy"), REFUSAL), Path())
    assert "steelyard_facts" in problem
