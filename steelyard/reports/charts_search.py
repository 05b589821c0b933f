"""The picture of a search: every stack by latency and throughput, the Pareto front among them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from steelyard.reports.svg import CHARACTER, RATIO_TICKS, figure, line, px, ratio_scale, text
from steelyard.tuning.levers import changes_answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One stack: end-to-end latency and output tokens/s over the baseline's, its risk, whether it is on the front.

    `mark` is written beside it, nothing where it is empty.
    """

    mark: str
    latency: float
    throughput: float
    risk: str
    on_front: bool
    title: str


def front(choices: Sequence[Choice], title: str) -> Markup:
    """Latency to the right, throughput upwards, both over the baseline's and logarithmic: better is up and to the left.

    The front's steps are drawn through its choices; dots that may change answers are hollow.
    """
    width, height, left, right, top, bottom = 400.0, 270.0, 44.0, 384.0, 16.0, 222.0
    across = ratio_scale([1.0, *(each.latency for each in choices)], left, right, most=32.0)
    up = ratio_scale([1.0, *(each.throughput for each in choices)], bottom, top, most=32.0)
    body = []
    for tick in across.ticks((*RATIO_TICKS, 16.0, 0.0625), _times, 1.0):
        body.append(line(across(tick), top, across(tick), bottom, "ref" if tick == 1 else "gl"))
        body.append(text(across(tick), bottom + 13, _times(tick), "axis", "middle"))
    for tick in (1.0, 0.5, 2.0, 4.0, 8.0, 16.0, 0.25, 0.125):
        if not up.clips(tick):
            body.append(line(left, up(tick), right, up(tick), "ref" if tick == 1 else "gl"))
            body.append(text(left - 6, up(tick) + 3.5, _times(tick), "axis", "end"))
    best = sorted((each for each in choices if each.on_front), key=lambda each: (each.latency, each.throughput))
    for one, other in itertools.pairwise(best):
        body.append(line(across(one.latency), up(one.throughput), across(other.latency), up(other.throughput), "front"))
    for each in choices:
        tone = f"{'risky' if changes_answers(each.risk) else 'safe'}{' on' if each.on_front else ''}"
        x, y = across(each.latency), up(each.throughput)
        body.append(
            f'<g><title>{escape(each.title, quote=False)}</title><circle class="choice {tone}" cx="{px(x)}" '
            f'cy="{px(y)}" r="{4.5 if each.on_front else 3}"/></g>'
        )
    taken: list[tuple[float, float, float]] = []
    for each in sorted(choices, key=lambda each: not each.on_front):
        if each.mark:
            x, y = across(each.latency) + 7, up(each.throughput) - 4
            wide = len(each.mark) * CHARACTER
            x = x if x + wide < width else across(each.latency) - 7 - wide
            # A label that would lie on another one is left to the dot's own title.
            if not any(abs(y - other) < 11 and x < right_ and left_ < x + wide for other, left_, right_ in taken):
                taken.append((y, x, x + wide))
                body.append(text(x, y, each.mark, "lab"))
    body.append(
        text((left + right) / 2, bottom + 30, "median end-to-end latency over the baseline’s", "axis dim", "middle")
    )
    body.append(text(0, top - 5, "output tokens/s over the baseline’s", "axis dim"))
    return figure(width, height, title, body, "wide")


def _times(value: float) -> str:
    return f"{value:g}×"
