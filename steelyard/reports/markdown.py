"""Small Markdown tables for Dagster's metadata: the same rows as the page, in the same words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from steelyard.records import ArmRow, ComparisonRow, GateRow, UnitCostRow, VerdictRow
from steelyard.records_quality import DivergenceRow, SuiteRow
from steelyard.records_trials import ProbeRow, TrialRow
from steelyard.reports import numerals
from steelyard.reports.capacity import found_capacities
from steelyard.reports.divergence import HEAD, screened
from steelyard.reports.facts import VERDICT_ORDER
from steelyard.reports.suite_notes import suite_notes
from steelyard.study_capacity import CapacitySearch

SYMBOLS = {"promote": "✓", "reject": "✗", "inconclusive": "?", "void": "∅", "pass": "✓", "fail": "✗"}
OUTCOMES = {"fail": 0, "inconclusive": 1, "pass": 2}


def escaped(text: str) -> str:
    """Text that cannot break out of a table cell or become markup."""
    for sign in "\\|`*_<>[]":
        text = text.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return " ".join(text.split())


def table(head: Sequence[str], rows: Iterable[Sequence[str | None]], right: Iterable[int] = ()) -> str:
    """A Markdown table; None is written n/a. `right` are the columns of figures. Empty rows give a sentence."""
    body = [[escaped(numerals.known(cell)) for cell in row] for row in rows]
    if not body:
        return "*No rows.*"
    figures = set(right)
    rule = ["---:" if index in figures else "---" for index in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [list(head), rule, *body])


def symbol(word: str) -> str:
    """A verdict or outcome with its symbol, so that it reads without colour."""
    return f"{SYMBOLS[word]} {word}" if word in SYMBOLS else word


def gate_table(gates: Iterable[GateRow]) -> str:
    """Gates with estimate, interval and bound; required ones and failures first."""
    order = sorted(gates, key=lambda g: (g.arm, not g.required, OUTCOMES[g.outcome], g.category, g.gate, g.scope))
    rows = []
    for gate in order:
        kind = numerals.gate_kind(gate.metric, gate.bound_kind)
        rows.append(
            (
                gate.gate if gate.required else f"{gate.gate} (not required)",
                gate.scope,
                symbol(gate.outcome),
                numerals.of_kind(kind, gate.estimate),
                numerals.interval(kind, gate.low, gate.high),
                numerals.bound(gate.metric, gate.bound_kind, gate.bound),
                numerals.count(gate.n),
                gate.reason,
            )
        )
    return table(("gate", "scope", "outcome", "estimate", "interval", "bound", "n", "reason"), rows, (3, 4, 5, 6))


def verdict_table(verdicts: Iterable[VerdictRow], gates: Iterable[GateRow] = ()) -> str:
    """Verdicts with their deciding reason and how the arm's gates ended; candidates before controls."""
    of: dict[str, list[GateRow]] = {}
    for gate in gates:
        of.setdefault(gate.arm, []).append(gate)
    order = sorted(verdicts, key=lambda v: (v.role != "candidate", VERDICT_ORDER.get(v.verdict, 4), v.arm))
    rows = []
    for row in order:
        own = of.get(row.arm, [])
        tally = ", ".join(
            f"{number} {outcome}" for outcome in OUTCOMES if (number := sum(g.outcome == outcome for g in own))
        )
        rows.append((row.arm, row.role.replace("_", " "), symbol(row.verdict), _reason(row), tally or None))
    return table(("arm", "role", "verdict", "reason", "gates"), rows)


def _reason(row: VerdictRow) -> str | None:
    return row.reasons[0] if row.reasons else None


def trial_table(trials: Iterable[TrialRow]) -> str:
    """Trials with throughput and latencies; invalid ones say why."""
    rows = [
        (
            row.load_point,
            str(row.block),
            row.arm,
            "✓ valid" if row.valid else f"✗ {'; '.join(row.invalid_reasons) or 'invalid'}",
            numerals.significant(row.output_tokens_per_s),
            numerals.significant(row.goodput_per_s),
            numerals.seconds(row.ttft_p50_s),
            numerals.seconds(row.itl_p50_s),
            numerals.seconds(row.e2e_p50_s),
            f"{row.failed:,} of {row.requests:,}",
        )
        for row in sorted(trials, key=lambda row: (row.load_point, row.block, row.position))
    ]
    head = (
        "load point",
        "block",
        "arm",
        "validity",
        "tokens/s",
        "goodput/s",
        "TTFT p50",
        "ITL p50",
        "E2E p50",
        "failed",
    )
    return table(head, rows, (1, 4, 5, 6, 7, 8, 9))


