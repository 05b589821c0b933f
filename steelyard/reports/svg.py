"""The few pieces of SVG the charts are made of: escaped text, short numbers, and scales that clip and say so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

CHARACTER = 5.7
"""Mean width of a character of the 10.5 px sans-serif the charts write in, px."""


def px(value: float) -> str:
    """A coordinate, one decimal at most."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    """A line of text; `content` is escaped."""
    anchored = f' text-anchor="{anchor}"' if anchor != "start" else ""
    classed = f' class="{css}"' if css else ""
    return f'<text x="{px(x)}" y="{px(y)}"{classed}{anchored}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line class="{css}" x1="{px(x1)}" y1="{px(y1)}" x2="{px(x2)}" y2="{px(y2)}"/>'


def rect(x: float, y: float, width: float, height: float, css: str, title: str | None = None) -> str:
    """A rectangle, at least half a pixel wide so that a small share is still seen."""
    said = f"<title>{escape(title)}</title>" if title else ""
    box = f'x="{px(x)}" y="{px(y)}" width="{px(max(width, 0.5))}" height="{px(height)}"'
    return f'<rect class="{css}" {box}>{said}</rect>'


def fit(label: str, width: float) -> str:
    """`label`, cut with an ellipsis if it is longer than `width` px."""
    most = max(3, int(width / CHARACTER))
    return label if len(label) <= most else label[: most - 1] + "…"


def figure(
    width: float, height: float, title: str, body: Iterable[str], css: str = "", description: str = ""
) -> Markup:
    """A picture with an accessible name; `description` says in words what it shows."""
    said = f"<desc>{escape(description)}</desc>" if description else ""
    classed = f"chart {css}".strip()
    # The intrinsic width is an upper bound in CSS, so that text is never blown up on wide screens.
    return Markup(
        f'<svg class="{classed}" viewBox="0 0 {px(width)} {px(height)}" style="max-width:{px(width * 1.25)}px" '
        f'role="img"><title>{escape(title)}</title>{said}{"".join(body)}</svg>'
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps low..high onto left..right px, linearly or by logarithm; what lies outside is drawn at the edge."""

    low: float
    high: float
    left: float
    right: float
    log: bool = False

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.left + share * (self.right - self.left)

    def clips(self, value: float) -> bool:
        """Whether `value` lies outside."""
        return not self.low <= value <= self.high

    def ticks(self, wanted: Iterable[float], write: Callable[[float], str], first: float | None = None) -> list[float]:
        """Those of `wanted` inside whose labels do not touch; `first` is kept before all others."""
        inside = [value for value in wanted if not self.clips(value)]
        kept: list[float] = []
        for value in sorted(inside, key=lambda value: (value != first, inside.index(value))):
            half = len(write(value)) * CHARACTER / 2 + 3
            near = [abs(self(value) - self(other)) < half + len(write(other)) * CHARACTER / 2 + 3 for other in kept]
            if not any(near):
                kept.append(value)
        return sorted(kept)


RATIO_TICKS = (1.0, 0.5, 2.0, 0.25, 4.0, 0.8, 1.25, 0.67, 1.5, 0.9, 1.1, 0.95, 1.05, 3.0, 0.33, 8.0, 0.125)


def ratio_scale(values: Iterable[float | None], left: float, right: float, most: float = 8.0) -> Scale:
    """Logarithmic around 1, wide enough for all values up to `most` times; at least 0.91 to 1.1."""
    logs = [math.log(value) for value in values if value is not None and value > 0 and math.isfinite(value)]
    low, high = min([*logs, -0.095]), max([*logs, 0.095])
    pad = 0.06 * (high - low)
    edge = math.log(most)
    return Scale(math.exp(max(low - pad, -edge)), math.exp(min(high + pad, edge)), left, right, log=True)


def linear_scale(values: Iterable[float | None], left: float, right: float, floor: float | None = None) -> Scale:
    """Linear over all values with a little air; never below `floor`."""
    real = [value for value in values if value is not None and math.isfinite(value)]
    low, high = min(real, default=0.0), max(real, default=1.0)
    pad = 0.06 * (high - low) or 0.01
    low = low - pad if floor is None else max(floor, low - pad)
    return Scale(low, high + pad, left, right)


def log_scale(values: Iterable[float], left: float, right: float) -> Scale:
    """Logarithmic over positive values."""
    real = [value for value in values if value > 0 and math.isfinite(value)]
    low, high = min(real, default=0.1), max(real, default=1.0)
    if high < low * 1.3:
        low, high = low / 1.15, high * 1.15
    return Scale(low / 1.03, high * 1.03, left, right, log=True)


def nice(scale: Scale, about: int = 4) -> list[float]:
    """About so many round values inside a scale: 1-2-5 steps on a linear one, 1-2-5 decades on a logarithmic one."""
    if scale.log:
        decades = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
        inside = [
            [value for decade in decades for digit in digits if not scale.clips(value := digit * 10.0**decade)]
            for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))
        ]
        return next((values for values in inside if len(values) >= 2), inside[-1])
    step = 10.0 ** math.floor(math.log10((scale.high - scale.low) / about))
    step = next((step * k for k in (1, 2, 5, 10) if (scale.high - scale.low) / (step * k) <= about), step * 10)
    start = math.ceil(scale.low / step)
    return [k * step for k in range(start, math.floor(scale.high / step) + 1)]
