"""What one trial's requests say of it: a pure function, so that stored figures can be made again from stored requests.

The trial that measures and whoever checks a stored trial call the same code; the figures are therefore equal to the
last bit, not within a tolerance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from steelyard.load.client import OK, RequestRecord
from steelyard.load.client_doubts import worst_of_95
from steelyard.records_trials import RequestRow
from steelyard.stats.quantiles import quantile, quantile_bounds
from steelyard.study import Load, Slo

TAIL_CONFIDENCE = 0.95
"""Two-sided confidence of the bounds of a trial's 95th percentiles."""


def trial_figures(records: Sequence[RequestRecord], slo: Slo, *, duration_s: float) -> dict[str, Any]:
    """The columns of `TrialRow` that follow from the requests of a trial, by name. At least one record is needed.

    Counts, rates per second of `duration_s`, latencies in seconds. A rate is None if nothing was completed.
    """
    good = [record for record in records if record.status == OK]
    met = [record for record in good if meets(record, slo)]

    def per_second(amount: float) -> float | None:
        return amount / duration_s if good and duration_s > 0 else None

    ttfts = known(record.ttft_s for record in good)
    itls = known(record.itl_s for record in good)
    e2es = known(record.e2e_s for record in good)
    output_tokens = sum(record.output_tokens or 0 for record in good)
    tails: dict[str, float | None] = {}
    for name, values in (("ttft", ttfts), ("itl", itls), ("e2e", e2es)):
        tails[f"{name}_p95_s"] = quantile(values, 0.95)
        low, high = quantile_bounds(values, 0.95, TAIL_CONFIDENCE)
        known_tail = tails[f"{name}_p95_s"] is not None
        tails[f"{name}_p95_low_s"], tails[f"{name}_p95_high_s"] = (low, high) if known_tail else (None, None)
    return {
        "duration_s": duration_s,
        "requests": len(records),
        "completed": len(good),
        "failed": len(records) - len(good),
        "input_tokens": None
        if any(record.input_tokens is None for record in good)
        else sum(record.input_tokens or 0 for record in good),
        "output_tokens": output_tokens,
        "output_tokens_per_s": per_second(output_tokens),
        "requests_per_s": per_second(len(good)),
        "goodput_per_s": per_second(len(met)),
        "slo_tokens_per_s": per_second(sum(record.output_tokens or 0 for record in met)),
        "slo_share": len(met) / len(records),
        "ttft_p50_s": quantile(ttfts, 0.5),
        "itl_p50_s": quantile(itls, 0.5),
        "e2e_p50_s": quantile(e2es, 0.5),
        "lateness_p95_s": worst_of_95(lateness(records)),
        **tails,
    }


def duration(records: Sequence[RequestRecord], wall_s: float) -> float:
    """Seconds from the first scheduled request to the last end; to `wall_s`, the client's end, if none ended."""
    last = max((record.end_s for record in records if record.end_s is not None), default=wall_s)
    return last - min(record.scheduled_s for record in records)


def lateness(records: Iterable[RequestRecord]) -> list[float]:
    """Sent minus scheduled of what was sent, seconds."""
    return [record.sent_s - record.scheduled_s for record in records if record.sent_s is not None]


def meets(record: RequestRecord, slo: Slo) -> bool:
    """Whether a request counts as good. Of a single token no inter-token latency is asked."""
    return record.status == OK and within(slo, record.ttft_s, record.itl_s, record.e2e_s)


def within(slo: Slo, ttft_s: float | None, itl_s: float | None, e2e_s: float | None) -> bool:
    """Whether latencies of a request that ended well are within the SLO; what is unknown breaks no limit. Seconds."""
    limits = ((slo.ttft_s, ttft_s), (slo.itl_s, itl_s), (slo.e2e_s, e2e_s))
    return all(limit is None or value is None or value <= limit for limit, value in limits)


def record_of(row: RequestRow, load: Load) -> RequestRecord:
    """The client's record behind a stored request. The clock's origin is the load's: due in an open loop, else sent."""
    origin_s = row.sent_s if load.rate is None or row.sent_s is None else row.scheduled_s
    return RequestRecord(
        index=row.request_index, scheduled_s=row.scheduled_s, sent_s=row.sent_s, origin_s=origin_s,
        first_token_s=row.first_token_s, token_times_s=list(row.token_times_s), end_s=row.end_s,
        input_tokens=row.input_tokens, output_tokens=row.output_tokens, status=row.status,
        finish_reason=row.finish_reason, error=row.error,
    )  # fmt: skip


def known(values: Iterable[float | None]) -> list[float]:
    """The values that are known."""
    return [value for value in values if value is not None]
