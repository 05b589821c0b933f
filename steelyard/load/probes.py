"""Searches for capacity on engines: every live arm once in a block, in an order that favours nobody.

`capacity` says where a search goes; here it goes there. Every probe is handed over as soon as it ends, so a killed run
loses the one in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from steelyard.digest import digest
from steelyard.engines.base import Engine
from steelyard.engines.probe import check_alive
from steelyard.errors import EngineError
from steelyard.load.blocks import STRIKES, Residents, Wanted, order_of
from steelyard.load.capacity import Step, next_step, searches_of
from steelyard.load.client import OK
from steelyard.load.figures import record_of, within
from steelyard.load.steady import grows
from steelyard.load.trial import Trial, run_trial
from steelyard.load.workloads import plan_probe, plan_warmup
from steelyard.records_trials import ProbeRow
from steelyard.study import Load, LoadPoint, Slo, Study, Workload
from steelyard.study_capacity import CapacitySearch


def run_searches(
    study: Study,
    residents: Residents,
    tokenizer: Any,
    *,
    run_id: str,
    known: Iterable[ProbeRow],
    arms: Sequence[str],
    on_probe: Callable[[ProbeRow], None],
    on_failure: Callable[[str, EngineError], None],
    on_found: Callable[[str, str, int], None],
    wanted: Wanted | None = None,
) -> None:
    """Run every search of every block; one that `known` probes begin goes on where it was.

    `wanted` is asked for every arm, scope and block before it begins. An arm whose engine fails twice in one search is
    told to `on_failure` and dropped; without the baseline, the first of the study's arms, nothing more is searched.
    `on_found` is told which search came to its end. What the callbacks raise is not caught.
    """
    state = _Searching(study, tokenizer, run_id, searches_of(known), on_probe)
    live = list(arms)
    workloads = {workload.name: workload for workload in study.workloads}
    names = [arm.name for arm in study.arms]
    for block in range(study.blocks):
        for asked in study.capacity:
            order = order_of(names, seed=study.seed, block=block, scope=asked.scope)
            ours = [arm for arm in order if arm in live and (wanted is None or wanted(arm, asked.scope, block))]
            for position, arm in enumerate(ours):
                strikes = 0
                while {arm, names[0]} <= {*live} and state.open(asked, arm, block):
                    try:
                        with residents.use(arm) as engine:
                            state.search(engine, asked, workloads[asked.workload], block, position)
                        on_found(arm, asked.scope, block)
                    except EngineError as error:
                        strikes += 1
                        if strikes >= STRIKES:
                            live.remove(arm)
                            on_failure(arm, error)


@dataclass(slots=True)
class _Searching:
    study: Study
    tokenizer: Any
    run_id: str
    probes: dict[tuple[str, str, int], list[ProbeRow]]
    on_probe: Callable[[ProbeRow], None]

    def open(self, asked: CapacitySearch, arm: str, block: int) -> bool:
        return isinstance(next_step(asked, self.probes.get((arm, asked.scope, block), [])), Step)

    def search(self, engine: Engine, asked: CapacitySearch, workload: Workload, block: int, position: int) -> None:
        key = (engine.arm, asked.scope, block)
        mine = self.probes.setdefault(key, [])
        # Again after a crash: its engine is a new one then.
        warm = False
        while isinstance(step := next_step(asked, mine), Step):
            found = self._probe(engine, asked, workload, block, step, number=len(mine), warm=warm)
            warm = True
            # An engine that died is no rate that does not hold.
            if found.row.failed:
                check_alive(engine)
            row = probe_row(found, asked, self.study.slo_of(workload), number=len(mine), position=position, step=step)
            mine.append(row)
            self.on_probe(row)

    def _probe(
        self, engine: Engine, asked: CapacitySearch, workload: Workload, block: int, step: Step, *, number: int,
        warm: bool,
    ) -> Trial:  # fmt: skip
        point = LoadPoint(workload=workload, load=Load(concurrency=None, rate=step.rate))
        seed, tokenizer, count = self.study.seed, self.tokenizer, self.study.warmup_requests
        return run_trial(
            engine,
            point,
            plan_probe(point, tokenizer, seed=seed, block=block, part=step.part, requests=asked.requests(step.rate)),
            slo=self.study.slo_of(workload),
            # Once a search: its probes follow one another on a warm engine.
            warmup=[] if warm else plan_warmup(point, tokenizer, seed=seed, block=block, requests=count),
            run_id=self.run_id,
            block=block,
            position=0,
            identity=digest([self.run_id, engine.arm, asked.scope, block, number])[:16],
            may_fail=True,
        )


def probe_row(trial: Trial, asked: CapacitySearch, slo: Slo, *, number: int, position: int, step: Step) -> ProbeRow:
    """A probe as it is stored, from the rows of the trial it was measured as."""
    row, load = trial.row, Load(concurrency=None, rate=step.rate)
    good = [record if record.status == OK else None for record in (record_of(each, load) for each in trial.requests)]
    due = [each.scheduled_s for each in trial.requests]
    ttft = [each.ttft_s if each else None for each in good]
    itl = [each.itl_s if each else None for each in good]
    e2e = [each.e2e_s if each else None for each in good]
    return ProbeRow(
        run_id=row.run_id, arm=row.arm, scope=asked.scope, block=row.block, number=number,
        deployment_digest=row.deployment_digest, position=position, rate=step.rate, started_at=row.started_at,
        duration_s=row.duration_s, requests=row.requests, failed=row.failed, met=met_of(ttft, itl, e2e, slo),
        saturated=saturated_of(due, e2e), due_s=due, ttft_s=ttft, itl_s=itl, e2e_s=e2e,
        output_tokens_per_s=row.output_tokens_per_s, lateness_p95_s=row.lateness_p95_s,
        client_cpu_share=row.client_cpu_share, valid=row.valid, invalid_reasons=row.invalid_reasons,
        error=next((each.error for each in trial.requests if each.error), None),
    )  # fmt: skip


def met_of(
    ttft_s: Sequence[float | None], itl_s: Sequence[float | None], e2e_s: Sequence[float | None], slo: Slo
) -> int:
    """How many requests met the SLO; one without an end did not, and of a single token no ITL is asked."""
    requests = zip(ttft_s, itl_s, e2e_s, strict=True)
    return sum(e2e is not None and within(slo, ttft, itl, e2e) for ttft, itl, e2e in requests)


def saturated_of(due_s: Sequence[float], e2e_s: Sequence[float | None]) -> bool | None:
    """Whether the queue of a probe only grew, by the requests that ended well."""
    good = [(due, due + took) for due, took in zip(due_s, e2e_s, strict=True) if took is not None]
    return grows([due for due, _ in good], [end for _, end in good])
