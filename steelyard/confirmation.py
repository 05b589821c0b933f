"""Who takes the best of many candidates takes luck with it: the winner of a campaign is measured again, alone.

The confirmation is a study of its own, made from the campaign's: the winner, the controls, sealed documents that no
candidate was chosen by, and blocks with other prompts, arrivals and orders. Its gates are the policy's, and err as a
single candidate's do, however many were tried.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from steelyard.digest import digest
from steelyard.errors import InputError
from steelyard.gates.policy import Policy
from steelyard.records import GateRow, StudyRow, VerdictRow
from steelyard.study import Study
from steelyard.study_file import LoadedStudy, study_digest

SUFFIX = "-confirmed"


def awaits_confirmation(study: Study, policy: Policy) -> bool:
    """Whether a study's own verdicts promote nobody, because its winner has to be confirmed."""
    return policy.confirm == "winner" and study.confirms is None and len(study.candidates) > 1


def winner(verdicts: Sequence[VerdictRow], gates: Sequence[GateRow]) -> str:
    """The promoted candidate whose gain is proven to be largest. Raises InputError if nobody was promoted."""
    promoted = [row.arm for row in verdicts if row.role == "candidate" and row.verdict == "promote"]
    if not promoted:
        raise InputError(
            "No candidate of the run deserves promotion, so there is nobody to confirm.",
            remedy="The report says what each of them lacks.",
        )
    return max(promoted, key=lambda arm: (_proven(arm, gates), arm))


def _proven(arm: str, gates: Sequence[GateRow]) -> float:
    """The largest gain a required gate proved, as a ratio where more is better."""
    asked = [row for row in gates if row.arm == arm and row.benefit and row.required]
    found = [row.low if row.bound_kind == "at_least" else 1 / row.high if row.high else None for row in asked]
    return max((each for each in found if each is not None), default=0.0)


def confirmation(loaded: LoadedStudy, run: StudyRow, arm: str) -> LoadedStudy:
    """The study that confirms one candidate of a campaign's run.

    Its seed follows from the run, so that prompts, arrivals and orders are others, and the same command resumes it.
    Suites without sealed documents, such as canaries, are asked as always. Raises InputError if there is no such
    candidate, or the study is a confirmation itself.
    """
    study = loaded.study
    if study.confirms is not None:
        raise InputError(
            f"Study {study.study} is a confirmation itself.", remedy="Name the study whose winner it confirms."
        )
    chosen = tuple(each for each in study.candidates if each.name == arm)
    if not chosen:
        raise InputError(
            f"Study {study.study} has no candidate {arm}.",
            remedy=f"It has {', '.join(each.name for each in study.candidates)}.",
        )
    suites = tuple(
        each.model_copy(update={"part": "sealed", "limit": None}) if each.sealed else each for each in study.suites
    )
    confirming = study.model_copy(
        update={
            "study": f"{study.study}{SUFFIX}",
            "description": f"Confirms {arm}, the winner of run {run.run_id}, on sealed documents and fresh blocks.",
            "confirms": run.run_id,
            "seed": int(digest([run.run_id, arm, "confirmation"])[:8], 16),
            "candidates": chosen,
            "suites": suites,
            "reuse_baseline": False,
        }
    )
    found = study_digest(confirming, loaded.policy, loaded.prices)
    return dataclasses.replace(loaded, study=confirming, study_digest=found)
