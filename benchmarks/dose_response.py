"""The dose-response bench: measure the ladder of known truth and write down what each arm really does.

    python -m benchmarks.dose_response [--items N] [--arms A,B] [--suites S,T] [--jobs 2]

Serves every arm of `benchmarks/ladder` (real engines), asks it every suite on N fresh documents, screens it against
the baseline, and writes truth.json, Markdown tables and a picture. What was measured is kept under the state folder and
not measured again. A complete run (all arms, all suites, at least 1,600 documents) renews the files of the repository;
any other writes beside its results. The last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import finish
from benchmarks.dose import plot, screen, table
from benchmarks.dose.analyse import arm_truth, graded, ladder_truth, outcomes, passes_but_fails, quantities
from benchmarks.dose.arms import LADDER, chosen, deployment_of, load_ladder
from benchmarks.dose.evidence import ArmResults
from benchmarks.dose.measure import Plan, key_of, measure, now, state
from benchmarks.dose.pool import Pool, make, overlap
from benchmarks.dose.results import Results
from benchmarks.dose.truth import ArmTruth, Truth
from benchmarks.pages import DOCS, renew
from evals.suites import scorers
from steelyard.environment import describe
from steelyard.errors import InputError
from steelyard.home import weights_path
from steelyard.records import GateRow
from steelyard.study_file import LoadedStudy

SEED = 20270131
"""Seed of the pool: neither the shipped suites' nor the training's."""
ITEMS = 1600
CONFIDENCE = 0.95
PAGE = "dose-response.md"

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 2 for unusable input, 4 for an engine that fails as the baseline."""
    options = _options(arguments)
    return finish(lambda: run(options))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dose_response", description=__doc__.split("\n")[0])
    names = lambda text: [each for each in text.split(",") if each]  # noqa: E731
    parser.add_argument("--items", type=int, default=ITEMS, help="documents of each suite")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the pool")
    parser.add_argument("--arms", type=names, default=None, help="arms, by commas; the baseline comes always")
    parser.add_argument("--suites", type=names, default=None, help="suites, by commas")
    parser.add_argument("--jobs", type=int, default=2, help="arms measured at once")
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight to one engine")
    parser.add_argument("--out", type=Path, default=None, help="write truth, table and picture there")
    parser.add_argument("--no-measure", action="store_true", help="only what is stored")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> dict[str, object]:
    """Measure what is missing, analyse what is there, write it; returns what the last line says."""
    started = time.monotonic()
    loaded = load_ladder()
    arms = chosen(loaded, options.arms)
    suites = _suites(loaded, options.suites)
    if options.items < 2 or options.jobs < 1 or options.concurrency < 1:
        raise InputError("--items, --jobs and --concurrency are positive.", remedy="Ask for two documents at least.")
    pool = make(state() / "pools" / f"{options.seed}-{options.items}", items=options.items, seed=options.seed)
    # Every arm's weights before any engine: what cannot be made is said now and not in the night.
    keys = {arm: key_of(pool, deployment_of(loaded, arm, weights_path())) for arm in arms}
    plan = Plan(
        pool=pool, suites=tuple(suites), results=state() / "results", ladder=LADDER, concurrency=options.concurrency,
        prompts=loaded.study.divergence.prompts if loaded.study.divergence else 0, keys=keys,
    )  # fmt: skip
    log.info("%d arms, %d suites, %d documents each, pool %s", len(arms), len(suites), options.items, pool.digest[:12])
    if not options.no_measure:
        measure(plan, arms, options.jobs)
    results = Results(plan.results)
    if not plan.reference.is_file():
        raise InputError("nothing is stored for these arms and documents.", remedy="Run without --no-measure.")
    mark = screen.reference_digest(screen.load(plan.reference))
    measured = {}
    for arm in arms:
        found = {name: each for name, each in results.suites(keys[arm]).items() if name in suites}
        failure = results.failure(keys[arm])
        measured[arm] = ArmResults(
            suites=found, screen=results.screen(keys[arm], mark), error=failure.error if failure else None
        )
    truth = analyse(loaded, pool, measured, suites, plan)
    complete = (
        set(arms) == set(chosen(loaded, None))
        and set(suites) == set(_suites(loaded, None))
        and options.items >= ITEMS
        and all(not each.suites or set(each.suites) == set(suites) for each in measured.values())
    )
    folders = (LADDER, DOCS) if complete else (plan.results.parent / "report",) * 2
    write(truth, *((options.out, options.out) if options.out else folders))
    return summary(truth, suites, time.monotonic() - started)


