"""What the warehouse knows when a night decides: of a study, and of what is promoted."""

from __future__ import annotations

import json
from datetime import datetime

from assets.incidents import open_incidents
from assets.runs import changed_since
from steelyard.deployments import deployments
from steelyard.errors import SteelyardError
from steelyard.home import weights_path
from steelyard.nightly.log import Step
from steelyard.nightly.news import Ended, Standing
from steelyard.nightly.plan import Known
from steelyard.records import ArmRow, PromotionRow, StudyRow, VerdictRow
from steelyard.records_incidents import RevocationRow
from steelyard.records_review import LedgerRow
from steelyard.records_time import WallTimeRow
from steelyard.review.chain import PROMOTION, WITHDRAWAL
from steelyard.study_file import LoadedStudy
from warehouse.store import Store

WAITS = "waits for people"
"""For sign-offs, or to be confirmed: the only ways in which a promote of a complete run is no promotion yet."""
IN_FORCE = """
    SELECT p.study, p.arm, p.deployment_digest, p.run_id, p.state, p.expired_because,
        arg_max(g.reason, g.estimate) FILTER (WHERE g.benefit AND g.required AND g.outcome = 'pass') AS gain
    FROM promotions_in_force AS p
    LEFT JOIN gate_results AS g ON g.run_id = p.run_id AND g.arm = p.arm
    GROUP BY ALL
    ORDER BY p.study, p.arm, p.run_id
"""


def known_of(store: Store, loaded: LoadedStudy) -> Known:
    """What is known of a study now. Its weights are made ready where they are not yet, to see whether they changed."""
    name = loaded.study.study
    runs = sorted(store.read(StudyRow, study=name), key=lambda row: row.started_at)
    complete = [row for row in runs if row.status == "complete"]
    asked = [row for row in runs if row.study_digest == loaded.study_digest]
    unfinished = [row for row in asked if row.status == "running" and not changed_since(row, loaded)]
    valid = next((row for row in reversed(asked) if row.status == "complete"), None)
    return Known(
        study=name,
        valid_run=valid.run_id if valid else None,
        valid_since=valid.started_at if valid else None,
        changed=(*changed_since(valid, loaded), *_other_weights(store, valid, loaded)) if valid else (),
        unfinished=unfinished[-1].run_id if unfinished else None,
        incidents=len(open_incidents(store, name)),
        needs_s=_took(store, complete[-1]) if complete else None,
    )


def _other_weights(store: Store, run: StudyRow, loaded: LoadedStudy) -> list[str]:
    """Arms whose weights, tokenizer or template are other files than in the run."""
    then = {row.arm: row for row in store.read(ArmRow, run_id=run.run_id)}
    try:
        ready = deployments(loaded, weights_into=weights_path())
    except SteelyardError:
        # The run says it better, and its failure is told.
        return ["what it serves cannot be made ready"]
    kinds = ("weights_digest", "tokenizer_digest", "template_digest")
    return [
        f"weights of {each.arm}"
        for each in ready
        if each.arm not in then or any(getattr(each, kind) != getattr(then[each.arm], kind) for kind in kinds)
    ]


def _took(store: Store, run: StudyRow) -> float | None:
    """Wall time of a run, its kills and pauses left out where the account of its time is there."""
    spent = sum(row.wall_s for row in store.read(WallTimeRow, run_id=run.run_id))
    return spent or ((run.finished_at - run.started_at).total_seconds() if run.finished_at else None)


def newest_ended(store: Store, study: str, since: datetime) -> StudyRow | None:
    """The study's newest run that ended after a moment, complete or void."""
    ended = [
        row
        for row in store.read(StudyRow, study=study)
        if row.status in ("complete", "void") and row.finished_at is not None and row.finished_at >= since
    ]
    return max(ended, key=lambda row: row.started_at, default=None)


def note_end(store: Store, step: Step, run: StudyRow) -> None:
    """Put how a run ended into its step."""
    step.run_id, step.outcome, step.error = run.run_id, run.status, run.reason
    step.verdicts = {row.arm: row.verdict for row in store.read(VerdictRow, run_id=run.run_id)}
    step.withheld = withheld(store, run.run_id)


def withheld(store: Store, run_id: str) -> dict[str, str]:
    """Arms of a run whose verdict is promote and who are not promoted, with what stands in the way."""
    promoted = {row.arm for row in store.read(PromotionRow, run_id=run_id)}
    revoked = {row.arm for row in store.read(RevocationRow, run_id=run_id)}
    return {
        row.arm: "revoked" if row.arm in revoked else WAITS
        for row in store.read(VerdictRow, run_id=run_id)
        if row.verdict == "promote" and row.role == "candidate" and row.arm not in promoted
    }


def standings(store: Store) -> tuple[list[Standing], Ended]:
    """Promotions in force, and why others no longer are."""
    in_force, expired = [], dict[tuple[str, str], str]()
    for row in store.query(IN_FORCE).to_dict("records"):
        if row["state"] == "in force":
            gain = row["gain"] if isinstance(row["gain"], str) else None
            names = ("study", "arm", "deployment_digest", "run_id")
            in_force.append(Standing(**{name: row[name] for name in names}, gain=gain))
        elif not str(row["expired_because"]).startswith("promoted again"):
            expired[row["study"], row["arm"]] = row["expired_because"]
    return in_force, Ended(expired=expired, withdrawn=_withdrawn(store))


def _withdrawn(store: Store) -> dict[tuple[str, str], str]:
    """Run and arm -> why the ledger took its promotion back, unless it was promoted again since."""
    entries = [*store.read(LedgerRow, kind=WITHDRAWAL), *store.read(LedgerRow, kind=PROMOTION)]
    found: dict[tuple[str, str], str] = {}
    for entry in sorted(entries, key=lambda entry: (entry.recorded_at, entry.seq)):
        said = json.loads(entry.payload_json)
        found[entry.run_id, said["arm"]] = "; ".join(said["why"]) if entry.kind == WITHDRAWAL else ""
    return {key: why for key, why in found.items() if why}
