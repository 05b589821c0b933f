"""Charts of the profile: the roofline, and predictions beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from steelyard.reports import numerals
from steelyard.reports.charts import Stack
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
    ratio_scale,
    rect,
    text,
)


def shares(rows: Sequence[Stack], title: str) -> Markup:
    """Each row as one bar of its parts' shares, with its whole in seconds beside it."""
    width, left, right, pitch = 400.0, 112.0, 340.0, 25.0
    body = []
    for index, row in enumerate(rows):
        y, at = 4 + pitch * index, left
        whole = sum(size for _, size, _ in row.parts)
        body.append(text(0, y + 14, fit(row.label, left - 8), "lab"))
        for name, size, css in row.parts:
            wide = (right - left) * size / whole if whole else 0.0
            said = f"{size / whole:.0%}".replace("%", " %") if whole else ""
            spent = numerals.known(numerals.seconds(size))
            body.append(rect(at, y + 2, wide, pitch - 8, f"part {css}", f"{row.label}: {name} {said}, {spent}"))
            if wide > len(said) * CHARACTER + 6:
                body.append(text(at + wide / 2, y + 14.5, said, "in", "middle"))
            at += wide
        body.append(text(right + 6, y + 14, numerals.known(numerals.seconds(whole)), "val"))
    return figure(width, 6 + pitch * len(rows), title, body, "wide")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoofPoint:
    """One phase at one load point: operations a byte, operations a second. `css` is its tone, `mark` its number."""

    mark: str
    intensity: float
    rate: float
    css: str
    title: str


def roof(points: Sequence[RoofPoint], peak: float, bandwidth: float, title: str) -> Markup:
    """A roofline (Williams, Waterman and Patterson 2009): rate over intensity, both logarithmic, under the ceilings of
    memory (`bandwidth`, bytes/s) and of arithmetic (`peak`, operations/s).
    """
    width, height, left, right, top, bottom = 400.0, 250.0, 58.0, 388.0, 14.0, 206.0
    ridge = peak / bandwidth
    across = log_scale([*(each.intensity for each in points), ridge / 4, ridge * 4], left, right)
    up = log_scale([*(each.rate for each in points), peak * 1.3], bottom, top)
    body = []
    for tick in nice(across):
        body.append(line(across(tick), top, across(tick), bottom, "gl"))
        body.append(text(across(tick), bottom + 13, _tick(tick), "axis", "middle"))
    for tick in nice(up):
        body.append(line(left, up(tick), right, up(tick), "gl"))
        body.append(text(left - 6, up(tick) + 3.5, _tick(tick / 1e9), "axis", "end"))
    start = max(across.low, up.low / bandwidth)
    body.append(
        f'<path class="roof" d="M{px(across(start))} {px(up(start * bandwidth))}L{px(across(ridge))} {px(up(peak))}'
        f'L{px(right)} {px(up(peak))}"/>'
    )
    body.append(text(right, up(peak) - 5, f"{numerals.known(numerals.significant(peak / 1e9))} Gop/s", "axis", "end"))
    for each in points:
        x, y = across(each.intensity), up(each.rate)
        body.append(
            f'<g><title>{escape(each.title, quote=False)}</title><circle class="roof-pt {each.css}" cx="{px(x)}" '
            f'cy="{px(y)}" r="8"/>{text(x, y + 3.6, each.mark, f"roof-no {each.css}", "middle")}</g>'
        )
    body.append(text((left + right) / 2, bottom + 30, "operations a byte", "axis dim", "middle"))
    body.append(text(0, top - 3, "Gop/s", "axis dim"))
    return figure(width, height, title, body, "wide")


@dataclass(frozen=True, slots=True, kw_only=True)
class Foretold:
    """One prediction and what was measured: ratios with their intervals; None where nothing is known."""

    label: str
    predicted: tuple[float, float, float]
    measured: tuple[float, float | None, float | None] | None
    value: str
    tone: str
    title: str


def foretold(rows: Sequence[Foretold], title: str) -> Markup:
    """For each lever the predicted interval as a band, and the measured one as a whisker over it."""
    width, top, pitch, left, right = 400.0, 8.0, 21.0, 128.0, 330.0
    known = [value for row in rows for value in (*row.predicted, *(row.measured or ())) if value is not None]
    scale: Scale = ratio_scale(known, left, right)
    bottom = top + pitch * len(rows)
    body = []
    for tick in scale.ticks(RATIO_TICKS, lambda value: f"{_tick(value)}×", 1.0):
        body.append(line(scale(tick), top - 4, scale(tick), bottom, "gl"))
        body.append(text(scale(tick), bottom + 13, f"{_tick(tick)}×", "axis", "middle"))
    body.append(line(scale(1.0), top - 4, scale(1.0), bottom, "ref"))
    for index, row in enumerate(rows):
        body.append(_foretold_row(row, scale, top + pitch * (index + 0.5), width, left))
    return figure(width, bottom + 18, title, body, "wide")


def _foretold_row(row: Foretold, scale: Scale, y: float, width: float, left: float) -> str:
    predicted, low, high = row.predicted
    body = [f"<title>{escape(row.title, quote=False)}</title>", text(0, y + 3.7, fit(row.label, left - 8), "lab")]
    x0, x1 = scale(low), scale(high)
    body.append(
        f'<rect class="foretold" x="{px(x0)}" y="{px(y - 6)}" width="{px(max(x1 - x0, 1))}" height="12" rx="2"/>'
    )
    body.append(line(scale(predicted), y - 6, scale(predicted), y + 6, "foretold-mid"))
    if row.measured is not None:
        value, least, most = row.measured
        body.append(
            line(
                scale(value if least is None else least), y, scale(value if most is None else most), y, f"wh {row.tone}"
            )
        )
        body.append(f'<circle class="pt {row.tone}" cx="{px(scale(value))}" cy="{px(y)}" r="3.2"/>')
    body.append(text(width, y + 3.7, row.value, "val", "end"))
    return f"<g>{''.join(body)}</g>"


def _tick(value: float) -> str:
    return f"{value:g}"
