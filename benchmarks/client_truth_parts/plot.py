"""The picture: each client's error of TTFT and ITL against the number of streams, as an SVG that stands alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.client_truth_parts.cell import KEYS, Result
from steelyard.reports.svg import Scale, line, px, text

LEFT, TOP, WIDTH, HEIGHT, BETWEEN, BOTTOM = 52.0, 44.0, 190.0, 190.0, 58.0, 52.0
LOW, HIGH = 1e-4, 100.0
TICKS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
TITLES = dict(zip(KEYS, ("TTFT, median", "TTFT, 99th percentile", "ITL, median", "ITL, 99th percentile"), strict=True))
STYLE = (
    "svg{--paper:#fff;--ink:#1d1f24;--soft:#4a4f59;--hair:#e4e1d9;background:var(--paper)}"
    "@media(prefers-color-scheme:dark){svg{--paper:#0d1117;--ink:#e8e5de;--soft:#bfc2c7;--hair:#2b3038}}"
    "text{font:10.5px system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:var(--ink);"
    "font-variant-numeric:tabular-nums}"
    ".axis{fill:var(--soft)}.head{font-weight:600}.gl{stroke:var(--hair)}"
    "path{fill:none;stroke:currentColor;stroke-width:1.6}circle{fill:currentColor}.wh{stroke:currentColor}"
)
COLOURS = ("#1f5f8b", "#85600a", "#b02a25", "#6a4c93", "#2f7d4f", "#6a6f79")


def svg(cells: Mapping[str, Mapping[int, Sequence[Result]]]) -> str:
    """The whole picture; errors smaller than the axis stand at its edge."""
    counts = sorted({count for each in cells.values() for count in each})
    body = [f"<style>{STYLE}</style>"]
    body += [_panel(cells, counts, key, LEFT + at * (WIDTH + BETWEEN)) for at, key in enumerate(KEYS)]
    x = LEFT
    for client, colour in zip(cells, COLOURS, strict=False):
        body.append(f'<circle cx="{px(x)}" cy="14" r="4" style="color:{colour}"/>' + text(x + 8, 17.5, client))
        x += 30 + 6.2 * len(client)
    width, height = LEFT + len(KEYS) * (WIDTH + BETWEEN), TOP + HEIGHT + BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {px(width)} {px(height)}" width="{px(width)}" '
        f'height="{px(height)}" role="img"><title>Errors of load clients</title><desc>Size of the error as a fraction '
        f"of the truth, on a logarithmic axis, at each number of streams; figures stand in the tables.</desc>"
        f"{''.join(body)}</svg>\n"
    )


def _panel(cells: Mapping[str, Mapping[int, Sequence[Result]]], counts: Sequence[int], key: str, left: float) -> str:
    scale = Scale(LOW, HIGH, TOP + HEIGHT, TOP + 18, log=True)
    body = [text(left, TOP + 6, TITLES[key], "head")]
    for tick in TICKS:
        label = f"{tick * 100:g} %"
        body += [
            line(left, scale(tick), left + WIDTH, scale(tick), "gl"),
            text(left - 5, scale(tick) + 3.5, label, "axis", "end"),
        ]
    step = WIDTH / max(1, len(counts))
    places = {count: left + (at + 0.5) * step for at, count in enumerate(counts)}
    for count, x in places.items():
        body.append(text(x, TOP + HEIGHT + 16, f"{count} streams", "axis", "middle"))
    for number, (client, colour) in enumerate(zip(cells, COLOURS, strict=False)):
        points = []
        for count, runs in cells[client].items():
            sizes = [abs(each.errors[key]) for each in runs if key in each.errors]
            if not sizes:
                continue
            x, middle = places[count] + (number - len(cells) / 2) * 3, statistics.median(sizes)
            points.append((x, scale(middle)))
            said = f"{client}, {count} streams, {TITLES[key]}: {middle:.2%} ({min(sizes):.2%} to {max(sizes):.2%})"
            body.append(
                f'<g style="color:{colour}"><title>{escape(said)}</title>'
                f"{line(x, scale(min(sizes)), x, scale(max(sizes)), 'wh')}"
                f'<circle cx="{px(x)}" cy="{px(scale(middle))}" r="3"/></g>'
            )
        way = "L".join(f"{px(x)} {px(y)}" for x, y in points)
        body.append(f'<path d="M{way}" style="color:{colour}"/>' if len(points) > 1 else "")
    return f"<g>{''.join(body)}</g>"
