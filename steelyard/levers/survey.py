"""The survey before the trials: profile the baseline, measure the machine, predict what each lever should bring."""

from __future__ import annotations

import logging
import math
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
from steelyard.load.workloads import PlannedRequest, load_tokenizer, plan_requests
from steelyard.profiling.play import Asked
from steelyard.profiling.rooflines import Meter, dtype_of, kv_bytes_each, measure_ceilings, rooflines, weight_bytes_each
from steelyard.profiling.shape import BYTES, NotCounted, Shape, dtype_name, shape_of
from steelyard.profiling.step_model import Products, fits, slowed, untraced
from steelyard.profiling.window import Profiled, not_profiled, planned_ids, profile_point, profiling
from steelyard.records_base import Row
from steelyard.records_profile import CeilingRow, ProfileStepRow
from steelyard.study import Arm, LoadPoint, Study
from steelyard.study_profile import Profile
from steelyard.study_weights import steps as weight_steps
from steelyard.wall_time import starting_and_ending

DRAWS = 40
# Products of other data types than these are measured only if somebody asks for them: some take minutes on a CPU.
USUAL = {"cpu": ("bfloat16",), "cuda": ("bfloat16", "float16")}

_log = logging.getLogger(__name__)


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
    engine time; whatever else computes meanwhile is measured along. Raises InputError only without a tokenizer, which
    every later step needs too.
    """
    tokenizer = load_tokenizer(asked.baseline.tokenizer)
    with Meter(asked.baseline) as meter:
        found = _profiles(asked, profile, tokenizer, logs, tell, meter)
        return _evaluated(asked, found, tokenizer, meter)


def _evaluated(asked: Surveyed, found: Sequence[Profiled], tokenizer: Any, meter: Meter) -> list[Row]:
    study, run_id = asked.study, asked.run_id
    profiles = {each.profile.load_point: each.profile for each in found}
    traced = [row for each in found for row in each.steps]
    steps = untraced(traced, slowed(profiles))
    resolved = asked.resolved.get(asked.baseline.arm, {})
    ceilings: list[CeilingRow] = []
    roofs: list[Row] = []
    scenes: list[Scene] = []
    predictor: Predictor | str
    try:
        scenes = _scenes(study, found, tokenizer)
        shape, dtype = _counted(asked, resolved, steps)
        ceilings = _ceilings(asked, shape, dtype, steps, meter)
        quantization = (resolved.get("model_config") or {}).get("quantization")
        roofs += rooflines(
            steps, ceilings, shape, dtype, weight_bytes_each=weight_bytes_each(dtype, quantization),
            kv_bytes_each=kv_bytes_each(resolved, dtype),
        )  # fmt: skip
        predictor = predictor_of(study, resolved, shape, steps, ceilings, dtype, scenes)
    except (NotCounted, NoModel) as error:
        predictor = str(error)
    except SteelyardError as error:
        predictor = error.message
    except Exception as error:  # noqa: BLE001 - whatever a profile makes stumble must not stop a night
        predictor = _stumbled(error)
    among = candidates(study, asked.resolved)
    scenes = scenes or [_nothing(point) for point in study.load_points]
    rest = (among, resolved, profiles, steps, datetime.now(UTC))
    try:
        expected = opportunities(run_id, study, scenes, predictor, *rest)
    except Exception as error:  # noqa: BLE001 - as above
        expected = opportunities(run_id, study, scenes, _stumbled(error), *rest)
    operators = [row for each in found for row in each.operators]
    return [*profiles.values(), *traced, *operators, *ceilings, *roofs, *expected]


def _stumbled(error: Exception) -> str:
    _log.warning("the survey could not be evaluated", exc_info=error)
    return f"the profile could not be evaluated ({type(error).__name__}: {error})"


def _profiles(
    asked: Surveyed, profile: Profile, tokenizer: Any, logs: Path, tell: Callable[[str], None], meter: Meter
) -> list[Profiled]:
    study, base = asked.study, asked.baseline
    found: list[Profiled] = []
    failure = None
    try:
        ready = profiling(base, logs / "traces")
        serves = serve(ready, run_log_dir=logs, start_timeout_s=study.hardware.start_timeout_s)
        with starting_and_ending(serves) as engine:
            for point in study.load_points:
                found.append(
                    profile_point(
                        engine, point, study, tokenizer, steps=profile.steps, traces=logs / "traces",
                        run_id=asked.run_id, deployment_digest=asked.digest,
                    )
                )  # fmt: skip
                tell(point.name)
            # It imports while the engine ends: nothing is profiled any more.
            meter.prepare()
    except SteelyardError as error:
        failure = error.message
    except Exception as error:  # noqa: BLE001 - as above: a trace of another version may hold anything
        failure = _stumbled(error)
    for point in study.load_points[len(found) :]:
        found.append(
            not_profiled(asked.run_id, base.arm, point.name, asked.digest, datetime.now(UTC), failure or "not reached")
        )
        tell(point.name)
    return found


def _counted(asked: Surveyed, resolved: Mapping[str, Any], steps: Sequence[ProfileStepRow]) -> tuple[Shape, str]:
    """The model's shape and the data type it is served in. Raises NotCounted for what this profile cannot speak of."""
    dtype = dtype_of(resolved)
    if dtype is None:
        raise NotCounted("the engine names no data type")
    if not steps:
        raise NotCounted("there is no trace of the baseline's steps")
    parallel = resolved.get("parallel_config") or {}
    sizes = [int(parallel.get(f"{kind}_parallel_size") or 1) for kind in ("tensor", "pipeline", "data")]
    if math.prod(sizes) > 1:
        raise NotCounted("the baseline runs on several devices, and the trace is one's")
    return shape_of(Path(asked.baseline.weights)), dtype


