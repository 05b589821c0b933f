"""A realistic run, drawn from a seed: twelve arms, five load points, five suites, with every trouble a run can have.

Traffic is synthetic; comparisons, gates, verdicts and unit costs are the library's own.
"""

from __future__ import annotations

import json
import statistics
from datetime import date, timedelta

import numpy as np
from profile_rows import profile_rows
from synthetic_traffic import ARMS, LOADS, RUN, SUITES, T0, make_samples, make_trial, sha
from wall_time_rows import wall_time_rows

from steelyard.comparisons import compare_cost, compare_speed
from steelyard.finops.price_book import Price
from steelyard.finops.unit_cost import unit_costs
from steelyard.gates.evaluate import evaluate
from steelyard.gates.policy import Policy
from steelyard.gates.verdict import verdicts
from steelyard.quality_comparisons import compare_quality
from steelyard.records import ArmRow, PriceRow, PromotionRow, StudyRow
from steelyard.records_quality import SuiteRow
from steelyard.reports.facts import Contract, Facts

POLICY = Policy.model_validate(
    {
        "policy": "default",
        "gates": [
            {
                "name": "throughput-gain",
                "category": "speed",
                "metric": "output_tokens_per_s",
                "on": "claimed",
                "at_least": 1.05,
            },
            {"name": "ttft-guard", "category": "speed", "metric": "ttft_p50_s", "at_most": 1.10},
            {"name": "itl-guard", "category": "speed", "metric": "itl_p50_s", "at_most": 1.10},
            {"name": "accuracy", "category": "accuracy", "metric": "score", "margin": 0.03},
            {"name": "safety", "category": "safety", "metric": "score", "margin": 0.03},
            {"name": "harm", "category": "safety", "metric": "safe_to_unsafe", "at_most": 0.02},
            {
                "name": "cost",
                "category": "cost",
                "metric": "usd_per_million_output_tokens",
                "on": "claimed",
                "at_most": 0.97,
                "required": False,
            },
        ],
    }
)
PRICE = Price(
    name="laptop-cpu",
    usd_per_hour=0.3456,
    source="Public list price, 8 vCPU on demand",
    dated=date(2026, 2, 3),
    note="One region, no commitment.",
)


PREDICTED = {"int8-w8a8": 1.4, "combined": 2.5}


def profile_tables(rows):
    """Profile rows by the field of `Facts` that holds them: the name of their table."""
    tables = {}
    for row in rows:
        tables.setdefault(row.TABLE, []).append(row)
    return tables


def make_facts(
    *,
    seed: int = 7,
    arms: tuple[str, ...] = tuple(ARMS),
    loads: int = 5,
    blocks: int = 5,
    requests: int = 32,
    documents: int = 240,
    failed: tuple[str, ...] = ("kv-int8-per-token-head",),
) -> Facts:
    """Rows of one finished run, the same for the same arguments."""
    rng = np.random.default_rng(seed)
    points = list(LOADS)[:loads]
    live = [arm for arm in arms if arm not in failed]
    trials, request_rows, engine_metrics, samples, suites = [], [], [], [], []
    for load in points:
        for block in range(blocks):
            for position, index in enumerate(rng.permutation(len(live))):
                trial, rows, metrics = make_trial(rng, live[index], load, block, position, requests)
                trials.append(trial)
                request_rows += rows
                engine_metrics += metrics
    truth = {suite: rng.random(documents) < of[3] for suite, of in SUITES.items()}
    for arm in live:
        for suite, (category, task, route, _) in SUITES.items():
            rows = make_samples(rng, arm, suite, documents, truth)
            scores = [row.score for row in rows if row.score is not None]
            samples += rows
            suites.append(
                SuiteRow(
                    run_id=RUN,
                    arm=arm,
                    suite=suite,
                    deployment_digest=sha("digest", arm),
                    category=category,
                    task=task,
                    task_version="1.0",
                    route=route,
                    metric="score",
                    documents=len(rows),
                    answered=len(scores),
                    mean_score=statistics.fmean(scores),
                    documents_digest=sha("docs", suite),
                    lm_eval_version="0.4.13",
                    duration_s=float(rng.uniform(9, 31)),
                )
            )
    arm_rows = [_arm(arm, failed, rng) for arm in arms]
    gated = [arm for arm in live if arm != "baseline"]
    unit = unit_costs(RUN, arm_rows, trials, PRICE, POLICY.confidence)
    comparisons = [
        *compare_speed(RUN, trials, arms=gated, confidence=POLICY.confidence),
        *compare_quality(RUN, samples, suites, arms=gated, confidence=POLICY.confidence),
        *compare_cost(RUN, unit, trials, arms=gated, confidence=POLICY.confidence),
    ]
    asked = [(suite, of[0]) for suite, of in SUITES.items()]
    gates = [
        gate
        for arm in gated
        for gate in evaluate(
            POLICY, comparisons, run_id=RUN, arm=arm, claim=ARMS[arm][2], load_points=points, suites=asked
        )
    ]
    decided = verdicts(RUN, POLICY, sha("policy"), arm_rows, gates, T0 + timedelta(hours=2, minutes=14))
    return Facts(
        study=_study(points, arms, blocks, requests, seed),
        arms=arm_rows,
        trials=trials,
        requests=request_rows,
        suites=suites,
        samples=samples,
        comparisons=comparisons,
        gates=gates,
        verdicts=decided,
        prices=[
            PriceRow(
                run_id=RUN,
                price="laptop-cpu",
                usd_per_hour=PRICE.usd_per_hour,
                source=PRICE.source,
                dated=date(2026, 2, 3),
                note="One region, no commitment.",
                used=True,
            ),
            PriceRow(
                run_id=RUN,
                price="gpu-h200",
                usd_per_hour=4.98,
                source="Contract 2026-11",
                dated=date(2026, 1, 1),
                note=None,
                used=False,
            ),
        ],
        unit_costs=unit,
        engine_metrics=engine_metrics,
        promotions=[
            PromotionRow(
                run_id=RUN,
                arm=row.arm,
                study="laptop",
                deployment_digest=row.deployment_digest,
                baseline_digest=row.baseline_digest,
                policy_digest=row.policy_digest,
                promoted_at=row.decided_at,
            )
            for row in decided
            if row.verdict == "promote" and row.role == "candidate"
        ],
        wall_times=wall_time_rows(RUN, T0),
        **profile_tables(profile_rows(RUN, points, sha("digest", "baseline"), T0, PREDICTED)),
        contracts=[
            Contract(name="trials are complete", passed=True, detail=f"{len(trials)} rows, 11 expectations held"),
            Contract(name="samples pair on content", passed=True, detail=f"{len(samples)} rows, 7 expectations held"),
        ],
        command="steelyard run studies/laptop",
        study_path="studies/laptop/study.yaml",
    )


