"""Probes of a run once more: what in them follows from the study and from what each request took."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from steelyard.gates.recompute_diff import ABSENT, PRESENT, Difference, Recomputed, skipped_blocks
from steelyard.load.capacity import Step, next_step, searches_of
from steelyard.load.probes import met_of, saturated_of
from steelyard.records import ArmRow
from steelyard.records_trials import ProbeRow
from steelyard.study import Study
from steelyard.study_capacity import capacity_scope

REBUILT = {"rate", "requests", "failed", "met", "saturated", "due_s"}


def rebuild_probes(
    found: Recomputed, study: Study, arms: Sequence[ArmRow], probes: Sequence[ProbeRow], *, whole: bool
) -> list[ProbeRow]:
    """Probes from their requests' times, each at the rate where the search stood; what the client vouches for is as
    stored.

    A search must go the way that its own probes send it, so one that was left out or put in shows, and so do a block
    that an arm skipped and arrivals that are not those of the other arms. Where an arm stopped serving, searches may
    have been left where they were.
    """
    if not probes and not study.capacity:
        return []
    whole = whole and all(row.status == "served" for row in arms)
    arrivals: dict[tuple[str, int, float, int], list[float]] = {}
    searches = {each.scope: each for each in study.capacity}
    slos = {capacity_scope(workload.name): study.slo_of(workload) for workload in study.workloads}
    again: list[ProbeRow] = []
    cut_off: list[str] = []
    for (arm, scope, block), mine in searches_of(probes).items():
        if scope not in searches:
            found.differ(mine[0], "scope", scope, "a capacity that the study searches")
            continue
        rebuilt: list[ProbeRow] = []
        for row in mine:
            step = next_step(searches[scope], rebuilt)
            if not isinstance(step, Step):
                break
            sent = searches[scope].requests(step.rate)
            rebuilt.append(
                dataclasses.replace(
                    row,
                    number=len(rebuilt),
                    rate=step.rate,
                    requests=sent,
                    failed=sum(took is None for took in row.e2e_s),
                    due_s=arrivals.setdefault((scope, block, step.rate, step.part), row.due_s),
                    met=min(sent, met_of(row.ttft_s, row.itl_s, row.e2e_s, slos[scope])),
                    saturated=saturated_of(row.due_s, row.e2e_s),
                )
            )
        again += rebuilt
        if isinstance(next_step(searches[scope], rebuilt), Step):
            cut_off.append(f"arm {arm}, scope {scope}, block {block}, number {len(rebuilt)}")
    if whole:
        names = [*cut_off, *skipped_blocks([(row.arm, row.scope, row.block) for row in probes], "scope")]
        found.differences += [
            Difference(table="probes", key=name, column=None, stored=ABSENT, recomputed=PRESENT) for name in names
        ]
    others = {each.name for each in dataclasses.fields(ProbeRow)} - REBUILT - set(ProbeRow.KEY)
    found.compare(ProbeRow, again, probes, skip=others)
    return again
