"""What the simulation writes: a page with every cell, and a picture of false promotions against what is promised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.error_rates_parts.quality import CONFIDENCE, Rates
from benchmarks.pages import renew

PAGE = "error-rates.md"
PICTURE = "error-rates.svg"
PROMISED = (1 - CONFIDENCE) / 2


@dataclass(frozen=True, slots=True)
class Row:
    """One cell: our rates at the bound and as declared, the most that would be measured, and the same of others."""

    kind: str
    name: str
    at_bound: Rates
    declared: Rates
    most: int
    rivals: Mapping[str, tuple[Rates, Rates]]


def write(rows: Sequence[Row], folder: Path, *, studies: int, seed: int) -> None:
    """Renew the generated part of the page, and the picture beside it."""
    renew(folder / PAGE, generated(rows, studies, seed))
    (folder / PICTURE).write_text(svg(rows), "utf-8")


def generated(rows: Sequence[Row], studies: int, seed: int) -> str:
    """The tables."""
    lines = [
        f"{studies:,} simulated studies a cell, seed {seed}. Shares in %. Promised: at most {100 * PROMISED:g} false.",
        "",
    ]
    lines += [
        "| gate | false, at the bound | passed, as declared | measured on average, at the bound / as declared | "
        "at most | covered, at the bound / as declared |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_ours(row) for row in rows]
    names = list(dict.fromkeys(name for row in rows for name in row.rivals))
    for kind in ("quality", "speed"):
        mine = [row for row in rows if row.kind == kind]
        known = [name for name in names if any(name in row.rivals for row in mine)]
        lines += ["", f"The same {kind} cells under other rules: false at the bound / passed as declared.", ""]
        lines += ["| gate | Steelyard | " + " | ".join(known) + " |", "|---" * (len(known) + 2) + "|"]
        for row in mine:
            cells = [f"{_share(row.at_bound.passed)} / {_share(row.declared.passed)}"]
            cells += [" / ".join(_share(rates.passed) for rates in row.rivals[name]) for name in known]
            lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ours(row: Row) -> str:
    both = (row.at_bound, row.declared)
    asked = " / ".join(_number(rates.documents) for rates in both)
    covered = " / ".join(_share(rates.covered) for rates in both)
    most = f"{row.most:,}" if row.most else ""
    return f"| {row.name} | {_share(both[0].passed)} | {_share(both[1].passed)} | {asked} | {most} | {covered} |"


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


WIDTH, LEFT, TOP, LINE = 900, 430, 46, 22
COLOURS = ("#1b6ca8", "#c0392b", "#d68910", "#7d8b99", "#8e44ad", "#2e7d32", "#5d4037")


def svg(rows: Sequence[Row]) -> str:
    """False promotions of every cell on a logarithmic axis, ours and the others', with the promise as a line."""
    shown = [row for row in rows if row.kind != "study"]
    names = ["Steelyard", *dict.fromkeys(name for row in shown for name in row.rivals)]
    colour = dict(zip(names, COLOURS, strict=False))
    height = TOP + LINE * len(shown) + 40

    def x(share: float) -> float:
        low, high = math.log10(5e-4), 0.0
        return LEFT + (WIDTH - LEFT - 30) * (math.log10(max(share, 5e-4)) - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" '
        f'font-size="11"><rect width="{WIDTH}" height="{height}" fill="white"/>'
    ]
    place = 10.0
    for name in names:
        parts.append(
            f'<circle cx="{place}" cy="14" r="4" fill="{colour[name]}"/><text x="{place + 8}" y="18">{name}</text>'
        )
        place += 26 + 6.4 * len(name)
    parts += [
        f'<line x1="{x(tick):.1f}" y1="{TOP - 8}" x2="{x(tick):.1f}" y2="{height - 30}" stroke="#ddd"/>'
        f'<text x="{x(tick):.1f}" y="{height - 14}" text-anchor="middle">{100 * tick:g} %</text>'
        for tick in (0.001, 0.01, 0.1, 1.0)
    ]
    parts.append(
        f'<line x1="{x(PROMISED):.1f}" y1="{TOP - 12}" x2="{x(PROMISED):.1f}" y2="{height - 30}" stroke="#222" '
        f'stroke-dasharray="4 3"/><text x="{x(PROMISED):.1f}" y="{TOP - 15}" text-anchor="middle">promised</text>'
    )
    for number, row in enumerate(shown):
        y = TOP + LINE * number + 8
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{row.name}</text>')
        for name, (rates, _) in {**row.rivals, "Steelyard": (row.at_bound, row.declared)}.items():
            size = 5 if name == "Steelyard" else 3.5
            parts.append(
                f'<circle cx="{x(rates.passed):.1f}" cy="{y}" r="{size}" fill="{colour[name]}" fill-opacity=".85"/>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"
