"""What a lever should bring: the load point played through the model of the baseline's steps, with and without it.

The interval has three sources, drawn together: how well the profile knows the coefficients (fits to steps drawn with
replacement), what the change may do to each category (`effects`), and how far the model is, over all load points, from
the baseline it was made of. It is a statement about the model, scored against what is measured afterwards; no gate ever
looks at it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steelyard.levers.effects import Effect, NoModel, Span
from steelyard.profiling.drafts import replay
from steelyard.profiling.play import Asked, Played, Scheduler, play
from steelyard.profiling.step_model import StepModel, Work, work_of
from steelyard.study import LoadPoint

CONFIDENCE = 0.9
OPEN_DRAWS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One load point: the requests of a whole trial, which predictions are about; and what it was profiled with, the
    requests of a pass, how long they took without the profiler (0 if unknown), and the baseline's answers to some of
    them as token ids. `capacity` are the tokens that fit into the KV cache, None if unknown.
    """

    point: LoadPoint
    requests: tuple[Asked, ...]
    profiled: tuple[Asked, ...]
    answers: tuple[tuple[int, ...], ...]
    measured_s: float
    capacity: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Output tokens/s over the baseline's, with its interval, and what the player saw of both."""

    ratio: float
    low: float
    high: float
    ours: Played
    baseline: Played
    accepted: float | None = None


def scheduler_of(resolved: Mapping[str, Any]) -> Scheduler:
    """The scheduler of a resolved configuration. Raises NoModel if it says nothing of seats."""
    scheduling, cache = resolved.get("scheduler_config") or {}, resolved.get("cache_config") or {}
    seats, budget = scheduling.get("max_num_seqs"), scheduling.get("max_num_batched_tokens")
    if not isinstance(seats, int) or not isinstance(budget, int):
        raise NoModel("the engine does not say how many sequences and tokens a step may hold")
    return Scheduler(
        max_sequences=seats, max_tokens=budget, chunked=scheduling.get("enable_chunked_prefill") is not False,
        block_size=cache.get("block_size") if cache.get("enable_prefix_caching") else None,
    )  # fmt: skip


