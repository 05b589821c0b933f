"""`steelyard import`: rows of another tool's file into the warehouse, once, and a table of what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from steelyard.errors import InputError
from steelyard.importers import Imported
from steelyard.importers.common import IMPORTED
from steelyard.records import Row, StudyRow
from steelyard.records_quality import SuiteRow
from steelyard.records_trials import TrialRow
from steelyard.reports.terminal import console_of

RowT = TypeVar("RowT", bound=Row)


class Warehouse(Protocol):
    """What is needed of `warehouse.store.Store`, which this room may not import."""

    def read(self, row_class: type[RowT], **equals: Any) -> list[RowT]:
        """Rows whose columns equal the given values."""

    def write(self, rows: Sequence[Row], *more: Sequence[Row]) -> int:
        """Write rows in one transaction."""


def keep(warehouse: Warehouse, imported: Imported) -> bool:
    """Store a foreign run, in one transaction; False, and nothing is written, if it is there already.

    Raises InputError if it is there under other names, or if its study's name belongs to a study that was measured:
    its history would then hold what nobody measured.
    """
    study = imported.study
    there = warehouse.read(StudyRow, run_id=study.run_id)
    if there:
        _same_names(warehouse, imported, there[0])
        return False
    if any(row.status != IMPORTED for row in warehouse.read(StudyRow, study=study.study)):
        raise InputError(
            f"`{study.study}` is a study that Steelyard has measured.", remedy="Choose another name.", field="--as"
        )
    warehouse.write(
        [study], imported.arms, imported.trials, imported.requests, imported.suites, imported.samples
    )  # fmt: skip
    return True


def _same_names(warehouse: Warehouse, imported: Imported, there: StudyRow) -> None:
    from steelyard.records import ArmRow

    arms = sorted(row.arm for row in warehouse.read(ArmRow, run_id=there.run_id))
    if there.study != imported.study.study or arms != sorted(row.arm for row in imported.arms):
        raise InputError(
            f"The file is in the warehouse already, as study {there.study} with arm {', '.join(arms)}.",
            remedy="A run is kept once: use it under these names.",
            field="--as" if there.study != imported.study.study else "--arm",
        )


def tell(imported: Imported, *, new: bool) -> None:
    """Print what was imported: a line a trial or suite, then what must be known of it."""
    from rich.table import Table

    console = console_of(160)
    shown = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for name, justify in _columns(imported):
        shown.add_column(name, justify=justify, no_wrap=justify == "right")
    for trial in imported.trials:
        shown.add_row(*_trial_cells(trial))
    for suite in imported.suites:
        shown.add_row(*_suite_cells(suite))
    study = imported.study
    print(f"{'imported' if new else 'already there, nothing changed'}: {study.study}, run {study.run_id}\n")
    console.print(shown)
    reasons = dict.fromkeys(why for trial in imported.trials for why in trial.invalid_reasons[1:])
    for note in [*imported.notes, *reasons]:
        console.print(f"- {note}", markup=False, highlight=False)
    print("\nFor reading only: an imported run is never compared, judged or promoted.")


def _columns(imported: Imported) -> list[tuple[str, Any]]:
    if imported.trials:
        texts, figures = ["arm", "load point"], [
            "requests", "failed", "seconds", "tokens/s", "TTFT p50 ms", "p95", "ITL p50 ms", "p95", "E2E p50 ms", "p95",
        ]  # fmt: skip
    else:
        texts, figures = ["arm", "suite", "metric"], ["documents", "answered", "mean score"]
    return [*((name, "left") for name in texts), *((name, "right") for name in figures)]


def _trial_cells(row: TrialRow) -> list[str]:
    tails = (
        (row.ttft_p50_s, row.ttft_p95_s, row.ttft_p95_low_s, row.ttft_p95_high_s),
        (row.itl_p50_s, row.itl_p95_s, row.itl_p95_low_s, row.itl_p95_high_s),
        (row.e2e_p50_s, row.e2e_p95_s, row.e2e_p95_low_s, row.e2e_p95_high_s),
    )
    return [
        row.arm, row.load_point, str(row.requests), str(row.failed), f"{row.duration_s:.1f}",
        _figure(row.output_tokens_per_s), *(text for median, *tail in tails for text in (_ms(median), _tail(*tail))),
    ]  # fmt: skip


def _tail(value: float | None, low: float | None, high: float | None) -> str:
    """A 95th percentile with its bounds: without them one number of a few requests looks like a property."""
    bounds = "" if low is None or high is None else f" [{_ms(low)}, {_ms(high)}]"
    return f"{_ms(value)}{bounds}"


def _ms(seconds: float | None) -> str:
    return _figure(None if seconds is None else seconds * 1000)


def _suite_cells(row: SuiteRow) -> list[str]:
    mean = "-" if row.mean_score is None else f"{row.mean_score:.3f}"
    return [row.arm, row.suite, row.metric, str(row.documents), str(row.answered), mean]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
