"""Whether a trial was in a steady state: drift of its pace, and a queue that only grew.

Both are marks, not reasons to leave a trial out. An arm that slows down while it serves, or cannot keep up with the
arrivals, does so in production too; but its figures then depend on how long the trial was, and must not be quoted as
properties of the arm. Leaving such trials out would hide exactly the arms that suffer.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from steelyard.load.client import OK, RequestRecord
from steelyard.stats.trend import trend
from steelyard.study import Load

P_VALUE = 0.001
"""Below it a trend is marked. Neighbours that resemble each other are more than the correction can take: of series
without a trend and with a correlation of one half from one request to the next, 3 to 11 % fall below 0.01. So a mark of
a single trial says little; several of one arm, in one direction, do."""
LEAST_DRIFT = 0.10
"""Drifts below this share of the typical value are of no consequence."""
GROWTH = 2.0
"""How many times as many requests are in flight at the end as before, where a queue grew."""


def steady_figures(records: Sequence[RequestRecord], load: Load) -> dict[str, Any]:
    """The columns of `TrialRow` about steadiness, by name; unknown (None) where there are too few requests.

    `itl_drift` is the change of the requests' mean ITL over the trial as a share of their median, in order of sending,
    and `itl_drift_p` its two-sided p-value. Of a closed loop only what was sent after the first answer and ended before
    the last sending counts: at its ends fewer requests are in flight than it declares. `saturated` says of an open loop
    that the number in flight grew from arrival to arrival; a closed loop has no queue that could.
    """
    drift = _drift(records, load)
    return {
        "itl_drift": drift[0] if drift else None,
        "itl_drift_p": drift[1] if drift else None,
        "saturated": None
        if load.rate is None
        else grows([each.scheduled_s for each in records], [each.end_s for each in records]),
    }


def drifts(itl_drift: float | None, itl_drift_p: float | None) -> bool:
    """Whether a trial is marked as drifting."""
    return itl_drift is not None and itl_drift_p is not None and itl_drift_p < P_VALUE and abs(itl_drift) >= LEAST_DRIFT


def _drift(records: Sequence[RequestRecord], load: Load) -> tuple[float, float] | None:
    good = [each for each in records if each.status == OK and each.sent_s is not None and each.itl_s is not None]
    if load.rate is None and good:
        ends = [each.end_s for each in good if each.end_s is not None]
        first, last = min(ends, default=0.0), max(each.sent_s or 0.0 for each in good)
        good = [each for each in good if (each.sent_s or 0.0) >= first and (each.end_s or 0.0) <= last]
    paces = [each.itl_s or 0.0 for each in sorted(good, key=lambda each: each.sent_s or 0.0)]
    found = trend(paces)
    typical = statistics.median(paces) if paces else 0.0
    return None if found is None or typical <= 0 else (found.change / typical, found.p_value)


def grows(due_s: Sequence[float], end_s: Sequence[float | None]) -> bool | None:
    """Whether the number of requests in flight only grew, from when each was due and when it ended (None: never).

    It begins at none, so until the first request has ended it can only grow: that is no queue, and does not count.
    """
    # One that never ended is in flight for good.
    ends = sorted(each for each in end_s if each is not None)
    first = ends[0] if ends else -math.inf
    counted = [(moment, at + 1 - bisect_right(ends, moment)) for at, moment in enumerate(sorted(due_s))]
    in_flight = [float(count) for moment, count in counted if moment >= first]
    found = trend(in_flight)
    if found is None:
        return None
    quarter = max(1, len(in_flight) // 4)
    before, after = statistics.fmean(in_flight[: 2 * quarter]), statistics.fmean(in_flight[-quarter:])
    return found.change > 0 and found.p_value < P_VALUE and after >= GROWTH * max(1.0, before)
