"""The baseline's answers of an earlier run, where nothing that could change them has changed.

The baseline answers most documents of a night and is the deployment that changes least. Its answers are taken from an
earlier run only if it is the same deployment (by digest) under the same suite, seed, packages and machine; and a random
sample, another one each run, is asked again, because a digest cannot know of a failing memory bank.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence

from assets.runs import STABLE
from evals.runner import SuiteResult, run_suite
from steelyard.digest import digest
from steelyard.engines.base import Engine
from steelyard.environment import DIRTY
from steelyard.records import StudyRow
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.study import Suite
from steelyard.study_file import LoadedStudy
from warehouse.store import Store

MAX_CHANGED = 0.025
"""Share of a suite's documents asked again that may score otherwise: an engine that batches rounds differently at
times."""


def reusable(store: Store, run: StudyRow, deployment: str, suite: Suite) -> SuiteRow | None:
    """The suite of the newest earlier run whose answers may stand for the baseline's; None without one.

    An earlier run asked its baseline only as far as an arm needed, so it may be the beginning of the order only.

    A judge's labels are never taken over: the judge itself is measured anew each run. Nor are canaries, of which a
    single one decides.
    """
    if suite.judge is not None or suite.category == "canary":
        return None
    runs = {row.run_id: row for row in store.read(StudyRow, status="complete")}
    rows = [
        row
        for row in store.read(SuiteRow, arm="baseline", suite=suite.name, deployment_digest=deployment)
        if row.run_id in runs and row.answered == row.documents and _asked_alike(runs[row.run_id], run, suite)
    ]
    return max(rows, key=lambda row: runs[row.run_id].started_at, default=None)


def _asked_alike(then: StudyRow, now: StudyRow, suite: Suite) -> bool:
    alike = (*STABLE, "git_commit", "seed")
    # Nobody knows what stood in a checkout with changes of its own.
    if (now.git_commit or "").endswith(DIRTY) or any(getattr(then, name) != getattr(now, name) for name in alike):
        return False
    suites = json.loads(then.study_json).get("suites", [])
    return suite.model_dump(mode="json") in suites


def reuse(
    store: Store, loaded: LoadedStudy, run: StudyRow, engine: Engine, suites: Sequence[Suite]
) -> dict[str, SuiteResult]:
    """Suites of the baseline that need not be asked, by name, as this run's own rows.

    None of an engine that somebody else runs: its digest holds only what it says of itself, so it may serve something
    else behind the same name.
    """
    found: dict[str, SuiteResult] = {}
    if engine.deployment.engine == "attach":
        return found
    for suite in suites:
        before = reusable(store, run, engine.digest, suite)
        if before is None:
            continue
        known = store.read(SampleRow, run_id=before.run_id, arm="baseline", suite=suite.name)
        if len(known) != before.documents:
            continue
        again = _asked_again(loaded, run, engine, suite, before)
        different = _different(known, again)
        if different > MAX_CHANGED * len(again):
            continue
        # Where that run had taken over all of them itself, whoever asked them is named.
        source = before.reused_from if before.reused == before.documents else None
        row = dataclasses.replace(
            before, run_id=run.run_id, arm=engine.arm, reused_from=source or before.run_id, reused=before.documents,
            rechecked=len(again), changed=different,
        )  # fmt: skip
        found[suite.name] = SuiteResult(row, [dataclasses.replace(each, run_id=run.run_id) for each in known])
    return found


def _asked_again(loaded: LoadedStudy, run: StudyRow, engine: Engine, suite: Suite, before: SuiteRow) -> list[SampleRow]:
    """Fresh answers to a sample of documents. Its seed is the run's id, so that no night asks the same ones."""
    places = range(before.asked)
    drawn = random.Random(digest([run.run_id, suite.name])).sample(places, min(loaded.study.spot_check, len(places)))
    found = run_suite(
        engine, suite, run_id=run.run_id, seed=loaded.study.seed, study_root=loaded.root,
        tokenizer=engine.deployment.tokenizer, only=sorted(drawn),
    )  # fmt: skip
    return found.samples


def _different(known: Sequence[SampleRow], again: Sequence[SampleRow]) -> int:
    """How many of the fresh samples score otherwise than the known ones, or are not among them."""
    scores = {(row.doc_hash, row.prompt_hash): row.score for row in known}
    return sum(scores.get((row.doc_hash, row.prompt_hash)) != row.score for row in again)
