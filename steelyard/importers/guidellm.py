"""GuideLLM's `benchmarks.json`, schema versions 1 and 2: one trial for each benchmark of the report.

From guidellm/schemas (request_stats.py, info.py) and benchmark/schemas of 0.4 to 0.8. Everything is computed from the
moments of each request (seconds since 1970), never from GuideLLM's own summaries: its time_per_output_token includes
the first token, and its request_latency leaves out how late the request was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from steelyard.importers.fields import Field, first_text, integer_at, number_at, text_at
from steelyard.importers.json_source import Source
from steelyard.load.client import OK, RequestRecord

TOOL = "guidellm"
SAYS = "GuideLLM"
VERSIONS = (1, 2)
GROUPS = ("successful", "incomplete", "errored")
AGAIN = "Run GuideLLM again keeping every request: without --sample-requests, or sample_size in the scenario."
OPEN = {"constant", "poisson", "async", "trace", "replay"}
KEPT = ("config", "scheduler_state", "scheduler_metrics")
CUT_OFF = "cut off by GuideLLM when the benchmark ended"


def recognises(data: object) -> bool:
    """Whether a document is such a report."""
    return isinstance(data, dict) and "benchmarks" in data and bool({"metadata", "config", "args"} & data.keys())


def rows(source: Source, asked: Asked) -> Imported:
    """The rows of a report. InputError, with line and field, for what is malformed or has no individual requests."""
    root = Field.root(source.documents[0])
    if len(source.documents) > 1:
        raise Field.root(source.documents[1]).problem("is a second document: a report is one.")
    version = _version(root)
    run_id = run_id_of(TOOL, source.digest)
    benchmarks = root.need("benchmarks").items()
    if not benchmarks:
        raise root.need("benchmarks").problem("holds no benchmark.", "Let GuideLLM finish one.")
    model = _model(root)
    arm = asked.arm or slug(model, TOOL)
    trials = [_trial(benchmark, arm, source) for benchmark in benchmarks]
    seed = next((seed for each in benchmarks if (seed := integer_at(_strategy(each), "random_seed")) is not None), None)
    own = text_at(root, "metadata", "guidellm_version") if root.get("metadata") else None
    tool = f"{SAYS} {own}" if own else SAYS
    notes = [] if version is not None else ["The report names no schema version and is read as version 1."]
    stored, requests = trial_rows(run_id, tool, trials)
    header = {
        "tool": tool,
        "file": source.path.name,
        **{key: value for key, value in root.data.items() if key != "benchmarks"},
        "benchmarks": [
            {key: each.data.get(key) for key in ("config", "scheduler_state", "scheduler_metrics")}
            for each in benchmarks
        ],
    }
    return Imported(
        study=study_row(
            run_id=run_id, study=asked.name or f"import-{TOOL}", tool=tool, content=source.digest, header=header,
            started_at=min(trial.started_at for trial in trials), finished_at=None, seed=seed, notes=notes,
            python_version=text_at(root, "metadata", "python_version") if root.get("metadata") else None,
            platform=text_at(root, "metadata", "platform") if root.get("metadata") else None,
            packages={"guidellm": own} if own else None,
        ),
        arms=[arm_row(run_id, arm, tool=tool, args=_arguments(root), model=model)],
        trials=stored,
        requests=requests,
        notes=notes,
    )  # fmt: skip


def _version(root: Field) -> int | None:
    found = root.get("metadata", "version") if root.get("metadata") else None
    if found is None:
        return None
    version = found.integer()
    if version not in VERSIONS:
        raise found.problem(
            f"is {version}; schema versions {', '.join(map(str, VERSIONS))} are known.",
            "Use a GuideLLM that writes one of those, or a newer Steelyard.",
        )
    return version


def _arguments(root: Field) -> Mapping[str, Any]:
    for name in ("config", "args"):
        if (found := root.get(name)) is not None and isinstance(found.data, dict):
            return found.data
    return {}


def _model(root: Field) -> str | None:
    backend = ("backend", "model")
    first = Field(root.document, ("benchmarks", 0), root.data["benchmarks"][0])
    return first_text(root, *((place, *backend) for place in ("config", "args"))) or first_text(
        root, ("config", "spec", *backend), ("config", "spec", "model"), ("args", "model"),
        ("args", "backend_kwargs", "model"),
    ) or first_text(first, ("config", *backend), ("config", "backend", "args", "model"))  # fmt: skip


def _strategy(benchmark: Field) -> Field:
    return benchmark.get("config", "strategy") or Field(benchmark.document, (*benchmark.loc, "config", "strategy"), {})


def _trial(benchmark: Field, arm: str, source: Source) -> ForeignTrial:
    groups = benchmark.need("requests", remedy=AGAIN)
    lists = {name: found.items() if (found := groups.get(name)) is not None else [] for name in GROUPS}
    strategy = _strategy(benchmark)
    kind = (first_text(strategy, ("type_",), ("kind",), ("type",)) or "").removeprefix("async_")
    rate, streams = number_at(strategy, "rate"), integer_at(strategy, "streams")
    open_loop = kind in OPEN or (not kind and rate is not None)
    window = _window(benchmark)
    inside = {name: [each for each in found if _counts(each, window)] for name, found in lists.items()}
    _complete(benchmark, lists, inside)
    asked = [(name, each) for name in GROUPS for each in inside[name]]
    if not asked:
        raise groups.problem("hold no individual request.", AGAIN)
    _unique([each for _, each in asked])
    moments = [(name, each, _sent(each)) for name, each in asked]
    moments.sort(key=lambda found: found[2])
    origin = min(min(_due(each, sent), sent) if open_loop else sent for _, each, sent in moments)
    records = [_record(n, name, each, origin, open_loop=open_loop) for n, (name, each, _) in enumerate(moments)]
    prompt_tokens = [_tokens(each, "input_metrics", "prompt_tokens") for _, each, _ in moments]
    cached = _sum(
        [integer_at(each, "input_metrics", "cached_tokens") for name, each, _ in moments if name == GROUPS[0]]
    )
    for record, tokens in zip(records, prompt_tokens, strict=True):
        record.input_tokens = tokens
    left_out = sum(map(len, lists.values())) - len(asked)
    if open_loop and rate:
        load = rate_name(rate)
    else:
        load = f"c{streams or (1 if kind == 'synchronous' else most_at_once(records))}"
    notes = _notes(kind, streams, left_out, len(inside["incomplete"]))
    return ForeignTrial(
        arm=arm,
        workload=TOOL,
        load=load,
        started_at=_started(groups, origin, source),
        records=records,
        prompt_tokens=prompt_tokens,
        open_loop=open_loop,
        scheduled=open_loop and all(each.get("info", "timings", "targeted_start") for _, each, _ in moments),
        duration_s=number_at(benchmark, "duration"),
        cached_tokens=cached,
        notes=notes,
    )  # fmt: skip


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _notes(kind: str, streams: int | None, left_out: int, incomplete: int) -> list[str]:
    notes = ["of the token times of a request only the first and the last are known"]
    if not kind:
        notes.append("the report does not name the strategy, so how requests arrived is inferred")
    elif kind == "throughput" and streams is None:
        notes.append("sent without a limit: the load is the most requests in flight at once")
    elif kind in ("trace", "replay"):
        notes.append("arrivals follow a trace; the load is the most requests in flight at once")
    if left_out:
        notes.append(
            f"{several(left_out, 'request')} outside of GuideLLM's measured window (warm-up, cool-down) left out"
        )
    if incomplete:
        notes.append(f"{several(incomplete, 'request')} counted as failed: {CUT_OFF}")
    return notes


def _window(benchmark: Field) -> tuple[float, float] | None:
    if benchmark.get("scheduler_metrics") is None:
        return None
    start = number_at(benchmark, "scheduler_metrics", "measure_start_time", least=None)
    end = number_at(benchmark, "scheduler_metrics", "measure_end_time", least=None)
    # GuideLLM writes -1 where a moment never came.
    return (start, end) if start is not None and end is not None and 0 <= start <= end else None


def _counts(request: Field, window: tuple[float, float] | None) -> bool:
    """As GuideLLM itself decides what belongs to the measured window: what overlaps it."""
    if window is None:
        return True
    sent, ended = _sent(request), _ended(request)
    return (ended is None or ended >= window[0]) and sent <= window[1]


def _complete(benchmark: Field, lists: Mapping[str, list[Field]], inside: Mapping[str, list[Field]]) -> None:
    """Refuse a report that kept fewer requests than it measured: its percentiles would be of a sample."""
    totals = benchmark.get("metrics", "request_totals") if benchmark.get("metrics") else None
    if totals is not None:
        for name in GROUPS:
            made = integer_at(totals, name)
            if made is not None and made != len(inside[name]):
                raise benchmark.need("requests").problem(
                    f"{name} holds {len(inside[name])} of the {made} requests that were measured.", AGAIN
                )
        return
    made = integer_at(benchmark, "scheduler_metrics", "requests_made", "successful")
    if made is not None and made > len(lists["successful"]):
        raise benchmark.need("requests").problem(
            f"successful holds {len(lists['successful'])} of {made} successful requests.", AGAIN
        )


def _unique(requests: list[Field]) -> None:
    seen: set[str] = set()
    for each in requests:
        identity = text_at(each, "request_id")
        if identity is not None and identity in seen:
            raise each.need("request_id").problem(f"{identity} stands twice in the benchmark.")
        seen.add(identity or "")


def _sent(request: Field) -> float:
    timings = request.need("info", "timings")
    for name in ("request_start", "resolve_start"):
        if (found := number_at(timings, name)) is not None:
            return found
    raise timings.problem("has neither request_start nor resolve_start.")


def _due(request: Field, sent: float) -> float:
    due = number_at(request, "info", "timings", "targeted_start")
    return sent if due is None else due


def _ended(request: Field) -> float | None:
    timings = request.need("info", "timings")
    found = number_at(timings, "request_end")
    return number_at(timings, "resolve_end") if found is None else found


def _tokens(request: Field, metrics: str, computed: str) -> int | None:
    found = request.get(metrics)
    if found is not None:
        for name in ("total_tokens", "text_tokens"):
            if (count := integer_at(found, name)) is not None:
                return count
    return integer_at(request, computed)


def _record(index: int, group: str, request: Field, origin: float, *, open_loop: bool) -> RequestRecord:
    timings = request.need("info", "timings")
    sent, end = _sent(request), _ended(request)
    first, last = number_at(timings, "first_token_iteration"), number_at(timings, "last_token_iteration")
    order = [("first_token_iteration", first), ("last_token_iteration", last), ("request_end", end)]
    before, name_before = sent, "request_start"
    for name, value in order:
        if value is None:
            continue
        if value < before - SLACK_S:
            at = timings.get(name) or timings
            raise at.problem(f"lies {before - value:.6g} s before {name_before}: times out of order.")
        before, name_before = max(value, before), name
    due = _due(request, sent)
    # Stamped by one clock but rounded apart: within the slack the later moment is the end.
    times = [] if first is None else [max(first, sent)] if last is None else [max(first, sent), max(last, first, sent)]
    tokens = _tokens(request, "output_metrics", "output_tokens")
    error = text_at(request, "info", "error")
    good = group == "successful" and error is None and tokens != 0
    why = error or (CUT_OFF if group == "incomplete" else "no token came" if group == "successful" else "")
    if open_loop and due > sent + SLACK_S:
        raise timings.need("targeted_start").problem(
            f"lies {due - sent:.6g} s after request_start: times out of order."
        )
    scheduled = (min(due, sent) if open_loop else sent) - origin
    return RequestRecord(
        index=index,
        scheduled_s=scheduled,
        sent_s=sent - origin,
        origin_s=scheduled if open_loop else sent - origin,
        first_token_s=times[0] - origin if times else None,
        token_times_s=[each - origin for each in times] if last is not None else [],
        end_s=None if end is None else max([end, *times]) - origin,
        output_tokens=tokens if good else None,
        status=OK if good else "no_tokens" if group == "successful" and error is None else failure(
            why, None, streamed=bool(times) or group == "incomplete"
        ),
        error=None if good else why or None,
    )  # fmt: skip


def _started(at: Field, seconds: float, source: Source) -> Any:
    if seconds < 86_400:
        # Not a moment since 1970 but some other clock: the spans hold, the date does not.
        return modified(source.path)
    try:
        return moment(seconds)
    except ValueError as error:
        raise at.problem(f"hold a moment that cannot be: {error}.") from None
