"""The charts of a report, as inline SVG: colours come from CSS variables, text stays text, every one has a name.

Widths are chosen so that a chart is legible unscaled on a phone (360 px) and set side by side on a wide screen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

from markupsafe import Markup

from steelyard.reports import numerals
from steelyard.reports.svg import (
    CHARACTER,
    RATIO_TICKS,
    Scale,
    figure,
    fit,
    line,
    log_scale,
    nice,
    px,
    rect,
    text,
)

ROW = 19.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestRow:
    """A line of a forest plot. `tone` is a CSS class: good, bad, plain or quiet. `dots` are single observations."""

    label: str
    estimate: float | None
    low: float | None = None
    high: float | None = None
    dots: Sequence[float] = field(default=())
    value: str = ""
    tone: str = "plain"
    title: str = ""
    missing: str = "n/a"
    second: tuple[float, float | None, float | None] | None = None


def _whisker(scale: Scale, y: float, low: float | None, high: float | None, css: str, cap: float = 3.0) -> str:
    """An interval; a side that is missing or off the scale ends in an arrow instead of a cap."""
    if low is None and high is None:
        return ""
    left = scale.low if low is None else low
    right = scale.high if high is None else high
    if right < scale.low or left > scale.high:
        way = -1 if right < scale.low else 1
        at = scale.left if way < 0 else scale.right
        return f'<path class="arrow {css}" d="M{px(at + 3 * way)} {px(y)}l{-6 * way} -3.6v7.2z"/>'
    parts = [line(scale(left), y, scale(right), y, f"wh {css}")]
    for value, given, way in ((left, low, -1), (right, high, 1)):
        x = scale(value)
        if given is None or scale.clips(value):
            parts.append(f'<path class="arrow {css}" d="M{px(x)} {px(y)}l{-4 * way} -2.6v5.2z"/>')
        else:
            parts.append(line(x, y - cap, x, y + cap, f"wh {css}"))
    return "".join(parts)


def _point(scale: Scale, y: float, value: float, css: str, radius: float) -> str:
    """A point estimate; off the scale there is none, the interval's arrow says where it went."""
    if scale.clips(value):
        return ""
    return f'<circle class="pt {css}" cx="{px(scale(value))}" cy="{px(y)}" r="{px(radius)}"/>'


def interval_plot(
    scale: Scale,
    *,
    estimate: float | None,
    low: float | None,
    high: float | None,
    bound: float | None,
    wrong: str | None,
    tone: str,
    title: str,
    reference: float,
    bar: bool = False,
) -> Markup:
    """One interval against its bound, for a table cell. `wrong` is the side of the bound that fails: left or right."""
    width, height = scale.right + scale.left, 22.0
    y = height / 2
    body = []
    if bound is not None and wrong is not None:
        x = scale(bound)
        body.append(
            rect(scale.left, 2, x - scale.left, height - 4, "wrong")
            if wrong == "left"
            else rect(x, 2, scale.right - x, height - 4, "wrong")
        )
    body.append(line(scale(reference), 1, scale(reference), height - 1, "ref"))
    if estimate is not None:
        if bar:
            x0, x1 = sorted((scale(reference), scale(estimate)))
            body.append(rect(x0, y - 4.5, x1 - x0, 9, f"bar {tone}"))
        body.append(_whisker(scale, y, low, high, tone))
        body.append(_point(scale, y, estimate, tone, 3.2))
    if bound is not None:
        body.append(line(scale(bound), 0, scale(bound), height, "bound"))
    return figure(width, height, title, body, "cell")


def forest(
    rows: Sequence[ForestRow],
    scale: Scale,
    *,
    title: str,
    write: Callable[[float], str],
    reference: float | None,
    bound: float | None = None,
    band: tuple[float, float] | None = None,
    ticks: Sequence[float] | None = None,
    better: str = "",
    description: str = "",
) -> Markup:
    """Rows of estimate and interval on one axis; single observations as dots, a noise band behind.

    `scale` runs from the right of the labels to the left of the values. `better` is the direction named on the axis.
    """
    width, top = 380.0, 8.0
    bottom = top + ROW * len(rows)
    body = []
    if band is not None and not (scale.clips(band[0]) and scale.clips(band[1])):
        body.append(rect(scale(band[0]), top - 4, scale(band[1]) - scale(band[0]), bottom - top + 4, "band"))
    wanted = ticks if ticks is not None else (RATIO_TICKS if scale.log and reference == 1.0 else nice(scale))
    for tick in scale.ticks(wanted, write, reference):
        body.append(line(scale(tick), top - 4, scale(tick), bottom, "gl"))
        body.append(text(scale(tick), bottom + 13, write(tick), "axis", "middle"))
    if reference is not None:
        body.append(line(scale(reference), top - 4, scale(reference), bottom, "ref"))
    if bound is not None:
        body.append(line(scale(bound), top - 6, scale(bound), bottom + 2, "bound"))
    for index, row in enumerate(rows):
        body.append(_forest_row(row, scale, top + ROW * (index + 0.5), width))
    if better:
        body.append(text(scale.right, bottom + 26, better, "axis dim", "end"))
    return figure(width, bottom + (31 if better else 18), title, body, description=description)


