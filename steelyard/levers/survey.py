"""The survey before the trials: profile the baseline, measure the machine, predict what each lever should bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steelyard.engines.base import Deployment
from steelyard.engines.serving import serve
from steelyard.errors import SteelyardError
from steelyard.levers.effects import NoModel
from steelyard.levers.opportunities import candidates, opportunities
from steelyard.levers.predict import Predictor, Scene, scheduler_of
from steelyard.load.workloads import load_tokenizer
from steelyard.profiling.play import Asked
from steelyard.profiling.rooflines import dtype_of, measure_ceilings, rooflines, weight_bytes_each
from steelyard.profiling.shape import BYTES, NotCounted, Shape, shape_of
from steelyard.profiling.step_model import Products, fits
from steelyard.profiling.window import Profiled, not_profiled, planned_ids, profile_point, profiling
from steelyard.records_base import Row
from steelyard.records_profile import CeilingRow, ProfileStepRow
from steelyard.study import Arm, Study
from steelyard.study_profile import Profile
from steelyard.study_weights import steps as weight_steps

DRAWS = 40
# Products of other data types than these are measured only if somebody asks for them: some take minutes on a CPU.
USUAL = {"cpu": ("bfloat16",), "cuda": ("bfloat16", "float16")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """What is asked: the study, its baseline as it is served and under which digest, what each arm resolved to."""

    study: Study
    run_id: str
    baseline: Deployment
    digest: str
    resolved: Mapping[str, Mapping[str, Any]]


def survey(asked: Surveyed, profile: Profile, *, logs: Path, tell: Callable[[str], None]) -> list[Row]:
    """All rows of the survey, `tell`ing each load point when it is done.

    What cannot be found out is a row that says why, never an error: a profile is no condition of a verdict. Seconds of
    engine time; whatever else computes meanwhile is measured along.
    """
    study, run_id = asked.study, asked.run_id
    found = _profiles(asked, profile, logs, tell)
    steps = [row for each in found for row in each.steps]
    profiles = {each.profile.load_point: each.profile for each in found}
    slow = {
        name: row.traced_s / row.plain_s for name, row in profiles.items() if row.traced_s and row.plain_s
    }  # fmt: skip
    resolved = asked.resolved.get(asked.baseline.arm, {})
    dtype = dtype_of(resolved)
    ceilings, shape, why = _ceilings(asked, dtype, steps)
    roofs: list[Row] = []
    if shape is not None and dtype is not None:
        each_bytes = weight_bytes_each(
            Path(asked.baseline.weights), dtype, (resolved.get("model_config") or {}).get("quantization"),
        )  # fmt: skip
        roofs += rooflines(
            steps, ceilings, shape, dtype, weight_bytes_each=each_bytes, kv_bytes_each=_kv_bytes(resolved, dtype),
            slow=slow,
        )  # fmt: skip
    predictor = _predictor(asked, steps, ceilings, dtype, slow, why)
    scenes = _scenes(study, found, asked.baseline.tokenizer)
    expected = opportunities(
        run_id, study, scenes, predictor, candidates(study, asked.resolved), profiles, steps, datetime.now(UTC)
    )
    operators = [row for each in found for row in each.operators]
    return [*profiles.values(), *steps, *operators, *ceilings, *roofs, *expected]


def _profiles(asked: Surveyed, profile: Profile, logs: Path, tell: Callable[[str], None]) -> list[Profiled]:
    study, base = asked.study, asked.baseline
    found: list[Profiled] = []
    failure = None
    try:
        ready = profiling(base, logs / "traces")
        tokenizer = load_tokenizer(base.tokenizer)
        with serve(ready, run_log_dir=logs, start_timeout_s=study.hardware.start_timeout_s) as engine:
            for point in study.load_points:
                found.append(
                    profile_point(
                        engine, point, study, tokenizer, steps=profile.steps, traces=logs / "traces",
                        run_id=asked.run_id, deployment_digest=asked.digest,
                    )
                )  # fmt: skip
                tell(point.name)
    except SteelyardError as error:
        failure = error.message
    for point in study.load_points[len(found) :]:
        found.append(
            not_profiled(asked.run_id, base.arm, point.name, asked.digest, datetime.now(UTC), failure or "not reached")
        )
        tell(point.name)
    return found


def _ceilings(
    asked: Surveyed, dtype: str | None, steps: Sequence[ProfileStepRow]
) -> tuple[list[CeilingRow], Shape | None, str | None]:
    """Ceilings, the model's shape, and why there are none."""
    if dtype is None:
        return [], None, "the engine names no data type"
    if not steps:
        return [], None, "there is no trace of the baseline's steps"
    wanted = [dtype, *USUAL[asked.baseline.device], *_asked_for(asked.study.arms)]
    budget = (asked.resolved.get(asked.baseline.arm, {}).get("scheduler_config") or {}).get("max_num_batched_tokens")
    most = max([row.context_tokens + row.generation_tokens for row in steps] + [budget or 0])
    try:
        shape = shape_of(Path(asked.baseline.weights))
        return measure_ceilings(asked.run_id, asked.baseline, shape, list(dict.fromkeys(wanted)), most), shape, None
    except NotCounted as error:
        return [], None, str(error)
    except SteelyardError as error:
        return [], None, error.message


def _asked_for(arms: Sequence[Arm]) -> list[str]:
    names = {"half": "float16", "float": "float32"}
    found = [names.get(str(arm.args["dtype"]), str(arm.args["dtype"])) for arm in arms if "dtype" in arm.args]
    return [each for each in found if each in BYTES] + [
        "int8" for arm in arms for step in weight_steps(arm.weights) if step.method == "int8_w8a8"
    ]


def _kv_bytes(resolved: Mapping[str, Any], dtype: str) -> float:
    kind = str((resolved.get("cache_config") or {}).get("cache_dtype") or "auto")
    return 1.0 if kind.startswith(("fp8", "int8")) else BYTES.get(kind, BYTES.get(dtype, 2.0))


def _predictor(
    asked: Surveyed, steps: Sequence[ProfileStepRow], ceilings: Sequence[CeilingRow], dtype: str | None,
    slow: Mapping[str, float], why: str | None,
) -> Predictor | str:  # fmt: skip
    if why is not None or dtype is None:
        return why or "the engine names no data type"
    if any(row.context_pairs is None for row in steps):
        return "this version's traces do not say how long the sequences of a step are"
    models = fits(steps, Products(ceilings), dtype, slow=slow, draws=DRAWS, seed=asked.study.seed)
    if not models:
        return f"products of {dtype} were not measured on this machine"
    try:
        return Predictor(models, scheduler_of(asked.resolved[asked.baseline.arm]), seed=asked.study.seed)
    except NoModel as error:
        return str(error)


def _scenes(study: Study, found: Sequence[Profiled], tokenizer_path: str) -> list[Scene]:
    """A scene for each load point; without requests where it could not be profiled."""
    tokenizer = load_tokenizer(tokenizer_path) if any(each.planned for each in found) else None
    scenes = []
    for point, each in zip(study.load_points, found, strict=True):
        ids = planned_ids(tokenizer, each.planned) if each.planned else []
        requests = tuple(
            Asked(prompt=prompt, output_tokens=plan.output_tokens, due_s=plan.scheduled_s)
            for prompt, plan in zip(ids, each.planned, strict=True)
        )
        scenes.append(
            Scene(
                point=point, requests=requests, answers=tuple(each.answers), measured_s=each.profile.plain_s or 0.0,
            )
        )  # fmt: skip
    return scenes