def _arm(arm, failed, rng):
    role, lever, claim, _, _, _, _, note = ARMS[arm]
    down = arm in failed
    return ArmRow(
        run_id=RUN,
        arm=arm,
        role=role,
        lever=lever,
        claim=claim,
        note=note,
        engine="vllm",
        engine_version=None if down else "0.32.0",
        deployment_digest=None if down else sha("digest", "baseline" if role == "identity" else arm),
        weights_digest=sha("weights"),
        tokenizer_digest=sha("tokenizer"),
        template_digest=sha("template"),
        args_json=json.dumps({"max_num_seqs": 4, "dtype": "bfloat16" if arm == "bf16" else "float32"}),
        env_json=json.dumps({"VLLM_CPU_KVCACHE_SPACE": "1"}),
        resolved_json=None if down else '{"dtype":"float32"}',
        start_s=None if down else float(rng.uniform(14, 22)),
        status="failed" if down else "served",
        error="BadArgument: vllm refuses --kv-cache-dtype int8_per_token_head.\n  | error: argument --kv-cache-dtype: "
        "invalid choice"
        if down
        else None,
    )


def _study(points, arms, blocks, requests, seed):
    workloads = {}
    for point in points:
        name = point.rpartition("@")[0]
        of = LOADS[point]
        load = {"rate": of["rate"]} if of["rate"] else {"concurrency": int(point.rpartition("@c")[2])}
        workloads.setdefault(
            name,
            {
                "name": name,
                "kind": name.replace("-", "_"),
                "requests": requests,
                "prompt_tokens": of["prompt"],
                "output_tokens": of["out"],
                "load": [],
                "slo": {"ttft_s": 2.0 if of["prompt"] > 500 else 0.5, "itl_s": 0.06, "e2e_s": None},
            },
        )["load"].append(load)
    asked = {
        "study": "laptop",
        "description": "Which levers pay on a laptop processor, for chat and retrieval traffic.",
        "model": {"name": "steelyard-reference", "weights": "reference_model/weights"},
        "hardware": {"name": "laptop, 8 cores", "device": "cpu", "price": "laptop-cpu"},
        "slo": {"ttft_s": 0.5, "itl_s": 0.06},
        "workloads": list(workloads.values()),
        "suites": [{"name": name, "category": of[0], "task": of[1]} for name, of in SUITES.items()],
    }
    return StudyRow(
        run_id=RUN,
        study="laptop",
        owner="team:inference",
        study_digest=sha("study"),
        policy_digest=sha("policy"),
        study_json=json.dumps(asked),
        policy_json=POLICY.model_dump_json(),
        seed=seed,
        blocks=blocks,
        residency="resident",
        residency_reason="12 engines of 0.9 GiB fit into 24 GiB beside the client.",
        started_at=T0,
        finished_at=T0 + timedelta(hours=2, minutes=14),
        status="complete",
        reason=None,
        steelyard_version="1.0.0",
        git_commit="f8ec62d0aa11",
        hostname_digest="9a1f00c3d2e4",
        cpu_model="AMD EPYC 9B14",
        cpu_count=8,
        memory_bytes=24 * 2**30,
        accelerator=None,
        platform="Linux 6.8",
        python_version="3.12.4",
        packages_json=json.dumps({"vllm": "0.32.0", "lm_eval": "0.4.13", "torch": "2.13.0"}),
    )
