"""Arms, trials and suites of a run once more: what in them follows from the study, the requests and the samples."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from steelyard.digest import canonical
from steelyard.engines.base import Deployment
from steelyard.engines.identity import deployment_digest
from steelyard.gates.recompute_diff import ABSENT, PRESENT, Difference, Recomputed, skipped_blocks
from steelyard.load.figures import duration, lateness, meets, record_of, trial_figures
from steelyard.load.steady import steady_figures
from steelyard.load.trial import CACHE_HITS, LENGTHS, OUTPUT_TOKENS, invalid_reasons, trial_id
from steelyard.load.workloads import PlannedRequest
from steelyard.records import ArmRow, Row
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.records_trials import EngineMetricRow, RequestRow, TrialRow
from steelyard.study import Arm, LoadPoint, Study
from steelyard.suite_counts import generated_counts, suite_counts

CLIENT_ALONE = ("the client read ", "the client found ")
"""How reasons begin that rest on the client's own lag behind each arrival, which is not stored."""
UNSTORED = (*CLIENT_ALONE, LENGTHS)
"""These and how reasons begin that rest on the planned output lengths: what no row holds of any arm."""
MAYBE_WARM = "its prefix cache could not be reset"
"""The same of what an attached engine answered when it was asked to forget."""


def rebuild_arms(found: Recomputed, study: Study, stored: Sequence[ArmRow], *, whole: bool) -> list[ArmRow]:
    """Arms as the study asks for them. What their engines resolved to is taken as stored.

    The digest is computed again from the stored configuration, but what follows uses the stored one: it is the name
    under which the rows were measured.
    """
    rows = {row.arm: row for row in stored}
    again = [_asked(study, arm, rows.get(arm.name), found.run_id) for arm in study.arms]
    asked = {"role", "lever", "claim", "note", "engine", "args_json", "env_json", "deployment_digest"}
    found.compare(ArmRow, again, stored, skip=_others(ArmRow, asked), whole=whole)
    return [
        dataclasses.replace(row, deployment_digest=rows[row.arm].deployment_digest) for row in again if row.arm in rows
    ]


def _asked(study: Study, arm: Arm, stored: ArmRow | None, run_id: str) -> ArmRow:
    asked: dict[str, Any] = {
        "role": arm.role, "lever": arm.lever, "note": arm.note, "engine": arm.engine,
        "claim": arm.claim.load_point if arm.claim else None,
        "args_json": canonical(dict(arm.args)), "env_json": canonical(dict(arm.env)),
    }  # fmt: skip
    if stored is not None:
        return dataclasses.replace(stored, **asked, deployment_digest=_digest(study, arm, stored))
    return ArmRow(
        run_id=run_id, arm=arm.name, engine_version=None, deployment_digest=None, weights_digest=None,
        tokenizer_digest=None, template_digest=None, resolved_json=None, start_s=None, status="failed", error=None,
        **asked,
    )  # fmt: skip


def _digest(study: Study, arm: Arm, row: ArmRow) -> str | None:
    """The deployment digest of what the row says was served; None if it never was."""
    if row.resolved_json is None:
        return None
    resolved: Mapping[str, Any] = json.loads(row.resolved_json)
    deployment = Deployment(
        arm=arm.name, engine=arm.engine, model_name=study.model.name, weights=study.model.weights,
        tokenizer=study.model.tokenizer or study.model.weights, chat_template=None, args=arm.args, env=arm.env,
        url=arm.url, device=study.hardware.device, weights_digest=row.weights_digest,
        tokenizer_digest=row.tokenizer_digest, template_digest=row.template_digest, faults=arm.faults,
        served_weights_digest=(resolved.get("faults") or {}).get("serve_weights"),
    )  # fmt: skip
    return deployment_digest(deployment, version=row.engine_version, resolved=resolved)


def rebuild_trials(
    found: Recomputed,
    study: Study,
    arms: Sequence[ArmRow],
    trials: Sequence[TrialRow],
    requests: Sequence[RequestRow],
    metrics: Sequence[EngineMetricRow],
    *,
    whole: bool,
) -> list[TrialRow]:
    """Trials from their requests and from the engine's stored counters; a trial without requests is none.

    Taken as stored: when and where in its block a trial ran, the client's CPU time, which deployment answered, and the
    reasons against a trial that rest on what no row holds (`CLIENT_ALONE`, `LENGTHS`, `MAYBE_WARM`); a note counts
    those.
    """
    points = {point.name: point for point in study.load_points}
    places = {
        trial_id(found.run_id, arm.name, name, block): (arm.name, name, block)
        for arm in study.arms for name in points for block in range(study.blocks)
    }  # fmt: skip
    attached = {row.arm for row in arms if row.engine == "attach"}
    asked, counted = _by_trial(requests), _counters(metrics)
    again: list[TrialRow] = []
    checked: list[RequestRow] = []
    placeable: list[TrialRow] = []
    rebuilt: set[str] = {"workload"}
    for row in trials:
        own = (row.arm, row.load_point, row.block)
        identity = trial_id(found.run_id, *own)
        arm, name, block = places.get(row.trial_id, own)
        if row.trial_id not in places and row.trial_id != identity:
            found.differ(row, "trial_id", row.trial_id, identity)
            continue
        if name not in points:
            found.differ(row, "load_point", name, "a load point of the study")
            continue
        placeable.append(row)
        if not asked[row.trial_id]:
            continue
        point, sent = points[name], sorted(asked[row.trial_id], key=lambda each: each.request_index)
        figures = _figures(study, point, sent, counted[row.trial_id], row, attached=arm in attached)
        figures |= {"arm": arm, "workload": point.workload.name, "load_point": name, "block": block}
        rebuilt |= figures.keys()
        again.append(dataclasses.replace(row, **figures))
        slo = study.slo_of(point.workload)
        checked += [
            dataclasses.replace(each, arm=arm, met_slo=meets(record_of(each, point.load), slo)) for each in sent
        ]
    found.compare(TrialRow, again, placeable, skip=_others(TrialRow, rebuilt))
    found.rows["trials"] = len(trials)
    kept = {row.trial_id for row in placeable}
    found.compare(
        RequestRow, checked, [row for row in requests if row.trial_id in kept],
        skip=_others(RequestRow, {"arm", "met_slo"}),
    )  # fmt: skip
    found.once(metrics)
    alone = sum(each.startswith((*UNSTORED, MAYBE_WARM)) for row in again for each in row.invalid_reasons)
    if alone:
        found.notes.append(
            f"trials: {alone} reasons against trials rest on the client's own lag, on the planned output lengths or on "
            "what an engine answered when asked to forget; taken as stored."
        )
    orphans = sorted((asked.keys() | counted.keys()) - {row.trial_id for row in trials})
    names = [f"trial_id {each}" for each in orphans]
    if whole:
        names += skipped_blocks([(row.arm, row.load_point, row.block) for row in again], "load_point")
    found.differences += [
        Difference(table="trials", key=name, column=None, stored=ABSENT, recomputed=PRESENT) for name in names
    ]
    return again


