"""Why the figures may be believed, and how to get them again."""

from __future__ import annotations

import json
import statistics
from typing import Any

from steelyard.load.steady import drifts
from steelyard.reports import numerals
from steelyard.reports.facts import Facts
from steelyard.reports.spent import Spent

OFTEN = 1 / 3
"""Share of an arm's trials at a load point from which a mark is more than chance."""


def section(facts: Facts) -> dict[str, Any]:
    """Trials that do not count, the client's own lag, missing samples, contracts and engine starts."""
    invalid = [row for row in facts.trials if not row.valid]
    return {
        "trials": len(facts.trials),
        "invalid": [
            {
                "arm": row.arm,
                "point": row.load_point,
                "block": row.block,
                "reasons": row.invalid_reasons or ["No reason was recorded."],
                "id": row.trial_id,
            }
            for row in sorted(invalid, key=lambda row: (row.arm, row.load_point, row.block))
        ],
        "unsteady": _unsteady(facts),
        "client": [_client(facts, point) for point in facts.load_points if _at(facts, point)],
        "missing": _missing(facts),
        "contracts": [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in facts.contracts],
        "starts": [
            {
                "arm": row.arm,
                "engine": f"{row.engine} {row.engine_version or ''}".strip(),
                "start": numerals.seconds(row.start_s),
                "status": row.status,
                "digest": numerals.short(row.deployment_digest),
                "digest_full": row.deployment_digest,
                "error": row.error,
            }
            for row in (facts.arm_of[name] for name in facts.arm_names)
        ],
        "spent": Spent(facts.wall_times) if facts.wall_times else None,
        "residency": facts.study.residency,
        "residency_reason": facts.study.residency_reason,
    }


def _unsteady(facts: Facts) -> list[dict[str, Any]]:
    """Arms that drift, or are saturated, in a third of their trials at a load point. Fewer may be chance."""
    found = []
    for point in facts.load_points:
        for arm in facts.arm_names:
            rows = [row for row in _at(facts, point) if row.arm == arm]
            marked = [row.itl_drift or 0.0 for row in rows if drifts(row.itl_drift, row.itl_drift_p)]
            # Drifts in both directions are noise.
            drifting = max(([each for each in marked if (each > 0) is up] for up in (True, False)), key=len)
            saturated = [row for row in rows if row.saturated]
            marks = []
            if len(drifting) >= OFTEN * len(rows) and len(drifting) > 1:
                change = statistics.median(drifting)
                marks.append(f"ITL changes by {100 * change:+.0f} % within a trial ({len(drifting)} of {len(rows)})")
            if len(saturated) >= OFTEN * len(rows) and len(saturated) > 1:
                marks.append(f"the queue only grows ({len(saturated)} of {len(rows)})")
            if marks:
                found.append({"arm": arm, "point": point, "marks": "; ".join(marks)})
    return found


def _at(facts: Facts, point: str) -> list[Any]:
    return [row for row in facts.trials if row.load_point == point]


def _client(facts: Facts, point: str) -> dict[str, Any]:
    rows = _at(facts, point)
    late = [row.lateness_p95_s for row in rows if row.lateness_p95_s is not None]
    busy = [row.client_cpu_share for row in rows if row.client_cpu_share is not None]
    counted = [row for row in rows if row.engine_output_tokens is not None]
    agree = sum(row.engine_output_tokens == row.output_tokens for row in counted)
    return {
        "point": point,
        "trials": len(rows),
        "valid": sum(row.valid for row in rows),
        "late": numerals.seconds(max(late)) if late else None,
        "busy": numerals.percent(max(busy)) if busy else None,
        "failed": f"{sum(row.failed for row in rows):,} of {sum(row.requests for row in rows):,}",
        "agree": f"{agree:,} of {len(counted):,}" if counted else None,
    }


def _missing(facts: Facts) -> list[dict[str, Any]]:
    """Suites with unanswered documents, and suites an arm lacks altogether."""
    found = []
    for arm in facts.arm_names:
        if facts.suite_names and not any((arm, suite) in facts.suite_of for suite in facts.suite_names):
            why = "never served" if facts.arm_of[arm].status == "failed" else "no suite was completed"
            found.append({"arm": arm, "suite": "every suite", "missing": "all", "why": why})
            continue
        for suite in facts.suite_names:
            row = facts.suite_of.get((arm, suite))
            if row is None:
                found.append({"arm": arm, "suite": suite, "missing": "all", "why": "the suite was not completed"})
            elif row.answered < row.documents:
                gone = f"{row.documents - row.answered:,} of {row.documents:,}"
                errors = sorted(
                    {s.error for s in facts.samples_of.get(arm, {}).values() if s.suite == suite and s.error}
                )
                found.append({"arm": arm, "suite": suite, "missing": gone, "why": "; ".join(errors[:2])})
    return found


def environment(facts: Facts) -> dict[str, Any]:
    """Everything that pins the run down, and the commands that repeat and re-read it."""
    study = facts.study
    model = facts.asked.get("model") or {}
    base = facts.arm_of.get(facts.baseline or "")
    pins: list[tuple[str, str | None, bool]] = [
        ("run", study.run_id, True),
        ("study digest", study.study_digest, True),
        ("policy digest", study.policy_digest, True),
        ("baseline deployment digest", base.deployment_digest if base else None, True),
        ("weights digest", base.weights_digest if base else None, True),
        ("tokenizer digest", base.tokenizer_digest if base else None, True),
        ("chat template digest", base.template_digest if base else None, True),
        ("model", model.get("name"), False),
        ("seed", str(study.seed), False),
        ("Steelyard", study.steelyard_version, False),
        ("commit", study.git_commit, True),
        ("machine", study.hostname_digest, True),
        ("processor", study.cpu_model, False),
        ("cores", str(study.cpu_count), False),
        ("memory", numerals.size(study.memory_bytes), False),
        ("accelerator", study.accelerator or "none: this run was on the processor", False),
        ("platform", study.platform, False),
        ("Python", study.python_version, False),
    ]
    return {
        "pins": pins,
        "packages": sorted(_packages(study.packages_json).items()),
        "command": facts.command or f"steelyard run {facts.study_path or f'studies/{study.study}'}",
        "arguments": [
            {"arm": row.arm, "args": row.args_json, "env": row.env_json}
            for row in (facts.arm_of[name] for name in facts.arm_names)
        ],
        "sql": verdict_sql(study.run_id),
    }


def _packages(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return {str(key): str(item) for key, item in value.items()} if isinstance(value, dict) else {}


def verdict_sql(run_id: str) -> str:
    """The query, on the published snapshot, for the gates behind every verdict of the run."""
    run = run_id.replace("'", "''")
    return (
        "SELECT v.arm, v.verdict, g.gate, g.scope, g.outcome, g.estimate, g.low, g.high, g.bound, g.n, g.reason\n"
        "FROM verdicts v JOIN gate_results g USING (run_id, arm)\n"
        f"WHERE v.run_id = '{run}'\n"
        "ORDER BY v.arm, g.required DESC, g.outcome, g.gate, g.scope;"
    )
