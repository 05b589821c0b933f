"""Who takes the best of many candidates takes luck with it: the winner of a campaign is measured again, alone.

The confirmation is a study of its own, made from the campaign's: the winner, the controls, sealed documents that no
candidate was chosen by, and blocks with other prompts, arrivals and orders. Its gates are the policy's, and err as a
single candidate's do, however many were tried.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pydantic import ValidationError

from steelyard.digest import digest
from steelyard.errors import InputError
from steelyard.gates.policy import SCORED, Policy
from steelyard.gates.proven import most_proven
from steelyard.records import GateRow, StudyRow, VerdictRow
from steelyard.study import Study
from steelyard.study_file import CONFIRMED, LoadedStudy, study_digest


def awaits_confirmation(study: Study, policy: Policy) -> bool:
    """Whether a study's own verdicts promote nobody, because its winner has to be confirmed."""
    return policy.confirm == "winner" and len(study.candidates) > 1


def promoted_study(study: Study) -> str:
    """The study in whose name a run promotes: a confirmation promotes in the campaign's, whose next run revokes it."""
    return study.study if study.confirms is None else study.study.removesuffix(CONFIRMED)


def winner(policy: Policy, verdicts: Sequence[VerdictRow], gates: Sequence[GateRow], arm: str | None = None) -> str:
    """The candidate to confirm: of those with the verdict promote the given one, by default the one that proved most.

    What is proven is the bound of the policy's first required gain; an arm that was decided early has a wider interval
    and proves less. Raises InputError if there is nobody to confirm.
    """
    promoted = [row.arm for row in verdicts if row.role == "candidate" and row.verdict == "promote"]
    if not promoted or arm not in (None, *promoted):
        who = "No candidate of the run deserves" if not promoted else f"{arm} does not deserve"
        rest = f" Promoted were {', '.join(promoted)}." if promoted else ""
        raise InputError(
            f"{who} promotion, so there is nobody to confirm.",
            remedy=f"The report says what is lacking.{rest}",
        )
    gain = next(gate.name for gate in policy.gates if gate.benefit and gate.required)

    def proven(each: str) -> float:
        return most_proven(row for row in gates if (row.arm, row.gate) == (each, gain))

    return arm or max(promoted, key=lambda each: (proven(each), each))


def confirmation(loaded: LoadedStudy, run: StudyRow, arm: str) -> LoadedStudy:
    """The study that confirms one candidate of a campaign's run.

    Its seed follows from the run, so that prompts, arrivals and orders are others, and the same command resumes it.
    Canaries without sealed documents are asked as always. Raises InputError if a suite seals none, or the study's name
    is too long to be extended.
    """
    study = loaded.study
    chosen = tuple(each for each in study.candidates if each.name == arm)
    open_only = [each.name for each in study.suites if each.category in SCORED and not each.sealed]
    if open_only:
        raise InputError(
            f"Study {study.study} keeps no documents of {', '.join(open_only)} for a confirmation.",
            remedy="Seal some, such as `sealed: 400`, and run the campaign on the rest.",
        )
    suites = tuple(
        each.model_copy(update={"part": "sealed", "limit": None}) if each.sealed else each for each in study.suites
    )
    confirming = study.model_copy(
        update={
            "study": f"{study.study}{CONFIRMED}",
            "description": f"Confirms {arm}, the winner of run {run.run_id}, on sealed documents and fresh blocks.",
            "confirms": run.run_id,
            "seed": int(digest([run.run_id, arm, "confirmation"])[:8], 16),
            "candidates": chosen,
            "suites": suites,
            "reuse_baseline": False,
        }
    )
    try:
        confirming = Study.model_validate_json(confirming.model_dump_json(), strict=True)
    except ValidationError as error:
        raise InputError(
            f"The confirmation of {study.study} would be no valid study: {error.errors()[0]['msg']}.",
            remedy=f"Give the study a shorter name: {CONFIRMED} is added to it.",
        ) from error
    found = study_digest(confirming, loaded.policy, loaded.prices)
    return dataclasses.replace(loaded, study=confirming, study_digest=found)
