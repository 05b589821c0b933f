"""What the bench says at its end: the last line and the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pages import renew
from benchmarks.real_aa_parts.noise import Components
from steelyard.stats.proportions import exact_share

PAGE = "real-aa.md"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One copy against the baseline: what was said of it, and its speed where it claimed a gain."""

    run_id: str
    arm: str
    verdict: str
    gates_passed: bool
    claim: str
    estimate: float | None
    low: float | None
    high: float | None
    blocks: int
    flips: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A speed interval of a copy at one load point: as judged, and over the first blocks as if looked at once."""

    load_point: str
    judged: tuple[float, float] | None
    fixed: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Found:
    """Everything of all runs."""

    comparisons: Sequence[Comparison]
    intervals: Sequence[Interval]
    noise: Components | None
    by_point: Mapping[str, Components]
    void_runs: Mapping[str, str]
    confidence: float


def misses(intervals: Sequence[tuple[float, float] | None]) -> tuple[int, int, int]:
    """How many of the known intervals lie above 1, which is the truth, how many below, and how many are known."""
    known = [each for each in intervals if each is not None]
    return sum(low > 1 for low, _ in known), sum(high < 1 for _, high in known), len(known)


def summary(found: Found, *, wall_s: float) -> dict[str, object]:
    """What the last line says."""
    wrong = sum(each.gates_passed for each in found.comparisons)
    share = exact_share(wrong, len(found.comparisons), found.confidence)
    judged, fixed = misses([each.judged for each in found.intervals]), misses([each.fixed for each in found.intervals])
    return {
        "bench": "real_aa",
        "comparisons": len(found.comparisons),
        "false_promotions": wrong,
        "false_promotion_share": [share.low, share.high],
        "void_runs": len(found.void_runs),
        "verdicts": {verdict: sum(each.verdict == verdict for each in found.comparisons) for verdict in _said(found)},
        "intervals": judged[2],
        "intervals_above_1": judged[0],
        "intervals_below_1": judged[1],
        "fixed_intervals": fixed[2],
        "fixed_intervals_above_1": fixed[0],
        "fixed_intervals_below_1": fixed[1],
        "answers_flipped": sum(each.flips for each in found.comparisons),
        "restart_sd": found.noise.restart_sd if found.noise else None,
        "restart_sd_high": found.noise.restart_sd_high if found.noise else None,
        "block_sd": found.noise.block_sd if found.noise else None,
        "restart_p_value": found.noise.p_value if found.noise else None,
        "wall_s": round(wall_s, 1),
    }


def _said(found: Found) -> list[str]:
    return sorted({each.verdict for each in found.comparisons})


def write(found: Found, said: Mapping[str, object], folder: Path, *, where: str) -> None:
    """Renew the generated part of the page."""
    renew(folder / PAGE, generated(found, said, where))


def generated(found: Found, said: Mapping[str, object], where: str) -> str:
    """The tables, as Markdown."""
    share = exact_share(int(str(said["false_promotions"])), len(found.comparisons), found.confidence)
    lines = [
        f"{where}.",
        "",
        f"**{said['false_promotions']} of {len(found.comparisons)} comparisons would have been promoted** "
        f"(exact interval of the share: {_percent(share.low)} to {_percent(share.high)}). "
        f"Runs that were void: {len(found.void_runs)}. Answers that flipped: {said['answers_flipped']}.",
        "",
        "| intervals of the speed ratio (truth: 1) | number | above 1 | below 1 | promised at most, each |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {said[f'{key}intervals']} | {said[f'{key}intervals_above_1']} "
            f"| {said[f'{key}intervals_below_1']} | {_percent((1 - found.confidence) / 2)} |"
            for name, key in (
                ("as judged, at the look where the arm stopped", ""),
                ("first blocks, as if looked at once", "fixed_"),
            )
        ),
        "",
        "| load point | sd from start to start | at most | sd from block to block | p that starts are alike |",
        "|---|---|---|---|---|",
    ]
    rows = {**found.by_point, **({"all": found.noise} if found.noise else {})}
    lines += [
        f"| {name} | {_percent(each.restart_sd)} | {_percent(each.restart_sd_high, 'no bound')} "
        f"| {_percent(each.block_sd)} | {each.p_value:.2g} |"
        for name, each in rows.items()
    ]
    lines += ["", "| run | copy | claims a gain at | ratio there | blocks | verdict |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {each.run_id} | {each.arm} | {each.claim} | {_ratio(each)} | {each.blocks} | {each.verdict} |"
        for each in found.comparisons
    ]
    lines += ["", *(f"Void: {run}: {why}" for run, why in found.void_runs.items())]
    return "\n".join(lines)


def _ratio(each: Comparison) -> str:
    if each.estimate is None:
        return "unknown"
    if each.low is None or each.high is None:
        return f"{each.estimate:.3f}"
    return f"{each.estimate:.3f} [{each.low:.3f}, {each.high:.3f}]"


def _percent(value: float | None, unknown: str = "unknown") -> str:
    return unknown if value is None or math.isnan(value) else f"{100 * value:.1f} %"