def _forest_row(row: ForestRow, scale: Scale, y: float, width: float) -> str:
    body = [f"<title>{escape(row.title, quote=False)}</title>"] if row.title else []
    body.append(text(0, y + 3.7, fit(row.label, scale.left - 8), f"lab {row.tone}"))
    if row.estimate is None:
        body.append(text((scale.left + scale.right) / 2, y + 3.5, row.missing, "axis dim halo", "middle"))
    else:
        spread = 4.4 if len(row.dots) > 1 else 0.0
        for k, dot in enumerate(dot for dot in row.dots if not scale.clips(dot)):
            shift = spread * ((k % 3) - 1)
            body.append(f'<circle class="ob {row.tone}" cx="{px(scale(dot))}" cy="{px(y + shift)}" r="1.8"/>')
        body.append(_whisker(scale, y, row.low, row.high, row.tone))
        body.append(_point(scale, y, row.estimate, row.tone, 3.0))
        if row.second is not None:
            body.append(_whisker(scale, y + 5, row.second[1], row.second[2], "alt", 2.0))
            at = scale(row.second[0])
            body.append(f'<path class="alt-pt" d="M{px(at)} {px(y + 1.8)}l3.2 3.2l-3.2 3.2l-3.2 -3.2z"/>')
    body.append(text(width, y + 3.7, row.value, "val", "end"))
    return f"<g>{''.join(body)}</g>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One latency of one arm against the baseline's: sorted seconds, and how many requests were sent in all."""

    name: str
    base: Sequence[float]
    base_sent: int
    arm: Sequence[float]
    arm_sent: int
    slo: float | None
    said: str
    scale: tuple[float, float]


def ecdf_path(values: Sequence[float], sent: int, scale: Scale, top: float, height: float, steps: int = 40) -> str:
    """The empirical distribution as an SVG path of at most about `steps` steps.

    The share is of all requests *sent*: failed ones never arrive, so their curve ends below 1.
    """
    if not values or sent <= 0:
        return ""
    n = len(values)
    picks = sorted({round(k * (n - 1) / (steps - 1)) for k in range(steps)}) if n > steps else list(range(n))
    parts = [f"M{px(scale(values[0]))} {px(top + height)}"]
    seen = None
    for index in picks:
        x, y = px(scale(values[index])), px(top + height * (1 - (index + 1) / sent))
        parts.append(f"V{y}" if x == seen else f"H{x}V{y}")
        seen = x
    return "".join(parts)


def ecdfs(curves: Sequence[Curve], title: str, tone: str) -> Markup:
    """One arm's latency distributions side by side, the baseline's behind; the SLO as a dashed line."""
    panel, gap, top, height = 118.0, 13.0, 18.0, 62.0
    width = len(curves) * panel + (len(curves) - 1) * gap
    body: list[str] = []
    for index, curve in enumerate(curves):
        x0 = index * (panel + gap)
        scale = log_scale([*curve.scale, *([curve.slo] if curve.slo else [])], x0, x0 + panel)
        body.append(text(x0, 10, curve.name, "lab"))
        body.append(rect(x0, top, panel, height, "frame"))
        body.append(line(x0, top + height / 2, x0 + panel, top + height / 2, "gl"))
        # A label may not leave its panel, or it would run into the next one's.
        inset = Scale(scale.low, scale.high, x0, x0 + panel, log=True)
        free = [tick for tick in nice(scale) if _inside(inset, tick)] or nice(scale)[:1]
        for tick in scale.ticks(free, _tick):
            body.append(line(scale(tick), top + height, scale(tick), top + height + 3, "tick"))
            body.append(text(scale(tick), top + height + 13, _tick(tick), "axis", "middle"))
        if curve.slo is not None:
            body.append(line(scale(curve.slo), top, scale(curve.slo), top + height, "bound"))
        for values, sent, css in ((curve.base, curve.base_sent, "base"), (curve.arm, curve.arm_sent, tone)):
            path = ecdf_path(values, sent, scale, top, height)
            if path:
                body.append(f'<path class="ecdf {css}" d="{path}"/>')
        body.append(text(x0, top + height + 27, curve.said, "axis dim"))
    return figure(width, top + height + 31, title, body, "ecdfs")


def _inside(scale: Scale, tick: float) -> bool:
    half = len(_tick(tick)) * CHARACTER / 2 - 2
    return scale.left + half <= scale(tick) <= scale.right - half


def _tick(value: float) -> str:
    return numerals.limit(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A bar of parts: (name, size in seconds, CSS class)."""

    label: str
    parts: Sequence[tuple[str, float, str]]


def stacked(rows: Sequence[Stack], title: str) -> Markup:
    """Horizontal bars of stacked seconds on one linear axis; a part's own size is written where it fits."""
    width, left, right, pitch = 400.0, 112.0, 352.0, 25.0
    most = max((sum(size for _, size, _ in row.parts) for row in rows), default=1.0) or 1.0
    scale = Scale(0.0, most, left, right)
    bottom = 4 + pitch * len(rows)
    body = []
    for tick in scale.ticks(nice(scale), _zero_tick):
        body.append(line(scale(tick), 0, scale(tick), bottom, "gl"))
        body.append(text(scale(tick), bottom + 13, _zero_tick(tick), "axis", "middle"))
    for index, row in enumerate(rows):
        y = 4 + pitch * index
        body.append(text(0, y + 14, fit(row.label, left - 8), "lab"))
        at = 0.0
        for name, size, css in row.parts:
            x0, x1 = scale(at), scale(at + size)
            written = numerals.known(numerals.seconds(size))
            body.append(rect(x0, y + 2, x1 - x0, pitch - 8, f"part {css}", f"{row.label}: {name} {written}"))
            if x1 - x0 > len(written) * CHARACTER + 8:
                body.append(text((x0 + x1) / 2, y + 14.5, written, "in", "middle"))
            at += size
        body.append(text(scale(at) + 5, y + 14, numerals.known(numerals.seconds(at)), "val"))
    return figure(width, bottom + 18, title, body, "wide")


def _zero_tick(value: float) -> str:
    return "0" if value == 0 else _tick(value)
