"""Probes of a run once more: what in them follows from the study and from what each request took."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from steelyard.gates.recompute_diff import ABSENT, PRESENT, Difference, Recomputed
from steelyard.load.capacity import Step, next_step, searches_of
from steelyard.load.probes import met_of, saturated_of
from steelyard.records import ArmRow, ProbeRow
from steelyard.study import Study
from steelyard.study_capacity import capacity_scope

REBUILT = {"rate", "requests", "met", "saturated"}


def rebuild_probes(
    found: Recomputed, study: Study, arms: Sequence[ArmRow], probes: Sequence[ProbeRow], *, whole: bool
) -> list[ProbeRow]:
    """Probes from their requests' times, each at the rate where the search stood; what the client vouches for is as
    stored.

    A search must go the way that its own probes send it, so one that was left out or put in shows. An arm that stopped
    serving left its last search where it was.
    """
    if not probes and not study.capacity:
        return []
    served = {row.arm for row in arms if row.status == "served"}
    searches = {each.scope: each for each in study.capacity}
    slos = {capacity_scope(workload.name): study.slo_of(workload) for workload in study.workloads}
    again: list[ProbeRow] = []
    for (arm, scope, block), mine in searches_of(probes).items():
        key = f"arm {arm}, scope {scope}, block {block}"
        if scope not in searches:
            found.differences.append(Difference(table="probes", key=key, column="scope", stored=scope, recomputed=None))
            continue
        rebuilt: list[ProbeRow] = []
        for row in mine:
            step = next_step(searches[scope], rebuilt)
            if not isinstance(step, Step):
                break
            rebuilt.append(
                dataclasses.replace(
                    row,
                    number=len(rebuilt),
                    rate=step.rate,
                    requests=len(row.due_s),
                    met=met_of(row.ttft_s, row.itl_s, row.e2e_s, slos[scope]),
                    saturated=saturated_of(row.due_s, row.e2e_s),
                )
            )
        again += rebuilt
        if whole and arm in served and isinstance(next_step(searches[scope], rebuilt), Step):
            name = f"{key}, number {len(rebuilt)}"
            found.differences.append(
                Difference(table="probes", key=name, column=None, stored=ABSENT, recomputed=PRESENT)
            )
    others = {each.name for each in dataclasses.fields(ProbeRow)} - REBUILT - set(ProbeRow.KEY)
    found.compare(ProbeRow, again, probes, skip=others)
    return again
