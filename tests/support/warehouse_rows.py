"""A small, realistic run: every table filled, every kind of flip present, comparisons by the real estimators."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from incident_rows import incident_rows
from profile_rows import profile_rows
from search_rows import search_row, stack_rows
from wall_time_rows import wall_time_rows

from steelyard.capacity_comparisons import compare_capacity
from steelyard.comparisons import compare_cost, compare_speed
from steelyard.divergence_comparisons import compare_divergence
from steelyard.quality_comparisons import compare_quality
from steelyard.records import (
    ArmRow,
    ComparisonRow,
    GateRow,
    PriceRow,
    PromotionRow,
    Row,
    StudyRow,
    UnitCostRow,
    VerdictRow,
)
from steelyard.records_keeping import ThinningRow
from steelyard.records_quality import DivergenceRow, SampleRow, SuiteRow
from steelyard.records_review import LedgerRow, SignOffRow
from steelyard.records_time import WallTimeRow
from steelyard.records_trials import EngineMetricRow, ProbeRow, RequestRow, TrialRow
from steelyard.study_capacity import CapacitySearch

START = datetime(2026, 3, 1, 22, 0, 0, 123456, tzinfo=UTC)
ROLES = {"baseline": "baseline", "int8": "candidate", "again": "identity", "broken": "known_bad"}
SPEED = {"baseline": 1.0, "int8": 1.4, "again": 1.01, "broken": 0.6}
POINTS = ("chat@c2", "chat@r4")
BLOCKS, REQUESTS, DOCUMENTS = 3, 8, 12
ARMS = tuple(arm for arm in ROLES if arm != "baseline")


def sha(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


@dataclass(frozen=True)
class Rows:
    """All rows of one run, by table."""

    study: StudyRow
    arms: list[ArmRow]
    trials: list[TrialRow]
    requests: list[RequestRow]
    engine_metrics: list[EngineMetricRow]
    probes: list[ProbeRow]
    suites: list[SuiteRow]
    samples: list[SampleRow]
    divergences: list[DivergenceRow]
    comparisons: list[ComparisonRow]
    gates: list[GateRow]
    verdicts: list[VerdictRow]
    prices: list[PriceRow]
    unit_costs: list[UnitCostRow]
    promotions: list[PromotionRow]
    profile: list[Row]
    search: list[Row]
    wall_times: list[WallTimeRow]
    thinnings: list[ThinningRow]
    incidents: list[Row]
    review: list[Row]

    def all(self) -> list[Row]:
        found: list[Row] = []
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            found += value if isinstance(value, list) else [value]
        return found

    def of(self, row_class: type[Row]) -> list[Row]:
        return [row for row in self.all() if type(row) is row_class]


def digest_of(arm: str) -> str:
    return sha("deployment", "baseline" if arm == "again" else arm)


def study_row(run_id: str, started_at: datetime = START, **changes: Any) -> StudyRow:
    row = StudyRow(
        run_id=run_id, study="nightly-chat", owner="team:inference", study_digest=sha("study"),
        policy_digest=sha("policy"), study_json='{"study":"nightly-chat"}', policy_json='{"policy":"default"}', seed=7,
        blocks=BLOCKS, residency="resident", residency_reason=None, started_at=started_at,
        finished_at=started_at + timedelta(minutes=20), status="complete", reason=None, steelyard_version="1.0.0",
        git_commit=None, hostname_digest=sha("host")[:12], cpu_model="A CPU; it's quoted", cpu_count=8,
        memory_bytes=64 * 2**30, accelerator=None, platform="Linux", python_version="3.11.9", packages_json="{}",
    )  # fmt: skip
    return dataclasses.replace(row, **changes)


def _arm(run_id: str, arm: str) -> ArmRow:
    candidate = ROLES[arm] == "candidate"
    return ArmRow(
        run_id=run_id, arm=arm, role=ROLES[arm], lever="quantization" if candidate else None,
        claim="chat@c2" if candidate else None, note=None, engine="fake", engine_version="1", args_json="{}",
        deployment_digest=digest_of(arm), weights_digest=sha("weights"), tokenizer_digest=sha("tokenizer"),
        template_digest=None, env_json="{}", resolved_json="{}", start_s=2.5, status="served", error=None,
        model="reference",
    )  # fmt: skip


def _requests(run_id: str, arm: str, point: str, block: int, identity: str) -> list[RequestRow]:
    rows = []
    for index in range(REQUESTS):
        lost = arm == "broken" and index == 0
        due = 0.25 * index
        sent = due + 0.001
        times = [] if lost else [sent + (0.05 + 0.01 * k + 0.001 * block) / SPEED[arm] for k in range(5)]
        rows.append(
            RequestRow(
                trial_id=identity, request_index=index, run_id=run_id, arm=arm, deployment_digest=digest_of(arm),
                prompt_hash=sha(point, block, index), scheduled_s=due, sent_s=sent,
                first_token_s=times[0] if times else None, end_s=times[-1] + 0.001 if times else sent + 0.2,
                token_times_s=times, prompt_tokens=32, input_tokens=None if lost else 32,
                output_tokens=None if lost else 5, status="timeout" if lost else "ok",
                error="silent for 60 s" if lost else None, finish_reason=None if lost else "length", met_slo=not lost,
            )
        )  # fmt: skip
    return rows


def _trial(run_id: str, arm: str, point: str, block: int) -> tuple[TrialRow, list[RequestRow], list[EngineMetricRow]]:
    identity = sha(run_id, arm, point, block)[:16]
    requests = _requests(run_id, arm, point, block, identity)
    good = [row for row in requests if row.status == "ok"]
    valid = not (arm == "broken" and block == 2)
    rate = (100 + block) * SPEED[arm]
    trial = TrialRow(
        trial_id=identity, run_id=run_id, arm=arm, deployment_digest=digest_of(arm), workload="chat", load_point=point,
        block=block, position=list(ROLES).index(arm), started_at=START + timedelta(minutes=block), duration_s=2.0,
        requests=len(requests), completed=len(good), failed=len(requests) - len(good), input_tokens=32 * len(good),
        output_tokens=5 * len(good), cached_tokens=None, output_tokens_per_s=rate, requests_per_s=rate / 5,
        goodput_per_s=rate / 5, slo_tokens_per_s=rate, slo_share=len(good) / len(requests),
        ttft_p50_s=0.05 / SPEED[arm],
        ttft_p95_s=None, itl_p50_s=0.01 / SPEED[arm], itl_p95_s=None, e2e_p50_s=0.1 / SPEED[arm], e2e_p95_s=None,
        lateness_p95_s=0.001, client_cpu_share=0.2, engine_output_tokens=5 * len(good), valid=valid,
        invalid_reasons=[] if valid else ["the client sent late"],
    )  # fmt: skip
    shared = {"trial_id": identity, "run_id": run_id, "arm": arm, "deployment_digest": digest_of(arm)}
    metrics = [
        EngineMetricRow(metric="vllm:generation_tokens_total", kind="counter", value=5.0 * len(good), **shared),
        EngineMetricRow(metric="vllm:kv_cache_usage_perc", kind="gauge", value=0.25, **shared),
    ]
    return trial, requests, metrics


def _score(arm: str, suite: str, document: int) -> float | None:
    if arm == "int8" and document == 0:
        return None
    if arm == "broken":
        return 0.0 if document < 9 else 1.0
    if arm == "int8" and document == 1:
        return 0.0
    if document == 2:
        return 1.0 if arm == "int8" else 0.0
    return 1.0


def _suite(run_id: str, arm: str, suite: str) -> tuple[SuiteRow, list[SampleRow]]:
    samples = []
    for document in range(DOCUMENTS):
        if (arm, document) in (("int8", 3), ("baseline", 4)) and suite == "facts":
            continue
        score = _score(arm, suite, document)
        samples.append(
            SampleRow(
                run_id=run_id, arm=arm, suite=suite, deployment_digest=digest_of(arm), doc_hash=sha(suite, document),
                prompt_hash=sha(suite, "prompt", document), subgroup="even" if document % 2 == 0 else None,
                prompt=f"Question {document}: what's \"it\"?", target="yes", score=score,
                answer=None if score is None else ("yes" if score else "no"),
                finish_reason=None if score is None else "stop", error="HTTP 500" if score is None else None,
                position=document,
            )
        )  # fmt: skip
    scores = [row.score for row in samples if row.score is not None]
    row = SuiteRow(
        run_id=run_id, arm=arm, suite=suite, deployment_digest=digest_of(arm), task=f"steelyard_{suite}",
        category="safety" if suite == "refusal" else "accuracy", task_version="1.0", route="chat",
        metric="score", documents=DOCUMENTS, answered=len(scores), mean_score=sum(scores) / len(scores),
        documents_digest=sha(suite, "documents"), lm_eval_version="0.4.13", duration_s=1.5,
    )  # fmt: skip
    return row, samples


def _divergence(run_id: str, arm: str, document: int) -> DivergenceRow:
    """The broken arm differs at its second token, and could not be asked one prompt at all."""
    known = not (arm == "broken" and document == 5)
    same = arm == "again" or document > 3
    figures = {"kl_nats": 0.0 if arm == "again" else 0.01 * (document + 1), "top1_agreement": 1.0 if same else 0.8}
    return DivergenceRow(
        run_id=run_id, arm=arm, suite="facts", doc_hash=sha("facts", document),
        prompt_hash=sha("facts", "prompt", document), deployment_digest=digest_of(arm),
        baseline_digest=digest_of("baseline"), answer_hash=sha("answer", document), tokens=5, top_k=20,
        covered=0.99 if known else None, bounded=0 if known else None, kl_nats=figures["kl_nats"] if known else None,
        kl_nats_max=2 * figures["kl_nats"] if known else None,
        top1_agreement=figures["top1_agreement"] if known else None, same_answer=same if known else None,
        first_divergent_token=None if same or not known else 1, error=None if known else "HTTP 500",
    )  # fmt: skip


SEARCH = CapacitySearch(workload="chat", lowest=10.0, highest=40.0, resolution=2.0)
HOLDS = {"baseline": 10.0, "int8": 20.0, "again": 10.0, "broken": 5.0}


def _probes(run_id: str, arm: str, block: int) -> list[ProbeRow]:
    """The search over 10, 20 and 40: first the middle one, then the one that is left above or below."""
    rows = []
    for number, rate in enumerate((20.0, 40.0 if HOLDS[arm] >= 20 else 10.0)):
        count = SEARCH.requests(rate)
        met = count if rate <= HOLDS[arm] else 0
        e2e = [0.1 if met else 5.0] * count
        rows.append(
            ProbeRow(
                run_id=run_id, arm=arm, scope=SEARCH.scope, block=block, number=number,
                deployment_digest=digest_of(arm), position=list(ROLES).index(arm), rate=rate,
                started_at=START + timedelta(minutes=block), duration_s=2.0, requests=count, failed=0,
                met=met, error=None,
                saturated=False, due_s=[index / rate for index in range(count)],
                ttft_s=[0.05] * count, itl_s=[None] * count, e2e_s=e2e, output_tokens_per_s=90.0,
                lateness_p95_s=0.001, client_cpu_share=0.2, valid=True, invalid_reasons=[],
            )
        )  # fmt: skip
    return rows


def _gate(comparison: ComparisonRow) -> GateRow:
    return GateRow(
        run_id=comparison.run_id, arm=comparison.arm, gate=f"{comparison.category}-{comparison.metric}",
        category=comparison.category, metric=comparison.metric, scope=comparison.scope, bound_kind="at_least",
        bound=1.1, benefit=True, required=True, estimate=comparison.estimate, low=comparison.low, high=comparison.high,
        n=comparison.n, outcome="pass", reason="The lower bound clears the bound.",
    )  # fmt: skip


@functools.cache
def make_rows(run_id: str = "run-1", started_at: datetime = START) -> Rows:
    trials, requests, metrics, suites, samples, costs = [], [], [], [], [], []
    for arm in ROLES:
        for point in POINTS:
            for block in range(BLOCKS):
                trial, asked, counted = _trial(run_id, arm, point, block)
                trials.append(trial)
                requests += asked
                metrics += counted
            usd = 1.2 / (100 * SPEED[arm] * 3600) * 1e6
            costs.append(
                UnitCostRow(
                    run_id=run_id, arm=arm, deployment_digest=digest_of(arm), load_point=point, price="laptop",
                    usd_per_hour=1.2, blocks=BLOCKS, confidence=0.95, usd_per_million_output_tokens=usd,
                    output_low=0.9 * usd, output_high=1.1 * usd, usd_per_million_slo_tokens=None, slo_low=None,
                    slo_high=None,
                )
            )  # fmt: skip
        for suite in ("facts", "refusal"):
            row, answered = _suite(run_id, arm, suite)
            suites.append(row)
            samples += answered
    probes = [row for arm in ROLES for block in range(BLOCKS) for row in _probes(run_id, arm, block)]
    divergences = [_divergence(run_id, arm, document) for arm in ARMS for document in range(8)]
    comparisons = [
        *compare_speed(run_id, trials, arms=ARMS, confidence=0.95),
        *compare_capacity(run_id, probes, [SEARCH], arms=ARMS, confidence=0.95),
        *compare_cost(run_id, costs, trials, arms=ARMS, confidence=0.95),
        *compare_quality(run_id, samples, suites, arms=ARMS, confidence=0.95),
        *compare_divergence(run_id, divergences, arms=ARMS, confidence=0.95),
    ]
    wanted = ("output_tokens_per_s", "score", "safe_to_unsafe", "usd_per_million_output_tokens")
    verdicts = [
        VerdictRow(
            run_id=run_id, arm=arm, role=ROLES[arm], verdict={"int8": "promote", "broken": "reject"}.get(arm, "reject"),
            reasons=["It is faster.", "It's as good."], deployment_digest=digest_of(arm),
            baseline_digest=digest_of("baseline"), policy_digest=sha("policy"), decided_at=started_at,
        )
        for arm in ARMS
    ]  # fmt: skip
    return Rows(
        study=study_row(run_id, started_at),
        arms=[_arm(run_id, arm) for arm in ROLES],
        trials=trials,
        requests=requests,
        engine_metrics=metrics,
        probes=probes,
        suites=suites,
        samples=samples,
        divergences=divergences,
        comparisons=comparisons,
        gates=[_gate(each) for each in comparisons if each.metric in wanted],
        verdicts=verdicts,
        prices=[
            PriceRow(
                run_id=run_id, price="laptop", usd_per_hour=1.2, source="an invoice", dated=date(2026, 2, 1), note=None,
                used=True,
            )
        ],
        unit_costs=costs,
        promotions=[
            PromotionRow(
                run_id=run_id, arm="int8", study="nightly-chat", deployment_digest=digest_of("int8"),
                baseline_digest=digest_of("baseline"), policy_digest=sha("policy"), promoted_at=started_at,
            )
        ],
        profile=profile_rows(run_id, POINTS, digest_of("baseline"), started_at, {"int8": 1.35}),
        search=[search_row(f"{run_id}-search", started_at), *stack_rows(f"{run_id}-search")],
        wall_times=wall_time_rows(run_id, started_at),
        incidents=incident_rows(f"{run_id}-nights", started_at),
        review=[
            SignOffRow(
                run_id=f"{run_id}-signed", sign_off=sha(run_id)[:16], packet_digest=sha("packet"),
                person="ana@example.org", as_role="sre", decision="approve", about=None, conditions=None,
                signed_at=started_at, expires_at=started_at + timedelta(days=30), ledger_head=sha("head"),
                public_key="ssh-ed25519 AAAA", envelope_json="{}", received_at=started_at,
            ),
            LedgerRow(
                chain=sha(run_id)[:16], seq=1, recorded_at=started_at, kind="run", run_id=f"{run_id}-signed",
                payload_json="{}", previous="0" * 64, entry=sha("entry"),
            ),
        ],
        thinnings=[
            ThinningRow(
                run_id=f"{run_id}-old", thinned_at=started_at, after_days=90, keep=0.1, requests_before=100,
                requests_kept=12,
            )
        ],
    )  # fmt: skip
