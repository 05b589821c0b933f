"""`steelyard plan`: how many blocks, documents and minutes a study needs, before it is measured."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from steelyard.errors import InputError
from steelyard.planning import POWER, Plan, QualityNeed, SpeedNeed
from steelyard.study import Study

PIPED_WIDTH = 110


def show(study: Study, plan: Plan, console: Console | None = None) -> int:
    """Print the plan; 0 if every required gate can be decided, 2 if one cannot, with the reason on standard error."""
    console = console or Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    console.print(f"Noise and differing answers as in run {plan.source}; power {POWER:.0%}.", markup=False)
    console.print(
        "\nSpeed and cost, as ratios where more is better; noise is the identity control's from block to block."
    )
    console.print(_speed(study, plan.speed))
    console.print(
        "\nQuality, for an arm that differs so often and not in its mean: the control, and the most different arm."
    )
    console.print(_quality(plan.quality))
    console.print()
    if plan.seconds is not None:
        console.print(f"At most {plan.seconds / 60:.0f} minutes of measuring, engines up; less where arms stop early.")
    for problem in plan.problems:
        print(problem, file=sys.stderr)
    return InputError.exit_code if plan.problems else 0


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        words = place < 2 or name in ("arm", "claimed by")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "claimed by")
    return table


def _speed(study: Study, needs: list[SpeedNeed]) -> Table:
    table = _table("gate", "load point", "noise", "to prove", "expected", "blocks", "provable from", "claimed by")
    for need in needs:
        if not need.required:
            continue
        enough = need.blocks is not None and need.blocks <= study.blocks
        table.add_row(
            need.gate,
            need.load_point,
            "unknown" if need.noise is None else f"{100 * need.noise:.1f} %",
            f"{need.bound:.3g}",
            "?" if need.expected is None else f"{need.expected:.3g}",
            f"{'-' if need.blocks is None else need.blocks} of {study.blocks}",
            "-" if need.smallest is None else f"{need.smallest:.2f}",
            ", ".join(need.arms),
            style="" if enough or need.expected is None or need.noise is None else "red",
        )
    return table


def _quality(needs: list[QualityNeed]) -> Table:
    table = _table("gate", "suite", "margin", "differ", "documents", "arm")
    for need in needs:
        if not need.required:
            continue
        enough = need.documents is not None and need.declared is not None and need.documents <= need.declared
        table.add_row(
            need.gate,
            need.suite,
            f"{100 * need.margin:g}",
            f"{100 * need.discordance:.1f} %",
            f"{'-' if need.documents is None else f'{need.documents:,}'} of {need.declared or '?'}",
            need.arm,
            style="" if enough else "red",
        )
    return table