def _ceilings(
    asked: Surveyed, shape: Shape, dtype: str, steps: Sequence[ProfileStepRow], meter: Meter
) -> list[CeilingRow]:
    wanted = [dtype, *USUAL[asked.baseline.device], *_asked_for(asked.study.arms)]
    budget = (asked.resolved.get(asked.baseline.arm, {}).get("scheduler_config") or {}).get("max_num_batched_tokens")
    most = max([row.context_tokens + row.generation_tokens for row in steps] + [budget or 0])
    return measure_ceilings(asked.run_id, meter, shape, list(dict.fromkeys(wanted)), most)


def _asked_for(arms: Sequence[Arm]) -> list[str]:
    found = [dtype_name(arm.args["dtype"]) for arm in arms if "dtype" in arm.args]
    return [each for each in found if each in BYTES] + [
        "int8" for arm in arms for step in weight_steps(arm.weights) if step.method == "int8_w8a8"
    ]


def predictor_of(
    study: Study, resolved: Mapping[str, Any], shape: Shape, steps: Sequence[ProfileStepRow],
    ceilings: Sequence[CeilingRow], dtype: str, scenes: Sequence[Scene],
) -> Predictor:  # fmt: skip
    """What predicts for the baseline that resolved to this and was profiled with these steps, tracing taken out.

    Raises NoModel where nothing can be predicted.
    """
    if resolved.get("speculative_config"):
        raise NoModel("the baseline drafts, and its steps do not say what of it was accepted")
    if any(row.context_pairs is None for row in steps):
        raise NoModel("this version's traces do not say how long the sequences of a step are")
    models = fits(steps, Products(ceilings), dtype, draws=DRAWS, seed=study.seed)
    if not models:
        raise NoModel(f"products of {dtype} were not measured on this machine")
    experts = any(each.share < 1 for each in shape.matrices)
    return Predictor(models, scheduler_of(resolved), scenes, seed=study.seed, experts=experts)


def _scenes(study: Study, found: Sequence[Profiled], tokenizer: Any) -> list[Scene]:
    """A scene for each load point: a whole trial's requests, and those of the profiled pass."""
    scenes = []
    for point, each in zip(study.load_points, found, strict=True):
        whole = plan_requests(point, tokenizer, seed=study.seed, block=-1) if each.planned else []
        scenes.append(
            Scene(
                point=point, requests=_asked(tokenizer, whole), profiled=_asked(tokenizer, each.planned),
                answers=tuple(each.answers), measured_s=each.profile.plain_s or 0.0,
                capacity=each.profile.kv_capacity_tokens,
            )
        )  # fmt: skip
    return scenes


def _nothing(point: LoadPoint) -> Scene:
    return Scene(point=point, requests=(), profiled=(), answers=(), measured_s=0.0)


def _asked(tokenizer: Any, planned: Sequence[PlannedRequest]) -> tuple[Asked, ...]:
    ids = planned_ids(tokenizer, planned) if planned else []
    return tuple(
        Asked(prompt=prompt, output_tokens=plan.output_tokens, due_s=plan.scheduled_s)
        for prompt, plan in zip(ids, planned, strict=True)
    )
