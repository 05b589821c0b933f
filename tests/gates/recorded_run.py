"""A whole recorded run, every table consistent with the ones below it: made by the functions that make real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import fake_study

from steelyard.digest import canonical, digest
from steelyard.engines.base import Deployment
from steelyard.engines.identity import deployment_digest
from steelyard.finops.price_book import PriceBook
from steelyard.finops.unit_cost import unit_costs
from steelyard.gates.comparing import Comparing
from steelyard.gates.policy import Policy
from steelyard.gates.promotion import evaluate_run
from steelyard.gates.recompute_run import by_key
from steelyard.gates.verdict import verdicts, void, void_reasons
from steelyard.load.figures import duration, meets, record_of, trial_figures
from steelyard.load.steady import steady_figures
from steelyard.load.trial import CACHE_HITS, OUTPUT_TOKENS, trial_id
from steelyard.records import ArmRow, PriceRow, PromotionRow, StudyRow
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.records_trials import EngineMetricRow, RequestRow, TrialRow
from steelyard.reports.facts import Facts
from steelyard.study import Arm, LoadPoint, Study
from steelyard.study_file import policy_digest, study_digest
from steelyard.suite_counts import generated_counts, suite_counts

RUN = "fake-20261121-030000-abcdef"
START = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
SPEED = {"batching": 1.6, "fast-but-unsafe": 1.7}
WRONG = {"known-bad": 2, "fast-but-unsafe": 3}
REQUESTS, DOCUMENTS, PROMPTS = 4, 60, 6

STUDY = Study.model_validate(
    {
        **fake_study.STUDY,
        "workloads": [
            {**fake_study.STUDY["workloads"][0], "requests": REQUESTS, "load": [{"concurrency": 16}, {"rate": 4.0}]}
        ],
    }
)
POLICY = Policy.model_validate(
    {
        **fake_study.POLICY,
        "gates": [
            {**gate, **{bound: 0.2 for bound in ("margin", "at_most") if bound in gate and gate["category"] != "cost"}}
            for gate in fake_study.POLICY["gates"]
        ],
    }
)  # fmt: skip
# The one used comes last by name, so that the order in which rows are read is not the order of the book.
PRICES = PriceBook.model_validate(
    {
        "prices": [
            *fake_study.PRICES["prices"],
            {**fake_study.PRICES["prices"][0], "name": "another", "usd_per_hour": 2.5},
        ]
    }
)
SETTINGS: dict[str, Any] = {
    "run_id": RUN, "study": STUDY.study, "owner": STUDY.owner, "seed": STUDY.seed, "blocks": STUDY.blocks,
    "study_digest": study_digest(STUDY, POLICY, PRICES), "policy_digest": policy_digest(POLICY),
    "study_json": canonical(STUDY.model_dump(mode="json")), "policy_json": canonical(POLICY.model_dump(mode="json")),
    "residency": "resident", "residency_reason": None, "started_at": START,
    "finished_at": START + timedelta(hours=1), "status": "complete", "reason": None, "steelyard_version": "0.1.0",
    "git_commit": None, "hostname_digest": "0" * 12, "cpu_model": "A CPU", "cpu_count": 8, "memory_bytes": 2**34,
    "accelerator": None, "platform": "Linux", "python_version": "3.11.9", "packages_json": '{"torch":"2.9"}',
}  # fmt: skip


def arm_row(arm: Arm) -> ArmRow:
    shared = {name: digest([name]) for name in ("weights_digest", "tokenizer_digest", "template_digest")}
    deployment = Deployment(
        arm=arm.name, engine=arm.engine, model_name="m", weights="w", tokenizer="t", chat_template=None,
        args=arm.args, env=arm.env, url=None, device="cpu", faults=arm.faults, **shared,
    )  # fmt: skip
    resolved = {"max_num_seqs": arm.args["max_num_seqs"]}
    return ArmRow(
        run_id=RUN, arm=arm.name, role=arm.role, lever=arm.lever, note=arm.note, engine=arm.engine,
        claim=arm.claim.load_point if arm.claim else None, engine_version="1",
        deployment_digest=deployment_digest(deployment, version="1", resolved=resolved),
        args_json=canonical(arm.args), env_json=canonical(arm.env), resolved_json=canonical(resolved), start_s=1.5,
        status="served", error=None, **shared,
    )  # fmt: skip


def requests_of(arm: ArmRow, point: LoadPoint, block: int, identity: str) -> list[RequestRow]:
    rows = []
    # Each arm draws its own noise, which no block shares: the identity control must not look faster or slower.
    noise = 1 + 0.02 * ((block + (arm.role == "identity")) % 2)
    for index in range(REQUESTS):
        due = 0.0 if point.load.rate is None else 0.05 * index
        sent = due + 0.001
        times = [sent + (0.05 + 0.013 * k + 0.001 * index) * noise / SPEED.get(arm.arm, 1.0) for k in range(12)]
        row = RequestRow(
            trial_id=identity, request_index=index, run_id=RUN, arm=arm.arm,
            deployment_digest=str(arm.deployment_digest), prompt_hash=digest([point.name, block, index]),
            scheduled_s=due, sent_s=sent, first_token_s=times[0], end_s=times[-1] + 0.001, token_times_s=times,
            prompt_tokens=32, input_tokens=32, output_tokens=12, status="ok", error=None, finish_reason="length",
            met_slo=None,
        )  # fmt: skip
        met = meets(record_of(row, point.load), STUDY.slo_of(point.workload))
        rows.append(dataclasses.replace(row, met_slo=met))
    return rows


def trial_of(arm: ArmRow, point: LoadPoint, block: int) -> tuple[TrialRow, list[RequestRow], list[EngineMetricRow]]:
    identity = trial_id(RUN, arm.arm, point.name, block)
    requests = requests_of(arm, point, block, identity)
    records = [record_of(row, point.load) for row in requests]
    served = {"trial_id": identity, "run_id": RUN, "arm": arm.arm, "deployment_digest": str(arm.deployment_digest)}
    figures = trial_figures(records, STUDY.slo_of(point.workload), duration_s=duration(records, 0.0))
    figures |= steady_figures(records, point.load)
    trial = TrialRow(
        **served, workload=point.workload.name, load_point=point.name, block=block, position=0,
        started_at=START + timedelta(minutes=block), cached_tokens=0, client_cpu_share=0.1,
        engine_output_tokens=12 * REQUESTS, valid=True, invalid_reasons=[], **figures,
    )  # fmt: skip
    counters = {OUTPUT_TOKENS: 12.0 * REQUESTS, CACHE_HITS: 0.0}
    metrics = [EngineMetricRow(metric=name, kind="counter", value=value, **served) for name, value in counters.items()]
    return trial, requests, metrics


def suite_of(arm: ArmRow, name: str) -> tuple[SuiteRow, list[SampleRow]]:
    spec = next(suite for suite in STUDY.suites if suite.name == name)
    chat = name != "choice"
    samples = [
        SampleRow(
            run_id=RUN, arm=arm.arm, suite=name, deployment_digest=str(arm.deployment_digest),
            doc_hash=digest([name, n]), prompt_hash=digest([name, "prompt", n]), subgroup=None, prompt=f"{n}?",
            target="yes", answer="" if n == 7 else "yes", error=None,
            score=0.0 if n % WRONG.get(arm.arm, 20) == 0 else 1.0,
            finish_reason=("length" if n == 8 else "stop") if chat else None,
        )
        for n in range(DOCUMENTS)
    ]  # fmt: skip
    row = SuiteRow(
        run_id=RUN, arm=arm.arm, suite=name, deployment_digest=str(arm.deployment_digest), category=spec.category,
        task=spec.task, task_version="1.0", route="chat" if chat else "loglikelihood", metric=spec.metric,
        lm_eval_version="0.4.13", duration_s=1.5, duplicates=0, **suite_counts(samples),
        **generated_counts(samples if chat else []),
    )  # fmt: skip
    return row, samples


def divergences_of(arm: ArmRow, baseline: ArmRow) -> list[DivergenceRow]:
    same = arm.arm != "known-bad"
    return [
        DivergenceRow(
            run_id=RUN, arm=arm.arm, suite="facts", doc_hash=digest(["facts", n]),
            prompt_hash=digest(["facts", "prompt", n]), deployment_digest=str(arm.deployment_digest),
            baseline_digest=str(baseline.deployment_digest), answer_hash=None, tokens=12, top_k=20, covered=0.99,
            bounded=0, kl_nats=0.001 * (n + 1), kl_nats_max=0.01, top1_agreement=1.0 - 0.01 * n, same_answer=same,
            first_divergent_token=None if same else 1, error=None,
        )
        for n in range(PROMPTS)
    ]  # fmt: skip


def recorded(study: Mapping[str, Any] | None = None) -> Facts:
    """The run; `study` changes columns of its own row before anything is judged."""
    run = StudyRow(**{**SETTINGS, **(study or {})})
    arms = [arm_row(arm) for arm in STUDY.arms]
    measured = [
        trial_of(arm, point, block) for arm in arms for point in STUDY.load_points for block in range(STUDY.blocks)
    ]
    trials = by_key(trial for trial, _, _ in measured)
    evaluated = [suite_of(arm, suite.name) for arm in arms for suite in STUDY.suites]
    suites = by_key(row for row, _ in evaluated)
    samples = by_key(row for _, rows in evaluated for row in rows)
    divergences = by_key(row for arm in arms[1:] for row in divergences_of(arm, arms[0]))
    prices = [
        PriceRow(
            run_id=RUN, price=price.name, usd_per_hour=price.usd_per_hour, source=price.source, dated=price.dated,
            note=price.note, used=price.name == STUDY.hardware.price, place=place,
        )
        for place, price in enumerate(PRICES.prices)
    ]  # fmt: skip
    costs = unit_costs(RUN, arms, trials, PRICES.price(STUDY.hardware.price), POLICY.confidence)
    comparing = Comparing(RUN, POLICY, 3, arms[1:])
    comparisons = [
        *comparing.speed(trials), *comparing.quality(samples, suites), *comparing.cost(costs, trials),
        *comparing.divergence(divergences),
    ]  # fmt: skip
    gates = evaluate_run(
        POLICY, comparisons, run_id=RUN, arms=by_key(arms), load_points=[p.name for p in STUDY.load_points],
        suites=[(suite.name, suite.category) for suite in STUDY.suites],
    )  # fmt: skip
    decided = by_key(verdicts(RUN, POLICY, run.policy_digest, arms, gates, START))
    problems = void_reasons(
        by_key(arms), decided, by_key(gates), suites=suites, trials=trials, samples=samples, costs=costs,
        divergences=divergences,
    )  # fmt: skip
    if problems:
        run = dataclasses.replace(run, status="void", reason="; ".join(problems))
        decided = void(decided, problems)
    promotions = [
        PromotionRow(
            run_id=RUN, arm=row.arm, study=run.study, deployment_digest=str(row.deployment_digest),
            baseline_digest=str(row.baseline_digest), policy_digest=run.policy_digest, promoted_at=START,
        )
        for row in decided
        if row.verdict == "promote" and row.role == "candidate"
    ]  # fmt: skip
    return Facts(
        study=run, arms=arms, trials=trials, requests=[row for _, rows, _ in measured for row in rows],
        engine_metrics=[row for _, _, rows in measured for row in rows], suites=suites, samples=samples,
        divergences=divergences, comparisons=comparisons, gates=gates, verdicts=decided, prices=prices,
        unit_costs=costs, promotions=promotions,
    )  # fmt: skip
