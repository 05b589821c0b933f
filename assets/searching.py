"""The searching step of a run, without Dagster: the capacity of every live arm, block by block, a probe at a time."""

from __future__ import annotations

from assets.evidence import BASELINE, Evidence
from assets.measuring import give_up, renewed
from assets.session import Session
from steelyard.errors import EngineError
from steelyard.load.probes import run_searches
from steelyard.load.workloads import load_tokenizer
from steelyard.records import StudyRow
from steelyard.records_trials import ProbeRow
from steelyard.study_file import LoadedStudy


def measure_capacity(session: Session, loaded: LoadedStudy, run: StudyRow) -> None:
    """Every search that did not come to its end yet, in randomised blocks; each probe is committed at once."""
    study = loaded.study
    evidence = Evidence(session, loaded, run)
    left, live = evidence.searches_left, evidence.live
    expected = study.blocks * len(study.capacity) * len(live)
    session.progress.stage("capacity", expected, expected - left)
    if not left:
        return
    found = 0

    def store(probe: ProbeRow) -> None:
        session.store.write([probe])
        evidence.add_probe(probe)

    def tell(arm: str, scope: str, block: int) -> None:
        nonlocal found
        found += 1
        session.progress.advance(f"{arm} {scope} block {block + 1}")

    def dropped(arm: str, error: EngineError) -> None:
        evidence.drop(arm)
        if arm == BASELINE:
            # It served everything up to here, and dies of loads that nobody asks of it: what else is known stays.
            session.progress.say(f"{arm} failed, so no more capacities are searched: {error.message}")
        else:
            give_up(session, run, arm, error)

    searched = [arm for arm in live if any(evidence.wants_search(arm, each.scope, 0) for each in study.capacity)]
    run_searches(
        study,
        renewed(session, loaded, run, live, searched),
        load_tokenizer(session.deployments(loaded)[0].tokenizer),
        run_id=run.run_id,
        known=evidence.probes,
        arms=live,
        on_probe=store,
        on_failure=dropped,
        on_found=tell,
        wanted=evidence.wants_search,
    )
    if found < left:
        session.progress.say(
            f"{left - found} of {expected} searches were not made: their gates were decided, or could not be."
        )
