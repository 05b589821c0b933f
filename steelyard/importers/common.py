"""What every importer shares: a foreign trial before it is a row, how it becomes one, and the run around it.

Nothing made here may ever be judged: no trial is valid, the run's status, the arms' role and status and the prefix of
every deployment digest are `imported`, which no gate knows (docs/decisions/0008).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import steelyard
from steelyard.digest import canonical, digest
from steelyard.environment import git_commit
from steelyard.errors import InputError
from steelyard.load.client import OK, RequestRecord
from steelyard.load.figures import trial_figures
from steelyard.load.trial import trial_id
from steelyard.records import ArmRow, StudyRow
from steelyard.records_quality import SampleRow, SuiteRow
from steelyard.records_trials import RequestRow, TrialRow
from steelyard.study import Slo

IMPORTED = "imported"
"""Status of the run and of its arms, and the arms' role."""
SLACK_S = 0.001
"""Clocks of one request may contradict each other by so much: tools round, and stamp an end before its last chunk."""
ERROR_CHARACTERS = 500

# The figures ask for a limit; what they say of it is dropped, because no file knows the SLO of a study.
_NO_SLO = Slo(ttft_s=None, itl_s=None, e2e_s=1.0)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_INLINE = re.compile(
    r"((?:api[_-]?key|\b(?:auth|access|hf|bearer)?[_-]?token|secret|password|authorization)\s*[=:]\s*(?:bearer\s+)?)"
    r"[^\s,;&\"']+",
    re.IGNORECASE,
)
"""A secret within a text, such as lm-eval's `model_args` or a command line."""
_SECRET = re.compile(r"api_?key|token$|secret|password|authorization|credential|headers?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignTrial:
    """One load point of a foreign file, in our definitions. Moments of `records` are seconds since any one origin.

    `placed` is False where the file has no start times: each request then counts from its own sending, and no request
    row is made. `duration_s` is only used where the requests themselves do not tell it.
    """

    arm: str
    workload: str
    load: str
    started_at: datetime
    records: Sequence[RequestRecord]
    prompt_tokens: Sequence[int | None]
    open_loop: bool
    scheduled: bool
    placed: bool = True
    duration_s: float | None = None
    cached_tokens: int | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A foreign run as rows, ready to be stored together. `notes` are what a reader must know of all of it."""

    study: StudyRow
    arms: list[ArmRow]
    trials: list[TrialRow] = field(default_factory=list)
    requests: list[RequestRow] = field(default_factory=list)
    suites: list[SuiteRow] = field(default_factory=list)
    samples: list[SampleRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How the user wants the run and its arm called; None leaves it to the file."""

    name: str | None = None
    arm: str | None = None

    def __post_init__(self) -> None:
        for flag, value in (("--as", self.name), ("--arm", self.arm)):
            if value is not None and not _NAME.fullmatch(value):
                raise InputError(
                    f"`{value}` is no name.",
                    remedy="Use lower-case letters, digits, - and _, at most 63, no space.",
                    field=flag,
                )


def slug(text: str | None, otherwise: str) -> str:
    """A name as studies use them, made from any text."""
    last = (text or "").rstrip("/").rsplit("/", 1)[-1]
    found = re.sub(r"[^a-z0-9_-]+", "-", last.lower()).strip("-_")[:63]
    return found or otherwise


def run_id_of(tool: str, content: str) -> str:
    """The id of a foreign run: the same file, packed or not, under whatever name, has the same one."""
    return f"import-{tool}-{content[:16]}"


def deployment_digest(run_id: str, arm: str) -> str:
    """Stands for a deployment nobody hashed. Its prefix keeps it apart from every digest of a served one."""
    return f"{IMPORTED}-{digest([run_id, arm])}"


def public(value: Any) -> Any:
    """A value of a foreign file as canonical JSON can hold it, with what may be a secret taken out."""
    if isinstance(value, Mapping):
        return {
            str(key): "(removed)" if _SECRET.search(str(key)) and item is not None else public(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [public(item) for item in value]
    if isinstance(value, str):
        return _INLINE.sub(r"\1(removed)", value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def moment(seconds: float) -> datetime:
    """Seconds since 1970 as a moment. ValueError outside of the years a warehouse can hold."""
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError(f"{seconds:g} s after 1970 is no date") from None


def modified(path: Path) -> datetime:
    """When the file was last written: all that is known where a tool gives no date."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def study_row(
    *,
    run_id: str,
    study: str,
    tool: str,
    content: str,
    header: Mapping[str, Any],
    started_at: datetime,
    finished_at: datetime | None,
    seed: int | None,
    notes: Sequence[str],
    python_version: str | None = None,
    platform: str | None = None,
    packages: Mapping[str, str] | None = None,
) -> StudyRow:
    """The run. What the file does not tell of its machine stays unknown: ours measured nothing."""
    reason = f"Measured by {tool}, not by Steelyard: for reading, never compared or judged."
    return StudyRow(
        run_id=run_id,
        study=study,
        owner=IMPORTED,
        study_digest=content,
        policy_digest=digest({}),
        study_json=canonical(public(header)),
        policy_json="{}",
        seed=seed,
        blocks=0,
        residency=IMPORTED,
        residency_reason=None,
        started_at=started_at,
        finished_at=finished_at,
        status=IMPORTED,
        reason=" ".join([reason, *notes]),
        steelyard_version=steelyard.__version__,
        git_commit=git_commit(Path(__file__).parent),
        hostname_digest="unknown",
        cpu_model=None,
        cpu_count=None,
        memory_bytes=None,
        accelerator=None,
        platform=platform or "unknown",
        python_version=python_version or "unknown",
        packages_json=canonical(dict(packages or {})),
    )


def arm_row(run_id: str, arm: str, *, tool: str, args: Mapping[str, Any], model: str | None) -> ArmRow:
    """The arm: no role in any study, and no deployment digest, since nobody hashed what served."""
    return ArmRow(
        run_id=run_id, arm=arm, role=IMPORTED, lever=None, claim=None,
        note=f"{model or 'An unnamed model'}, measured by {tool}.", engine="unknown", engine_version=None,
        deployment_digest=None, weights_digest=None, tokenizer_digest=None, template_digest=None,
        args_json=canonical(public(args)), env_json="{}", resolved_json=None, start_s=None, status=IMPORTED,
        error=None, model=model,
    )  # fmt: skip


def trial_rows(run_id: str, tool: str, trials: Sequence[ForeignTrial]) -> tuple[list[TrialRow], list[RequestRow]]:
    """Rows of all trials of a file. Trials of one arm and load point are numbered in `block`, which pairs nothing."""
    rows: list[TrialRow] = []
    requests: list[RequestRow] = []
    met: Counter[tuple[str, str]] = Counter()
    for trial in trials:
        point = f"{trial.workload}@{trial.load}"
        block = met[trial.arm, point]
        met[trial.arm, point] += 1
        row, own = _trial(run_id, tool, trial, point, block)
        rows.append(row)
        requests += own
    return rows, requests


def _trial(run_id: str, tool: str, trial: ForeignTrial, point: str, block: int) -> tuple[TrialRow, list[RequestRow]]:
    records = trial.records
    good = [record for record in records if record.status == OK]
    tokens_of = dict(zip((record.index for record in records), trial.prompt_tokens, strict=True))
    # The code of our own trials, so that a figure means the same; what no file can tell of it is unknown.
    figures = trial_figures(records, _NO_SLO, duration_s=_duration(trial))
    figures.update(goodput_per_s=None, slo_tokens_per_s=None, slo_share=None)
    figures["input_tokens"] = _total([tokens_of[r.index] if r.input_tokens is None else r.input_tokens for r in good])
    if _total([record.output_tokens for record in good]) is None:
        figures.update(output_tokens=None, output_tokens_per_s=None)
    if not trial.scheduled:
        figures["lateness_p95_s"] = None
    row = TrialRow(
        trial_id=trial_id(run_id, trial.arm, point, block),
        run_id=run_id,
        arm=trial.arm,
        deployment_digest=deployment_digest(run_id, trial.arm),
        workload=trial.workload,
        load_point=point,
        block=block,
        position=0,
        started_at=trial.started_at,
        cached_tokens=trial.cached_tokens,
        client_cpu_share=None,
        engine_output_tokens=None,
        valid=False,
        invalid_reasons=[f"imported from {tool}: no block of arms was measured together", *trial.notes],
        **figures,
    )
    return row, [_request(row, record, tokens_of[record.index]) for record in records] if trial.placed else []


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _duration(trial: ForeignTrial) -> float:
    """From the first scheduled request to the last end, as in our own trials; the tool's figure where none ended."""
    ends = [record.end_s for record in trial.records if record.end_s is not None]
    if trial.placed and ends:
        return max(ends) - min(record.scheduled_s for record in trial.records)
    return trial.duration_s or 0.0


def _request(trial: TrialRow, record: RequestRecord, prompt_tokens: int | None) -> RequestRow:
    return RequestRow(
        trial_id=trial.trial_id,
        request_index=record.index,
        run_id=trial.run_id,
        arm=trial.arm,
        deployment_digest=trial.deployment_digest,
        # The tools keep no prompts; this names the request within its file and equals no other prompt's hash.
        prompt_hash=digest([trial.trial_id, record.index]),
        scheduled_s=record.scheduled_s,
        sent_s=record.sent_s,
        first_token_s=record.first_token_s,
        end_s=record.end_s,
        token_times_s=record.token_times_s,
        prompt_tokens=prompt_tokens,
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        status=record.status,
        error=None if record.status == OK else (record.error or "the file gives no reason")[:ERROR_CHARACTERS],
        finish_reason=record.finish_reason,
        met_slo=None,
    )


def failure(text: str, code: int | None, *, streamed: bool) -> str:
    """Our status of a failed request, from what the tool says of it."""
    lower = text.lower()
    if "timeout" in lower or "timed out" in lower or code == 408:
        return "timeout"
    if any(each in lower for each in ("refused", "connectorerror", "cannot connect", "connecterror")):
        return "refused"
    if streamed:
        return "broken_stream"
    return "http_error" if text or code else "no_tokens"


def most_at_once(records: Sequence[RequestRecord]) -> int:
    """Most requests that were in flight at the same time, at least 1."""
    moments: list[tuple[float, int]] = []
    for record in records:
        if record.sent_s is not None and record.end_s is not None:
            moments += [(record.sent_s, 1), (record.end_s, -1)]
    most = now = 0
    # An end and a sending at the same moment are a slot handed on, so ends come first.
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return max(most, 1)


def several(count: int, what: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def rate_name(rate: float) -> str:
    """`r4` or `r0.25`: a rate as load points name it."""
    return f"r{rate:g}".replace("e+", "e")