def suite_table(suites: Iterable[SuiteRow]) -> str:
    """Suites with scores and answered documents, safety first; below it what a score hides."""
    suites = list(suites)
    rows = [
        (
            row.suite,
            row.category,
            row.arm,
            numerals.percent(row.mean_score),
            f"{row.answered:,} of {row.documents:,}",
            row.route,
            numerals.seconds(row.duration_s),
        )
        for row in sorted(suites, key=lambda row: (row.category != "safety", row.suite, row.arm))
    ]
    shown = table(("suite", "category", "arm", "score", "answered", "route", "took"), rows, (3, 4, 6))
    of: dict[str, list[SuiteRow]] = {}
    for row in suites:
        of.setdefault(row.suite, []).append(row)
    notes = [f"- {escaped(f'{name}: {note}')}" for name, own in of.items() for note in suite_notes(own)]
    return "\n\n".join([shown, "\n".join(notes)]) if notes else shown


def divergence_table(rows: Iterable[DivergenceRow], arms: Sequence[ArmRow] = ()) -> str:
    """Divergence from the baseline: one line an arm, candidates first, the identity control being the floor."""
    return table(HEAD, [each.cells for each in screened(rows, arms)], range(1, len(HEAD)))


def arm_table(arms: Iterable[ArmRow]) -> str:
    """Arms as served, with digest and start time."""
    rows = [
        (
            row.arm,
            row.role.replace("_", " "),
            row.status,
            numerals.short(row.deployment_digest),
            numerals.seconds(row.start_s),
        )
        for row in arms
    ]
    return table(("arm", "role", "status", "deployment", "start"), rows, (4,))


def comparison_table(comparisons: Iterable[ComparisonRow]) -> str:
    """Comparisons with their paired estimate and interval."""
    rows = [
        (
            row.arm,
            numerals.metric(row.metric),
            row.scope,
            numerals.of_kind(row.kind, row.estimate),
            numerals.interval(row.kind, row.low, row.high),
            numerals.sure(row.confidence),
            numerals.count(row.n),
            numerals.count(row.n_missing),
        )
        for row in sorted(comparisons, key=lambda row: (row.arm, row.metric, row.scope))
    ]
    return table(
        ("arm", "metric", "scope", "estimate", "interval", "confidence", "pairs", "missing"), rows, range(3, 8)
    )


def capacity_table(probes: Sequence[ProbeRow], searches: Sequence[CapacitySearch]) -> str:
    """What each arm's searches found, one line an arm and workload."""
    rows = [
        (each.scope, each.arm, numerals.significant(each.typical), each.shown, numerals.count(each.probes))
        for each in found_capacities(probes, searches)
    ]
    return table(("capacity", "arm", "arrivals/s", "by block", "probes"), rows, (2, 4))


def profile_table(phases: Mapping[str, Mapping[str, float | None]]) -> str:
    """Mean time of a request by load point and phase, with its share of the whole."""
    rows = []
    for point, seconds in phases.items():
        whole = sum(value for value in seconds.values() if value is not None)
        cells = [
            f"{numerals.seconds(value)} ({numerals.percent(value / whole)})"
            if value is not None and whole > 0
            else None
            for value in seconds.values()
        ]
        rows.append((point, *cells))
    head = ("load point", *next(iter(phases.values()), {}))
    return table(head, rows, range(1, len(head)))


def cost_table(costs: Iterable[UnitCostRow]) -> str:
    """US dollars per million tokens with their intervals over blocks, by arm and load point."""
    rows = [
        (
            row.arm,
            row.load_point,
            numerals.dollars(row.usd_per_million_output_tokens),
            numerals.costs(row.output_low, row.output_high),
            numerals.dollars(row.usd_per_million_slo_tokens),
            numerals.costs(row.slo_low, row.slo_high),
            numerals.sure(row.confidence),
            numerals.count(row.blocks),
        )
        for row in sorted(costs, key=lambda row: (row.load_point, row.arm))
    ]
    head = ("arm", "load point", "$/M output tokens", "interval", "$/M SLO tokens", "interval", "confidence", "blocks")
    return table(head, rows, range(2, 8))