class Predictor:
    """Predicts for one baseline. `models` are its fits, the first to all steps (`step_model.fits`); `scenes` are the
    load points it was profiled at, over which its own error is known.
    """

    def __init__(
        self, models: Sequence[StepModel], scheduler: Scheduler, scenes: Sequence[Scene], *, seed: int,
        experts: bool = False,
    ) -> None:  # fmt: skip
        self._models = models
        self._scheduler = scheduler
        self._seed = seed
        self._experts = experts
        self._played: dict[tuple[str, int], Played] = {}
        misses = [math.log(miss) for scene in scenes if (miss := self.miss(scene)) is not None]
        self._error = math.sqrt(math.fsum(each**2 for each in misses) / len(misses)) if misses else 0.0

    def baseline(self, scene: Scene, draw: int = 0) -> Played:
        """The baseline itself at a load point, by one of the fits. It is every lever's, so it is played once."""
        key = scene.point.name, draw
        if key not in self._played:
            self._played[key] = self._play(scene, self._scheduler, self._models[draw], scene.requests)
        return self._played[key]

    def miss(self, scene: Scene) -> float | None:
        """Duration of the profiled pass, played over measured. None under arrivals, which decide it, and where it was
        not measured or cannot be played.
        """
        if scene.measured_s <= 0 or not scene.profiled or scene.point.load.concurrency is None:
            return None
        try:
            played = self._play(scene, self._scheduler, self._models[0], scene.profiled)
        except NoModel:
            return None
        return played.duration_s / scene.measured_s

    def predict(self, scene: Scene, effect: Effect, scheduler: Scheduler) -> Prediction:
        """Throughput of the changed deployment over the baseline's. Raises NoModel where it cannot be said."""
        if scene.measured_s <= 0:
            raise NoModel("the baseline was not measured at this load point")
        if self._experts and (effect.schedules or effect.drafts):
            raise NoModel("which experts a larger batch reads is not modelled")
        dtype, span = effect.products or (self._models[0].products_dtype, (1.0, 1.0))
        if not self._models[0].products.knows(dtype):
            raise NoModel(f"products of {dtype} were not measured on this machine")
        requests, accepted = _drafted(scene, effect)
        _must_fit(scene, scheduler)
        spans = {**effect.factors, "gemm": _times(effect.factors.get("gemm", (1.0, 1.0)), span)}
        middle = {name: math.sqrt(best * worst) for name, (best, worst) in spans.items()}
        ours = self._play(scene, scheduler, self._models[0].scaled(middle, dtype), requests)
        theirs = self.baseline(scene)
        if scene.point.load.concurrency is None:
            low, high = self._open(scene, spans, dtype, scheduler, requests)
        else:
            low, high = self._closed(ours, theirs, spans, dtype)
        ratio = theirs.duration_s / ours.duration_s
        slack = math.exp(self._error)
        if scene.point.load.concurrency is None:
            # Where arrivals decide, an error of the steps moves the ratio only as far as steps do.
            slack = 1 + (slack - 1) * min(1.0, abs(ratio - 1))
        return Prediction(
            ratio=ratio, low=min(low / slack, ratio), high=max(high * slack, ratio), ours=ours, baseline=theirs,
            accepted=accepted,
        )  # fmt: skip

    def _play(self, scene: Scene, scheduler: Scheduler, model: StepModel, requests: Sequence[Asked]) -> Played:
        try:
            return play(requests, scheduler, model.seconds, concurrency=scene.point.load.concurrency)
        except ValueError as error:
            raise NoModel(str(error)) from error

    def _closed(self, ours: Played, theirs: Played, spans: Mapping[str, Span], dtype: str) -> Span:
        """Ratios over all draws. In a closed loop who is in a step does not depend on how long steps take."""
        products, plain = self._models[0].products, self._models[0].products_dtype
        mine: Work = work_of(ours.batches, products, [dtype])
        reference: Work = work_of(theirs.batches, products, [plain])
        rng = random.Random(self._seed)
        ratios = [
            model.total(reference) / model.scaled(_draw(spans, rng), dtype).total(mine)
            for model in self._models
            for _ in range(4)
        ]
        return _ends(ratios)

    def _open(
        self, scene: Scene, spans: Mapping[str, Span], dtype: str, scheduler: Scheduler, requests: Sequence[Asked]
    ) -> Span:
        """Ratios over some fits, each with factors of its own: arrivals wait for nobody, so all are played."""
        rng = random.Random(self._seed)
        ratios = []
        for draw, model in enumerate(self._models[:OPEN_DRAWS]):
            ours = self._play(scene, scheduler, model.scaled(_draw(spans, rng), dtype), requests)
            ratios.append(self.baseline(scene, draw).duration_s / ours.duration_s)
        return _ends(ratios)


def _must_fit(scene: Scene, scheduler: Scheduler) -> None:
    """Raise NoModel if the sequences that may run at once need more KV cache than the baseline's engine has."""
    if scene.capacity is None:
        return
    longest = max(len(each.prompt) + each.output_tokens for each in scene.requests)
    at_once = min(scheduler.max_sequences, scene.point.load.concurrency or len(scene.requests))
    if at_once * longest > scene.capacity:
        raise NoModel(f"{at_once} sequences of {longest} tokens may not fit into {scene.capacity:,} tokens of KV cache")


def _drafted(scene: Scene, effect: Effect) -> tuple[tuple[Asked, ...], float | None]:
    """The requests with the drafts of their steps, and the mean tokens a decoding step emits."""
    if effect.drafts is None:
        return scene.requests, None
    if not scene.answers:
        raise NoModel("the baseline's answers are not known as tokens")
    count, least, most = effect.drafts
    known = [
        replay(asked.prompt, answer, count=count, least=least, most=most)
        for asked, answer in zip(scene.profiled, scene.answers, strict=False)
    ]
    steps = [step for each in known for step in each]
    if not steps:
        raise NoModel("answers of one token leave nothing to draft")
    requests = tuple(replace(asked, drafts=known[index % len(known)]) for index, asked in enumerate(scene.requests))
    return requests, sum(emitted for _, emitted in steps) / len(steps)


def _draw(spans: Mapping[str, Span], rng: random.Random) -> dict[str, float]:
    return {name: best * (worst / best) ** rng.random() for name, (best, worst) in spans.items()}


def _times(one: Span, other: Span) -> Span:
    return one[0] * other[0], one[1] * other[1]


def _ends(ratios: Sequence[float]) -> Span:
    ordered = sorted(ratios)
    cut = int((1 - CONFIDENCE) / 2 * len(ordered))
    return ordered[cut], ordered[-1 - cut]
