"""The end of `steelyard run`, as a table a terminal can show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steelyard.records import ArmRow, GateRow, UnitCostRow, VerdictRow
from steelyard.records_quality import DivergenceRow
from steelyard.reports import numerals
from steelyard.reports.divergence import HEAD, screened
from steelyard.reports.facts import VERDICT_ORDER
from steelyard.reports.markdown import symbol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDE = 120
"""Columns from which the reason fits beside the figures."""


def console_of(width: int) -> Console:
    """A console as wide as the terminal, or `width` columns where there is none: a log is read later."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=width)


STYLES = {"promote": "bold green", "reject": "bold red", "inconclusive": "bold yellow", "void": "bold magenta"}


def verdict_table(
    verdicts: Sequence[VerdictRow],
    arms: Sequence[ArmRow],
    gates: Sequence[GateRow],
    unit_costs: Sequence[UnitCostRow],
    *,
    width: int = 160,
) -> Table:
    """One row an arm, the baseline left out: verdict, gain at its claim, unit cost over the baseline's, reason.

    Below `WIDE` columns the reasons are left to `reasons`. Candidates come first, in order of verdict, controls last
    after a rule. An arm without a verdict is shown too.
    """
    from rich.table import Table
    from rich.text import Text

    of = {row.arm: row for row in verdicts}
    baseline = next((row.arm for row in arms if row.role == "baseline"), None)
    costs = {(row.arm, row.load_point): row.usd_per_million_output_tokens for row in unit_costs}
    beside = width >= WIDE
    shown = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for name in ("arm", "verdict"):
        shown.add_column(name, no_wrap=True)
    for name in ("gain where claimed", "cost"):
        shown.add_column(name, justify="right", no_wrap=True)
    if beside:
        shown.add_column("why", overflow="fold", ratio=1)

    def order(row: ArmRow) -> tuple[int, int, str]:
        verdict = of.get(row.arm)
        role = ("candidate", "identity", "known_bad").index(row.role)
        return role, VERDICT_ORDER.get(verdict.verdict if verdict else None, 4), row.arm

    rows = sorted((row for row in arms if row.role != "baseline"), key=order)
    for index, row in enumerate(rows):
        verdict = of.get(row.arm)
        gate = benefit(row, gates)
        claim = row.claim or (gate.scope if gate else None)
        word = verdict.verdict if verdict else "not judged"
        ends = index + 1 < len(rows) and row.role == "candidate" != rows[index + 1].role
        # Text, not markup: a reason may quote what an engine wrote.
        cells = [
            Text(row.arm),
            Text(symbol(word), style=STYLES.get(word, "dim")),
            Text(_gain(gate)),
            Text(_cost(costs, row.arm, baseline, claim)),
        ]
        shown.add_row(*cells, *([Text(_reason(row, verdict))] if beside else []), end_section=ends)
    return shown


def reasons(verdicts: Sequence[VerdictRow]) -> list[str]:
    """The deciding reason of each verdict, for terminals too narrow to show it in the table."""
    order = sorted(verdicts, key=lambda row: (row.role != "candidate", VERDICT_ORDER.get(row.verdict, 4), row.arm))
    return [f"{row.arm}: {row.reasons[0]}" for row in order if row.reasons]


def divergence_table(rows: Sequence[DivergenceRow], arms: Sequence[ArmRow]) -> Table:
    """Divergence from the baseline, one row an arm; the identity control is the floor."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(
        title="Divergence from the baseline", title_justify="left", title_style="bold", box=None, pad_edge=False,
        header_style="bold", show_edge=False, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for place, name in enumerate(HEAD):
        shown.add_column(name, justify="right" if place else "left")
    for each in screened(rows, arms):
        shown.add_row(*(Text(numerals.known(cell)) for cell in each.cells))
    return shown


def benefit(arm: ArmRow, gates: Sequence[GateRow]) -> GateRow | None:
    """The gate that asks `arm` for a gain, as the report chooses it."""
    asked = [gate for gate in gates if gate.arm == arm.arm and gate.benefit]
    return min(asked, key=lambda g: (not g.required, g.scope != arm.claim, g.category != "speed"), default=None)


def _gain(gate: GateRow | None) -> str:
    if gate is None or gate.estimate is None:
        return "n/a"
    return f"{numerals.ratio(gate.estimate)} {numerals.interval('ratio', gate.low, gate.high) or ''}".strip()


def _cost(costs: dict[tuple[str, str], float | None], arm: str, baseline: str | None, point: str | None) -> str:
    own = costs.get((arm, point or ""))
    base = costs.get((baseline or "", point or ""))
    if own is None:
        return "n/a"
    return numerals.known(numerals.ratio(own / base)) if base else numerals.known(numerals.dollars(own))


def _reason(arm: ArmRow, verdict: VerdictRow | None) -> str:
    if verdict is not None and verdict.reasons:
        return verdict.reasons[0]
    return arm.error.splitlines()[0] if arm.error else "No reason was recorded."
