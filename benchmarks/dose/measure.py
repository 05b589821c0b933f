"""Asking the arms: each is served, screened against the baseline and asked every suite, but nothing twice.

Two arms at a time by default, each in a process of its own, because lm-eval keeps global state: an engine uses one core
and the server and client beside it a part of another. Answers do not depend on who else is being measured; times do,
and nothing is concluded from them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.dose import screen
from benchmarks.dose.arms import asked_digest, deployment_of, load_ladder
from benchmarks.dose.pool import Pool
from benchmarks.dose.results import Failure, Key, Results, ScreenResult, SuiteResult
from steelyard.digest import digest
from steelyard.engines.base import Deployment, Engine
from steelyard.engines.launcher import die_with_parent
from steelyard.errors import EngineError, InputError, SteelyardError
from steelyard.home import home, logs_path, quiet, weights_path
from steelyard.study import Suite
from steelyard.study_file import LoadedStudy

RUN_ID = "dose-response"
ATTEMPTS = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be measured, as it travels to the processes that do."""

    pool: Pool
    suites: tuple[str, ...]
    results: Path
    ladder: Path
    concurrency: int
    prompts: int
    keys: Mapping[str, Key]
    """Under what each arm's results are stored, as it was when the run began."""

    def key(self, deployment: Deployment) -> Key:
        """The arm's key. InputError if the arm is no longer what it was: its weights, perhaps, were trained anew."""
        key = key_of(self.pool, deployment)
        if key != self.keys[key.arm]:
            raise InputError(
                f"{key.arm} changed while the ladder was being measured.",
                remedy="Run again: what is no longer true is measured anew.",
            )
        return key

    @property
    def reference(self) -> Path:
        """The baseline's answers, beside the results; the name says of which baseline to which prompts."""
        of = digest([asdict(self.keys["baseline"]), self.prompts])
        return self.results / f"reference-{of[:12]}.json"


def key_of(pool: Pool, deployment: Deployment) -> Key:
    """Under what an arm's results are stored: arm, pool, and all that decides what is served."""
    return Key(arm=deployment.arm, pool=pool.digest, asked=asked_digest(deployment))


def state() -> Path:
    """Where the bench keeps pools and results."""
    return home() / RUN_ID


