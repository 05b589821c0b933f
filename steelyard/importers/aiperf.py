"""AIPerf's `profile_export.jsonl`: one line a request; the summary beside it, if there, names model and load.

From aiperf/common/metric_records_wire.py and docs/tutorials/working-with-profile-exports.md of 0.4 to 0.13. Moments
are nanoseconds since 1970, metrics carry their own unit. Only records of the phase `profiling` count. A conversation
of several turns is several requests.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steelyard.errors import InputError
from steelyard.importers.common import (
    SLACK_S,
    Asked,
    ForeignTrial,
    Imported,
    arm_row,
    failure,
    modified,
    moment,
    most_at_once,
    rate_name,
    run_id_of,
    several,
    slug,
    study_row,
    trial_rows,
)
from steelyard.importers.fields import Field, integer_at, number_at, text_at
from steelyard.importers.json_source import Source, read
from steelyard.load.client import OK, RequestRecord

TOOL = "aiperf"
SAYS = "AIPerf"
PROFILING = "profiling"
AGAIN = "Give profile_export.jsonl; AIPerf writes it with --export-level records, its default."
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0, "milliseconds": 1e-3}
OUTPUT_TOKENS = ("usage_completion_tokens", "output_sequence_length", "output_token_count")
INPUT_TOKENS = ("usage_prompt_tokens", "input_sequence_length", "error_isl")


def recognises(data: object) -> bool:
    """Whether a document is one record of the export."""
    metadata = data.get("metadata") if isinstance(data, dict) else None
    return isinstance(metadata, dict) and bool({"request_start_ns", "benchmark_phase", "session_num"} & metadata.keys())


def recognises_summary(data: object) -> bool:
    """Whether a document is the summary, `profile_export_aiperf.json`, which has no individual requests."""
    if not isinstance(data, dict):
        return False
    blocks = [data.get(name) for name in ("request_latency", "request_throughput", "time_to_first_token")]
    return any(isinstance(block, dict) and "unit" in block for block in blocks)


def rows(source: Source, asked: Asked) -> Imported:
    """The rows of an export: one trial. InputError, with line and field, for what is malformed."""
    records = [Field.root(document) for document in source.documents]
    for record in records:
        if not recognises(record.data):
            raise record.problem("is no record of AIPerf, as the others in the file are.")
    counted = [each for each in records if _phase(each) == PROFILING]
    if not counted:
        raise records[0].need("metadata").problem("no record of the file is of the phase `profiling`.", AGAIN)
    _unique(counted)
    summary = _beside(source)
    settings = _settings(summary)
    run_id = run_id_of(TOOL, source.digest)
    arm = asked.arm or slug(_model(settings), TOOL)
    rate, slots = settings.get("request_rate"), settings.get("concurrency")
    open_loop = isinstance(rate, (int, float)) and not isinstance(rate, bool) and rate > 0
    trial = _trial(counted, source, arm, float(rate) if open_loop and rate else None, slots)
    notes = []
    if len(counted) < len(records):
        notes.append(f"{several(len(records) - len(counted), 'record')} of other phases, such as warm-up, left out.")
    if summary is None:
        notes.append("No summary lay beside the file, so model, load and number of requests are not confirmed.")
    elif (made := _made(summary)) is not None and made > len(counted):
        raise InputError(
            f"holds {len(counted)} requests, the summary beside it counts {made}: lines are missing.",
            remedy="Copy both files again.", file=source.file, line=source.documents[-1].first_line,
        )  # fmt: skip
    version = _known_version(summary)
    tool = f"{SAYS} {version}" if version else SAYS
    stored, requests = trial_rows(run_id, tool, [trial])
    seed = settings.get("random_seed")
    return Imported(
        study=study_row(
            run_id=run_id, study=asked.name or f"import-{TOOL}", tool=tool, content=source.digest,
            header={"tool": tool, "file": source.path.name, "summary": summary.data if summary is not None else None},
            started_at=trial.started_at, finished_at=None, seed=seed if type(seed) is int and seed >= 0 else None,
            notes=notes, packages={"aiperf": version} if version else None,
        ),
        arms=[arm_row(run_id, arm, tool=tool, args=settings, model=_model(settings))],
        trials=stored,
        requests=requests,
        notes=notes,
    )  # fmt: skip


def _phase(record: Field) -> str:
    """Files of the first versions, which knew only one phase, do not name it."""
    found = text_at(record, "metadata", "benchmark_phase")
    return PROFILING if found is None else found


def _unique(records: list[Field]) -> None:
    seen: dict[str, Field] = {}
    for each in records:
        identity = text_at(each, "metadata", "x_request_id")
        if identity is None:
            continue
        if identity in seen:
            first = seen[identity].document.first_line
            raise each.need("metadata", "x_request_id").problem(f"{identity} is also that of line {first}.")
        seen[identity] = each


def _trial(records: list[Field], source: Source, arm: str, rate: float | None, slots: Any) -> ForeignTrial:
    open_loop = rate is not None
    # In the order of sending: the file is in the order of ending.
    ordered = sorted(records, key=lambda each: each.need("metadata", "request_start_ns").integer())
    starts = [each.need("metadata", "request_start_ns").integer() for each in ordered]
    issued = [integer_at(each, "metadata", "credit_issued_ns") for each in ordered]
    for each, start, credit in zip(ordered, starts, issued, strict=True):
        if open_loop and credit is not None and credit > start + SLACK_S * 1e9:
            raise each.need("metadata", "credit_issued_ns").problem("lies after request_start_ns: times out of order.")
    due = [
        start if credit is None or not open_loop else min(credit, start)
        for start, credit in zip(starts, issued, strict=True)
    ]
    origin = min(due)
    made = [_record(n, each, due[n], origin, open_loop=open_loop) for n, each in enumerate(ordered)]
    notes = []
    if rate is not None:
        load = rate_name(rate)
        if None in issued:
            notes.append("not every record has credit_issued_ns: latencies count from sending where it is missing")
    elif type(slots) is int and slots > 0:
        load = f"c{slots}"
    else:
        load = f"c{most_at_once(made)}"
        notes.append("the load is not known: it is the most requests in flight at once, and latencies are from sending")
    missing = _gaps(ordered)
    if missing:
        notes.append(f"{missing} request numbers are missing in the file: requests were lost or never recorded")
    return ForeignTrial(
        arm=arm,
        workload=TOOL,
        load=load,
        started_at=modified(source.path) if origin < 86_400 * 10**9 else _moment(ordered[0], origin),
        records=made,
        prompt_tokens=[_count(each, INPUT_TOKENS) for each in ordered],
        open_loop=open_loop,
        scheduled=open_loop and None not in issued,
        notes=notes,
    )  # fmt: skip


def _gaps(records: list[Field]) -> int:
    numbers = [integer_at(each, "metadata", "request_num") for each in records]
    known = {number for number in numbers if number is not None}
    return max(known) + 1 - len(known) if known and len(known) == len(numbers) else 0


def _moment(record: Field, ns: int) -> Any:
    try:
        return moment(ns / 1e9)
    except ValueError as error:
        raise record.need("metadata", "request_start_ns").problem(f"cannot be: {error}.") from None


def _record(index: int, record: Field, due: int, origin: int, *, open_loop: bool) -> RequestRecord:
    start = record.need("metadata", "request_start_ns").integer()
    end = record.need("metadata", "request_end_ns").integer()
    if end < start:
        raise record.need("metadata", "request_end_ns").problem(
            f"lies {(start - end) / 1e9:.6g} s before request_start_ns: times out of order."
        )
    sent, ended = (start - origin) / 1e9, (end - origin) / 1e9
    scheduled = (due - origin) / 1e9
    times = _times(record, sent, ended)
    tokens = _count(record, OUTPUT_TOKENS)
    error = record.get("error")
    cancelled = record.get("metadata", "was_cancelled")
    if cancelled is not None and not isinstance(cancelled.data, bool):
        raise cancelled.wrong("true or false")
    stopped = cancelled is not None and cancelled.data is True
    good = error is None and not stopped and tokens != 0 and _has_metrics(record)
    why, code = _why(error, stopped=stopped)
    first = _seconds(record, "time_to_first_token")
    return RequestRecord(
        index=index,
        scheduled_s=scheduled,
        sent_s=sent,
        origin_s=scheduled if open_loop else sent,
        first_token_s=None if first is None else sent + first,
        token_times_s=times,
        end_s=max([ended, *times[-1:]]),
        input_tokens=_count(record, ("usage_prompt_tokens",)),
        output_tokens=tokens if good else None,
        status=OK if good else failure(why, code, streamed=bool(times) or stopped),
        error=None if good else why or "no token came",
    )


def _has_metrics(record: Field) -> bool:
    found = record.get("metrics")
    return found is not None and any(found.get(name) is not None for name in (*OUTPUT_TOKENS, "request_latency"))


def _why(error: Field | None, *, stopped: bool) -> tuple[str, int | None]:
    if error is None:
        return ("cancelled by AIPerf" if stopped else ""), None
    if isinstance(error.data, str):
        return error.string(), None
    code = error.get("code")
    text = ": ".join(each for each in (text_at(error, "type"), text_at(error, "message")) if each)
    return text or f"error {code.data if code is not None else 'without a name'}", code.integer() if code else None


def _times(record: Field, sent: float, ended: float) -> list[float]:
    """When each chunk came: the first, then the gaps; or only the first and the last, if that is all the file tells."""
    first = _seconds(record, "time_to_first_token")
    if first is None:
        return []
    gaps = record.get("metrics", "inter_chunk_latency")
    if gaps is not None:
        values = [value * _unit(gaps) for value in gaps.need("value").numbers()]
        times = list(itertools.accumulate(values, initial=sent + first))
    else:
        whole = _seconds(record, "request_latency")
        if whole is None:
            # With the first token alone the span to the last is unknown, and an ITL of 0 would be a lie.
            return []
        if whole < first - SLACK_S:
            raise record.need("metrics", "request_latency").problem("is less than time_to_first_token.")
        times = [sent + first, sent + max(whole, first)]
    if times[-1] > ended + SLACK_S:
        at = gaps or record.need("metrics", "time_to_first_token")
        raise at.problem(f"puts the last token {times[-1] - ended:.6g} s after request_end_ns: times out of order.")
    return times


def _seconds(record: Field, tag: str) -> float | None:
    found = record.get("metrics", tag) if record.get("metrics") is not None else None
    return None if found is None else found.need("value").number() * _unit(found)


def _unit(metric: Field) -> float:
    unit = metric.need("unit")
    factor = SECONDS.get(unit.string().lower())
    if factor is None:
        raise unit.problem(f'is "{unit.data}", no unit of time.', f"Units known are {', '.join(SECONDS)}.")
    return factor


def _count(record: Field, tags: tuple[str, ...]) -> int | None:
    if record.get("metrics") is None:
        return None
    for tag in tags:
        if (found := record.get("metrics", tag)) is not None:
            return found.need("value").integer()
    return None


def _beside(source: Source) -> Field | None:
    """The summary of the same export, `NAME_aiperf.json` beside `NAME.jsonl`, if it is one."""
    stem = source.path.name.removesuffix(".gz").removesuffix(".jsonl")
    for name in (f"{stem}_aiperf.json", f"{stem}_aiperf.json.gz"):
        path: Path = source.path.with_name(name)
        if path.is_file():
            document = read(path).documents[0]
            if recognises_summary(document.data):
                return Field.root(document)
    return None


def _known_version(summary: Field | None) -> str | None:
    """The version of AIPerf. InputError for a summary of another major schema version."""
    if summary is None:
        return None
    schema = text_at(summary, "schema_version")
    if schema is not None and schema.split(".")[0] != "1":
        raise summary.need("schema_version").problem(f"is {schema}; 1.x is known.", "Use a newer Steelyard.")
    return text_at(summary, "aiperf_version")


def _made(summary: Field) -> int | None:
    counts = [number_at(summary, name, "avg") for name in ("request_count", "error_request_count")]
    return None if counts[0] is None else round(sum(count for count in counts if count is not None))


def _settings(summary: Field | None) -> dict[str, Any]:
    """What the run was asked for, flattened: versions differ in where they put a setting, not in its name."""
    if summary is None:
        return {}
    found: dict[str, Any] = {}
    for name in ("input_config", "config", "run_info"):
        section = summary.data.get(name)
        for key, value in (*_profiled(section), *_leaves(section)):
            found.setdefault(key, value)
    return found


def _profiled(section: Any) -> Iterator[tuple[str, Any]]:
    """The load of the profiling phase and the models, where a configuration lists phases and models."""
    if not isinstance(section, Mapping):
        return
    phases, models = section.get("phases"), section.get("models")
    named = phases.values() if isinstance(phases, Mapping) else phases if isinstance(phases, list) else ()
    own = phases.get("profiling") if isinstance(phases, Mapping) else None
    profiling = own or next(
        (each for each in named if isinstance(each, Mapping) and each.get("name") == "profiling"), {}
    )
    if isinstance(profiling, Mapping):
        for key in ("rate", "request_rate", "concurrency"):
            if profiling.get(key) is not None:
                yield "request_rate" if key == "rate" else key, profiling[key]
    items = models.get("items") if isinstance(models, Mapping) else None
    first = items[0] if isinstance(items, list) and items else None
    if isinstance(first, Mapping) and isinstance(first.get("name"), str):
        yield "model_name", first["name"]


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    for key, item in value.items() if isinstance(value, Mapping) else ():
        if isinstance(item, Mapping):
            yield from _leaves(item)
        elif item is not None:
            yield str(key), item


def _model(settings: Mapping[str, Any]) -> str | None:
    for name in ("model_names", "models", "model_name", "model"):
        value = settings.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str):
            return value
    return None
