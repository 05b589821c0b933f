"""Where the client cannot be true: what a run shows of its own lateness, against what it measured.

Arrivals carry the kernel's stamps, so a late client is still right about when data came - unless several tokens had
come by the time it looked: then only the last one's moment is known. Where the kernel gave no stamps, a late client is
simply late. Both are bounded by the run itself and judged here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from steelyard.load.client_stream import RequestRecord

SHARE = 0.05
"""Of the measured latency: how far it may be from the truth, and how many tokens may have no moment of their own."""
FLOOR_S = 0.003
"""Never judged more finely than the client looks: twice in two milliseconds, and what it does between."""


def client_doubts(good: Sequence[RequestRecord], *, lags_s: Sequence[float], kernel_stamps: bool) -> list[str]:
    """Why the moments of these requests are not to be believed; empty if they are. `good` are the completed ones."""
    ttfts = [each.ttft_s for each in good if each.ttft_s is not None]
    spans = [each.token_times_s[-1] - each.token_times_s[0] for each in good if len(each.token_times_s) > 1]
    itls = [each.itl_s for each in good if each.itl_s is not None]
    if not ttfts:
        return []
    ttft_s = statistics.median(ttfts)
    # The mean ITL of a request errs by the same time spread over its tokens: the share of first to last is its share.
    shortest_s = min(ttft_s, statistics.median(spans)) if spans else ttft_s
    allowed_s = max(FLOOR_S, SHARE * shortest_s)
    reasons = []
    unknown_s = worst_of_95([each.first_token_slack_s for each in good] if kernel_stamps else lags_s)
    if unknown_s is not None and unknown_s > allowed_s:
        what = "first tokens together with later ones" if kernel_stamps else "answers, which no kernel stamped,"
        reasons.append(
            f"the client read {what} up to {unknown_s * 1000:.1f} ms late (95 % of them), {allowed_s * 1000:.1f} ms is "
            f"allowed where the median TTFT is {ttft_s * 1000:.1f} ms and first to last token take "
            f"{'no time' if not spans else f'{statistics.median(spans) * 1000:.1f} ms'}"
        )
    if itls:
        limit_s = max(FLOOR_S, statistics.median(itls) / 2)
        tokens = sum(len(each.token_times_s) for each in good)
        # Tokens that the engine itself sends together are read at once, and are no fault of the client.
        lost = sum(slack_s > limit_s for each in good for slack_s in each.merged_slack_s)
        if lost > SHARE * tokens:
            reasons.append(
                f"the client found {lost / tokens:.0%} of the tokens together with later ones, having looked more than "
                f"{limit_s * 1000:.1f} ms late; {SHARE:.0%} is allowed"
            )
    return reasons


def worst_of_95(values: Sequence[float]) -> float | None:
    """The plain empirical 95th percentile, for any number of values: the client's health, not a compared metric."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1] if values else None