def now() -> str:
    """The present moment, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def measure(plan: Plan, arms: Sequence[str], jobs: int) -> None:
    """Measure what is not yet stored, the baseline's answers for the screen first; other arms' failures are stored.

    Raises Stopped if the baseline cannot be served, or an arm cannot be made ready or changed meanwhile.
    """
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin) as workers:
        _told(workers.submit(_carried, ask_baseline, plan))
        waiting = [workers.submit(_carried, measure_arm, plan, arm) for arm in arms]
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                log.info("%d of %d: %s", done, len(arms), _told(future))
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise


class Stopped(SteelyardError):
    """What ended the measuring in another process."""


def _carried(function: Callable[..., str], *arguments: object) -> str | tuple[str, str, int]:
    """A result, or what an error is made of: errors with keywords do not travel between processes."""
    try:
        return function(*arguments)
    except SteelyardError as error:
        return error.message, error.remedy, error.exit_code


def _told(future: Future[str | tuple[str, str, int]]) -> str:
    found = future.result()
    if isinstance(found, str):
        return found
    message, remedy, exit_code = found
    error = Stopped(message, remedy=remedy)
    error.exit_code = exit_code  # type: ignore[misc]
    raise error


def _begin() -> None:
    die_with_parent()
    quiet()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


def ask_baseline(plan: Plan) -> str:
    """The reference of the screen, unless it is there for this baseline and this pool; says so in a phrase."""
    from evals.divergence import reference
    from evals.divergence_prompts import prompts_of

    loaded = load_ladder(plan.ladder)
    deployment = deployment_of(loaded, "baseline", weights_path())
    plan.key(deployment)
    if plan.reference.is_file():
        return "the baseline's answers are known already"
    asked = loaded.study.divergence
    if asked is None:
        raise InputError("the ladder asks for no divergence.", remedy="Add `divergence` to its study.")
    suites = [plan.pool.suite(each) for each in loaded.study.suites]
    prompts = prompts_of(suites, plan.prompts, seed=loaded.study.seed, study_root=loaded.root)
    with served(deployment) as engine:
        found = reference(
            engine, prompts, top_k=asked.top_k, max_tokens=asked.max_tokens, seed=loaded.study.seed,
            concurrency=plan.concurrency,
        )  # fmt: skip
    screen.save(plan.reference, found)
    return f"the baseline answered {len(prompts)} prompts"


def measure_arm(plan: Plan, name: str) -> str:
    """Screen and suites of one arm, each stored at once; says in a phrase what was done. A failing baseline raises."""
    loaded = load_ladder(plan.ladder)
    deployment = deployment_of(loaded, name, weights_path())
    key, results = plan.key(deployment), Results(plan.results)
    for attempt in range(ATTEMPTS):
        try:
            count = _measure(plan, loaded, deployment, key, results)
        except EngineError as error:
            log.info("%s: %s", name, error)
            if attempt == ATTEMPTS - 1:
                results.add(Failure(key=key, error=str(error), ended_at=now()))
                if name == "baseline":
                    raise
                return f"{name} cannot be measured: {error.message}"
        else:
            return f"{name}: {count} measured" if count else f"{name}: known already"
    raise AssertionError


def _measure(plan: Plan, loaded: LoadedStudy, deployment: Deployment, key: Key, results: Results) -> int:
    from evals.divergence import diverge
    from steelyard.engines.probe import check_alive

    there = results.suites(key)
    left = [suite for suite in loaded.study.suites if suite.name in plan.suites and suite.name not in there]
    reference = screen.load(plan.reference)
    mark = screen.reference_digest(reference)
    unscreened = deployment.arm != "baseline" and results.screen(key, mark) is None
    if not left and not unscreened:
        return 0
    with served(deployment) as engine:
        if unscreened:
            rows = diverge(engine, reference, run_id=RUN_ID, concurrency=plan.concurrency)
            check_alive(engine)
            results.add(
                ScreenResult(
                    key=key, reference=mark, deployment=engine.digest, ended_at=now(),
                    rows=[row.as_dict() for row in rows],
                )
            )  # fmt: skip
        for suite in left:
            result = ask(plan, loaded, engine, suite, key)
            check_alive(engine)
            results.add(result)
            rate = len(result.positions) / max(result.duration_s, 1e-9)
            log.info("%s %s: %d documents, %.0f a second", key.arm, suite.name, len(result.positions), rate)
    return len(left) + unscreened


@contextmanager
def served(deployment: Deployment) -> Iterator[Engine]:
    """The arm's engine; its log is under the state folder."""
    from steelyard.engines.serving import serve

    with serve(deployment, run_log_dir=logs_path() / RUN_ID, start_timeout_s=300) as engine:
        yield engine


def ask(plan: Plan, loaded: LoadedStudy, engine: Engine, suite: Suite, key: Key) -> SuiteResult:
    """One suite, its samples put in the pool's order. Raises EngineError if the engine is dead or hung."""
    from evals.runner import run_suite

    found = run_suite(
        engine, plan.pool.suite(suite), run_id=RUN_ID, seed=loaded.study.seed, study_root=loaded.root,
        tokenizer=engine.deployment.tokenizer, concurrency=plan.concurrency,
    )  # fmt: skip
    places = {hash_of(document): place for place, document in enumerate(plan.pool.documents(suite.task))}
    samples = sorted(((places[sample.doc_hash], sample) for sample in found.samples), key=lambda each: each[0])
    return SuiteResult(
        key=key, suite=suite.name, task=suite.task, deployment=engine.digest, version=engine.version,
        duration_s=found.suite.duration_s or 0.0, ended_at=now(),
        positions=[place for place, _ in samples],
        scores=[sample.score for _, sample in samples],
        answers=[sample.answer for _, sample in samples],
        errors={str(place): sample.error for place, sample in samples if sample.error is not None},
    )  # fmt: skip


def hash_of(document: dict[str, Any]) -> str:
    """lm-eval's hash of a document: sha256 of its indented JSON."""
    return hashlib.sha256(json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8")).hexdigest()
