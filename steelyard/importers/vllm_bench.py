"""`vllm bench serve --save-result --save-detailed`, one result or several appended to one file.

From vllm/benchmarks/serve.py of 0.32; files of older versions lack `start_times`, `latencies` or `failed` and are read
as far as they go. The format has no version and no flag of success: a failed request has no output tokens.
Seconds in the arrays, on the client's own clock; milliseconds in the summary, which is only checked against them.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from steelyard.importers.common import (
    SLACK_S,
    Asked,
    ForeignTrial,
    Imported,
    arm_row,
    failure,
    modified,
    rate_name,
    run_id_of,
    slug,
    study_row,
    trial_rows,
)
from steelyard.importers.fields import Field, integer_at, number_at, text_at
from steelyard.importers.json_source import Source
from steelyard.load.client import OK, RequestRecord

TOOL = "vllm-bench"
SAYS = "vllm bench serve"
ARRAYS = (
    "input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times", "generated_texts",
    "errors",
)  # fmt: skip
NEEDED = ("input_lens", "output_lens", "ttfts")
NO_TOKEN = "Never received a valid chunk"
AGAIN = "Run `vllm bench serve` again with --save-result --save-detailed."
_MARKS = {"output_throughput", "total_output_tokens", "output_lens", "ttfts", "itls", "mean_ttft_ms", "mean_e2el_ms"}


def recognises(data: object) -> bool:
    """Whether a document is such a result, with or without its arrays."""
    if not isinstance(data, dict):
        return False
    return len(_MARKS & data.keys()) >= 2 or ("request_throughput" in data and "duration" in data)


def rows(source: Source, asked: Asked) -> Imported:
    """The rows of a file; one trial for each result in it. InputError, with line and field, for what is malformed."""
    run_id = run_id_of(TOOL, source.digest)
    trials: list[ForeignTrial] = []
    headers: list[dict[str, object]] = []
    models: dict[str, str | None] = {}
    for document in source.documents:
        root = Field.root(document)
        if not recognises(document.data):
            raise root.problem("is no result of vllm bench serve, as the others in the file are.")
        model = text_at(root, "model_id")
        arm = asked.arm or slug(text_at(root, "label") or model, "vllm")
        if models.setdefault(arm, model) != model:
            raise root.need("model_id").problem(
                f"is {model}, but arm {arm} is {models[arm]} before.", "Import the results of each model by itself."
            )
        headers.append({key: value for key, value in document.data.items() if key not in ARRAYS})
        trials.append(_trial(root, source, arm))
    notes = ["Its dates have no time zone and are read as UTC."] if any("date" in header for header in headers) else []
    first = min(trial.started_at for trial in trials)
    last = max(trial.started_at + timedelta(seconds=trial.duration_s or 0.0) for trial in trials)
    stored, requests = trial_rows(run_id, SAYS, trials)
    by_arm = dict(zip((trial.arm for trial in trials), headers, strict=True))
    return Imported(
        study=study_row(
            run_id=run_id, study=asked.name or f"import-{TOOL}", tool=SAYS, content=source.digest,
            header={"tool": SAYS, "file": source.path.name, "results": headers}, started_at=first, finished_at=last,
            seed=None, notes=notes,
        ),
        arms=[arm_row(run_id, arm, tool=SAYS, args=by_arm[arm], model=model) for arm, model in models.items()],
        trials=stored,
        requests=requests,
        notes=notes,
    )  # fmt: skip


def _trial(root: Field, source: Source, arm: str) -> ForeignTrial:
    if root.get("total_input_sequences") is not None or root.get("input_sequence_throughput") is not None:
        raise root.problem("is a benchmark of embeddings, which generate no tokens.", "Import one of a text model.")
    missing = [name for name in NEEDED if root.get(name) is None]
    if missing:
        raise root.problem(
            f"holds no individual requests ({', '.join(missing)} missing), only summaries, whose percentiles cannot be "
            "recomputed or refused.",
            AGAIN,
        )
    arrays = {name: found for name in ARRAYS if (found := root.get(name)) is not None}
    count = len(arrays["output_lens"].items())
    for array in arrays.values():
        if len(array.items()) != count:
            raise array.problem(f"has {len(array.items())} entries, output_lens has {count}: one request, one entry.")
    if count == 0:
        raise arrays["output_lens"].problem("holds no request.", AGAIN)
    ramp, rate = _ramp(root), _rate(root)
    open_loop = ramp is not None or rate is not None
    slots = root.get("max_concurrency")
    concurrency = None if slots is None else slots.integer(1)
    records = _records(arrays, count, open_loop=open_loop)
    notes = [*_checked(root, records), *_notes(arrays, open_loop, concurrency)]
    if ramp is not None:
        notes.append("its rate was ramped up, so no figure is of a steady load")
    load = ramp or (f"c{min(concurrency or count, count)}" if rate is None else rate_name(rate))
    duration_s = number_at(root, "duration")
    if duration_s is None and "start_times" not in arrays:
        root.need("duration", remedy=AGAIN)
    return ForeignTrial(
        arm=arm,
        workload=TOOL,
        load=load,
        started_at=_date(root, source) - timedelta(seconds=duration_s or 0.0),
        records=records,
        prompt_tokens=[item.integer() for item in arrays["input_lens"].items()],
        open_loop=open_loop,
        scheduled=open_loop and "queue_times" in arrays and "start_times" in arrays,
        placed="start_times" in arrays,
        duration_s=duration_s,
        notes=notes,
    )


def _rate(root: Field) -> float | None:
    """The rate that arrivals follow, None without one."""
    asked = root.get("request_rate")
    if asked is None or asked.data == "inf":
        return None
    rate = asked.number()
    if rate == 0:
        raise asked.problem("is 0: no request would ever be sent.")
    return rate


def _ramp(root: Field) -> str | None:
    """The load of a rate that was ramped up, such as `ramp1-20`; None if it was not. vLLM then says the rate is inf."""
    if root.get("ramp_up_strategy") is None:
        return None
    first, last = (root.need(f"ramp_up_{end}_rps").number() for end in ("start", "end"))
    return f"ramp{rate_name(first)[1:]}-{rate_name(last)[1:]}"


def _records(arrays: dict[str, Field], count: int, *, open_loop: bool) -> list[RequestRecord]:
    lens = [item.integer() for item in arrays["output_lens"].items()]
    ttfts = arrays["ttfts"].numbers()
    starts = arrays["start_times"].numbers() if "start_times" in arrays else [0.0] * count
    waits = arrays["queue_times"].numbers(-SLACK_S) if "queue_times" in arrays else [0.0] * count
    if "start_times" not in arrays:
        waits = [0.0] * count
    gaps = [item.numbers() for item in arrays["itls"].items()] if "itls" in arrays else [[] for _ in range(count)]
    whole = arrays["latencies"].items() if "latencies" in arrays else None
    errors = [_error(item) for item in arrays["errors"].items()] if "errors" in arrays else [""] * count
    # In a closed loop everything is asked for at the start and waits for a slot: only the sending says when.
    due = [start - max(wait, 0.0) if open_loop else start for start, wait in zip(starts, waits, strict=True)]
    origin = min(due)
    records = []
    for n in range(count):
        sent = starts[n] - origin
        good = lens[n] > 0 and not errors[n]
        streamed = ttfts[n] > 0
        # Of a traceback the last line says what happened; the others hold names such as `timeout`.
        said = errors[n].strip().rpartition("\n")[2]
        times = list(itertools.accumulate(gaps[n], initial=sent + ttfts[n])) if streamed else []
        latency = whole[n].number() if whole is not None else 0.0
        end = None
        if whole is not None and good and streamed and sent + latency < times[-1] - SLACK_S:
            raise whole[n].problem(
                f"is {latency:g} s, but the last token came after {times[-1] - sent:g} s: times out of order."
            )
        if good and whole is not None:
            end = max([sent + latency, *times[-1:]])
        elif good and "itls" in arrays and times:
            end = times[-1]
        scheduled = due[n] - origin if "start_times" in arrays else 0.0
        records.append(
            RequestRecord(
                index=n,
                scheduled_s=scheduled,
                sent_s=sent,
                origin_s=scheduled if open_loop else sent,
                first_token_s=times[0] if times else None,
                # Without the gaps the last token is unknown, and an ITL of 0 would be a lie.
                token_times_s=times if "itls" in arrays else [],
                end_s=end,
                output_tokens=lens[n] if good else None,
                status=OK if good else failure("" if said.startswith(NO_TOKEN) else said, None, streamed=streamed),
                error=None if good else said or None,
            )
        )
    return records


def _error(item: Field) -> str:
    return "" if item.data is None else item.string()


def _checked(root: Field, records: list[RequestRecord]) -> list[str]:
    """The summary against the requests: what does not add up was damaged. Returns what a reader must know."""
    good = [record for record in records if record.status == OK]
    completed, failed = integer_at(root, "completed"), integer_at(root, "failed")
    if completed is not None and failed is not None and completed + failed != len(records):
        raise root.need("completed").problem(
            f"and `failed` say {completed + failed} requests, the arrays hold {len(records)}."
        )
    if completed is not None and not len(good) <= completed <= len(records):
        raise root.need("completed").problem(
            f"says {completed} completed requests, the arrays hold {len(good)} of {len(records)}."
        )
    tokens = integer_at(root, "total_output_tokens")
    if tokens is not None and tokens != sum(record.output_tokens or 0 for record in good):
        raise root.need("total_output_tokens").problem(
            f"says {tokens}, but output_lens of completed requests sum up to "
            f"{sum(record.output_tokens or 0 for record in good)}."
        )
    notes = []
    if completed is not None and completed > len(good):
        notes.append(f"{completed - len(good)} requests that vLLM counts as completed brought no token and are failed")
    asked = integer_at(root, "num_prompts")
    if asked is not None and asked != len(records):
        notes.append(f"{asked} prompts were asked for, {len(records)} were sent")
    return notes


def _notes(arrays: dict[str, Field], open_loop: bool, concurrency: int | None) -> list[str]:
    notes = []
    if "start_times" not in arrays:
        notes.append("the file has no start_times, so its requests are not stored one by one")
    if "itls" not in arrays:
        notes.append("the file has no itls, so the inter-token latency is unknown")
    if open_loop and not ("queue_times" in arrays and "start_times" in arrays):
        notes.append("the file has no queue_times: latencies count from sending, which hides waiting in the client")
    if open_loop and concurrency is not None:
        notes.append(f"at most {concurrency} requests were in flight, so the rate may not have been reached")
    return notes


def _date(root: Field, source: Source) -> datetime:
    """When the result was written: at the end of the benchmark, in a time zone it does not name."""
    date = root.get("date")
    if date is None:
        return modified(source.path)
    try:
        return datetime.strptime(date.string(), "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise date.problem(f'is "{date.data}", no date such as 20261122-020742.') from None