def _figures(
    study: Study, point: LoadPoint, sent: Sequence[RequestRow], counted: Mapping[str, float], row: TrialRow,
    *, attached: bool,
) -> dict[str, Any]:  # fmt: skip
    records = [record_of(each, point.load) for each in sent]
    ended = any(record.end_s is not None for record in records)
    figures = trial_figures(
        records, study.slo_of(point.workload), duration_s=duration(records, 0.0) if ended else row.duration_s
    ) | steady_figures(records, point.load)
    output, cached = counted.get(OUTPUT_TOKENS), counted.get(CACHE_HITS)
    # The prompt itself and the length asked for are not stored; what came is taken for it, and `LENGTHS` as stored.
    planned = [
        PlannedRequest(
            index=each.request_index, prompt="", prompt_hash=each.prompt_hash, prompt_tokens=each.prompt_tokens or 0,
            output_tokens=each.output_tokens or 0, scheduled_s=each.scheduled_s,
        )
        for each in sent
    ]  # fmt: skip

    why = invalid_reasons(
        point, planned, records, lateness=lateness(records), cpu_share=row.client_cpu_share,
        engine_output_tokens=output, cached_tokens=cached,
    )  # fmt: skip
    unstored = (*UNSTORED, MAYBE_WARM) if attached else UNSTORED
    if why == [each for each in row.invalid_reasons if not each.startswith(unstored)]:
        why = row.invalid_reasons
    return {
        **figures,
        "engine_output_tokens": None if output is None else round(output),
        "cached_tokens": None if cached is None else round(cached),
        "valid": not why,
        "invalid_reasons": why,
    }


def rebuild_suites(
    found: Recomputed, study: Study, suites: Sequence[SuiteRow], samples: Sequence[SampleRow]
) -> list[SuiteRow]:
    """Suites from their samples. Route, versions, duration, duplicates and what a judge summed up are as stored.

    Of a suite that mixes generation and likelihoods no sample says which it was, so `empty` is as stored there.
    """
    specs = {suite.name: suite for suite in study.suites}
    answered: dict[tuple[str, str], list[SampleRow]] = defaultdict(list)
    for sample in samples:
        answered[sample.arm, sample.suite].append(sample)
    again = []
    for row in suites:
        spec, own = specs.get(row.suite), answered[row.arm, row.suite]
        if spec is None or (row.documents and not own):
            continue
        counts = {**suite_counts(own), **generated_counts([] if row.route == "loglikelihood" else own)}
        if row.route == "mixed":
            counts["empty"] = row.empty
        again.append(
            dataclasses.replace(row, category=spec.category, task=spec.task, metric=spec.metric, **counts)
        )  # fmt: skip
    rebuilt = {
        "category", "task", "metric", "documents", "answered", "mean_score", "documents_digest", "empty", "truncated",
    }  # fmt: skip
    found.compare(SuiteRow, again, suites, skip=_others(SuiteRow, rebuilt))
    found.once(samples)
    found.rows["samples"] = len(samples)
    for arm, suite in sorted(answered.keys() - {(row.arm, row.suite) for row in suites}):
        # A suite's row is written with its samples, so samples alone are half of something.
        key = f"arm {arm}, suite {suite}"
        found.differences.append(Difference(table="suites", key=key, column=None, stored=ABSENT, recomputed=PRESENT))
    return again


def _by_trial(requests: Iterable[RequestRow]) -> dict[str, list[RequestRow]]:
    found: dict[str, list[RequestRow]] = defaultdict(list)
    for row in requests:
        found[row.trial_id].append(row)
    return found


def _counters(metrics: Iterable[EngineMetricRow]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in metrics:
        found[row.trial_id][row.metric] = row.value
    return found


def _others(table: type[Row], rebuilt: Collection[str]) -> set[str]:
    """The columns that are not rebuilt; the key finds the row, so it counts as neither."""
    names = {each.name for each in dataclasses.fields(table)}  # type: ignore[arg-type]
    return names - set(rebuilt) - set(table.KEY)