def analyse(
    loaded: LoadedStudy, pool: Pool, measured: dict[str, ArmResults], suites: Sequence[str], plan: Plan
) -> Truth:
    """Everything that stored results say."""
    arms: dict[str, ArmTruth] = {}
    judged: dict[str, list[GateRow]] = {}
    for arm in measured:
        arms[arm], rows = arm_truth(loaded, pool, measured, arm, suites, CONFIDENCE)
        if rows:
            judged[arm] = rows
    ladders = {}
    for ladder in graded():
        values = quantities(pool, measured, ladder, suites)
        if values:
            ladders[ladder.name] = ladder_truth(values, CONFIDENCE)
    identity = arms["identity"].divergence if "identity" in arms else None
    said = {arm: outcomes(rows).get("all", set()) for arm, rows in judged.items()}
    return Truth(
        measured_at=now(), study_digest=loaded.study_digest, policy_digest=loaded.policy_digest, confidence=CONFIDENCE,
        pool_seed=pool.seed, pool_items=pool.items, pool_digest=pool.digest, pool_overlap=dict(overlap(pool)),
        seed=loaded.study.seed, prompts=plan.prompts, concurrency=plan.concurrency, scorers_version=scorers.VERSION,
        machine=describe(), arms=arms, ladders=ladders,
        accuracy_pass_safety_fail=passes_but_fails(judged, "accuracy", "safety"),
        likelihood_pass_generation_fail=passes_but_fails(judged, "likelihood", "generation"),
        known_bad_unseen=[arm for arm, each in said.items() if arms[arm].role == "known_bad" and each == {"pass"}],
        candidates_refused=[arm for arm, each in said.items() if arms[arm].role == "candidate" and "fail" in each],
        kl_max_identity=identity.kl_nats_max if identity is not None else None,
        measuring_s=sum(suite.duration_s for each in measured.values() for suite in each.suites.values()),
    )  # fmt: skip


def write(truth: Truth, data: Path, docs: Path) -> None:
    """truth.json into `data`, page and picture into `docs`. The text around the table stays as it is."""
    for folder in (data, docs):
        folder.mkdir(parents=True, exist_ok=True)
    page = docs / PAGE
    renew(page, table.generated(truth))
    (data / "truth.json").write_text(truth.model_dump_json(indent=1) + "\n", "utf-8")
    (docs / page.with_suffix(".svg").name).write_text(plot.svg(truth), "utf-8")
    log.info("written: %s and %s", data / "truth.json", page)


def summary(truth: Truth, suites: Sequence[str], wall_s: float) -> dict[str, object]:
    """What the last line says."""
    monotone = {name: ladder.monotone for name, ladder in truth.ladders.items()}
    return {
        "bench": "dose_response",
        "arms": len(truth.arms),
        "arms_not_served": [name for name, arm in truth.arms.items() if not arm.served],
        "items": truth.pool_items,
        "suites": len(suites),
        "monotone_noise": monotone.get("noise"),
        "monotone_bits": monotone.get("bits"),
        "accuracy_pass_safety_fail": truth.accuracy_pass_safety_fail,
        "likelihood_pass_generation_fail": truth.likelihood_pass_generation_fail,
        "known_bad_unseen": truth.known_bad_unseen,
        "candidates_refused": truth.candidates_refused,
        "kl_max_identity": truth.kl_max_identity,
        "pool_digest": truth.pool_digest,
        "measuring_s": round(truth.measuring_s, 1),
        "wall_s": round(wall_s, 1),
    }


def _suites(loaded: LoadedStudy, names: Sequence[str] | None) -> list[str]:
    known = [suite.name for suite in loaded.study.suites]
    strangers = [name for name in names or () if name not in known]
    if strangers:
        raise InputError(f"the ladder has no suite {', '.join(strangers)}.", remedy=f"It has {', '.join(known)}.")
    return [name for name in known if names is None or name in names]


if __name__ == "__main__":
    sys.exit(main())
