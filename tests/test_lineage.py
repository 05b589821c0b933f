"""Lineage is held against the code that derives: whatever changes a column is named as its source, and nothing else."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import pytest
from lineage_steps import STEPS, Rows, changed_columns, damaged, nights_of, rows_of

from steelyard.errors import SteelyardError
from steelyard.levers import survey
from steelyard.lineage import COLUMNS, SELECTING
from steelyard.records import ROWS, Row
from steelyard.records_profile import CeilingRow
from warehouse.example import example, example_run
from warehouse.facts import load_facts
from warehouse.store import Store

ARMS = {"baseline", "batching", "damaged-2bit", "identity"}
READS = {
    "profiles": ("profile_steps",),
    "rooflines": ("profile_steps", "ceilings", "profiles", "arms"),
    "opportunities": ("profile_steps", "ceilings", "profiles", "arms"),
    "trials": ("requests", "engine_metrics"),
    "suites": ("samples",),
    "unit_costs": ("trials", "arms"),
    "speed_comparisons": ("trials",),
    "quality_comparisons": ("samples", "suites"),
    "cost_comparisons": ("unit_costs", "trials"),
    "divergence_comparisons": ("divergences",),
    "verdict": ("comparisons", "arms"),
    "incidents": ("comparisons", "arms"),
    "study_validity": ("verdicts", "gates", "arms", "suites", "trials", "samples", "unit_costs", "divergences"),
}


REQUESTED = ("scheduled_s", "sent_s", "prompt_tokens", "input_tokens", "output_tokens", "status")
UNSEEN: dict[str, set[tuple[str, str]]] = {
    "rooflines": {
        # Its model is dense: every step reads all weights; and one of two measured reads is nearer at any data type.
        ("peak_bytes_per_s", "arms.resolved_json"),
        *(
            (name, f"profile_steps.{tokens}")
            for name in ("weight_bytes", "peak_bytes_per_s")
            for tokens in ("context_tokens", "generation_tokens")
        ),
    },
    "incidents": {
        # One night changed alone, or all of them, moves no change of level.
        *(
            (name, f"comparisons.{source}")
            for name in ("since_run_id", "nights")
            for source in ("estimate", "low", "high", "baseline_value")
        ),
    },
    "opportunities": {
        # Five levers keep their order where these times change, or where every step looks at more.
        *(
            ("rank", f"profile_steps.{name}")
            for name in (
                "attention_s",
                "normalisation_s",
                "elementwise_s",
                "sampling_s",
                "communication_s",
                "host_s",
                "generation_pairs",
            )
        ),
        # Who is in a step depends on how long steps take only under arrivals.
        *(
            ("evidence", name)
            for name in ("ceilings.value", "profile_steps.context_tokens", "profile_steps.generation_pairs")
        ),
    },
    "trials": {
        # Its loops are closed: nobody waits for an arrival.
        ("e2e_p50_s", "requests.scheduled_s"),
        ("ttft_p50_s", "requests.scheduled_s"),
        ("slo_share", "requests.scheduled_s"),
        # Its SLO asks for the first token only.
        ("slo_share", "requests.end_s"),
        *((name, "requests.token_times_s") for name in ("goodput_per_s", "slo_share", "slo_tokens_per_s")),
        # Its requests are thinned, so that its trials are invalid when they are built again.
        ("valid", "engine_metrics.value"),
        *(("valid", f"requests.{name}") for name in REQUESTED),
    },
}
"""Declared sources that the example's run cannot show."""


@pytest.fixture(scope="module")
def store() -> Any:
    with example() as store:
        yield store


@pytest.fixture(scope="module")
def rows(store: Store) -> Rows:
    run = example_run(store)
    return rows_of(load_facts(store, run), store.read(CeilingRow, run_id=run), ARMS, documents=40)


def found_by_changing(step: str, rows: Rows) -> dict[str, set[str]]:
    """Column of the derived rows -> columns `table.column` that changed it while they were changed alone."""
    before, found = STEPS[step](rows), defaultdict(set)
    for table in READS[step]:
        middle = rows[table][len(rows[table]) // 2]
        for field in dataclasses.fields(middle):
            nothing = [None] if "None" in str(field.type) else []
            of = [[*damaged(getattr(row, field.name)), *nothing] for row in rows[table]]
            for number in range(max(map(len, of))):
                for whose in (None, "baseline", "batching", middle):
                    again = [
                        dataclasses.replace(row, **{field.name: others[number]})
                        if number < len(others) and (whose is None or whose is row or whose == getattr(row, "arm", 0))
                        else row
                        for row, others in zip(rows[table], of, strict=True)
                    ]
                    try:
                        after = STEPS[step]({**rows, table: again})
                    except (SteelyardError, ValueError, ArithmeticError, LookupError):
                        continue
                    for name in changed_columns(before, after):
                        found[name].add(f"{table}.{field.name}")
    return found


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction's interval rests on what each of its fits does: two show it, and are quicker."""
    monkeypatch.setattr(survey, "DRAWS", 2)


@pytest.mark.parametrize("step", STEPS)
def test_every_source_is_declared_and_every_declared_source_matters(step: str, rows: Rows) -> None:
    if step == "incidents":
        rows = {**rows, "comparisons": nights_of(rows)}
    before, found, declared = STEPS[step](rows), found_by_changing(step, rows), COLUMNS[step]
    key = type(before[0]).KEY
    for column, sources in found.items():
        if column in key:
            continue
        direct = {each for each in sources if each.split(".")[1] not in SELECTING[each.split(".")[0]]}
        assert direct <= set(declared.get(column, ())), f"{step}.{column}"
    unseen = {
        (column, each)
        for column, sources in declared.items()
        for each in sources
        if each not in found[column] and there(rows, each, READS[step]) and has(before, column)
    }
    assert unseen == UNSEEN.get(step, set())


def has(rows: list[Row], column: str) -> bool:
    return any(getattr(row, column) is not None for row in rows)


def there(rows: Rows, source: str, tables: tuple[str, ...]) -> bool:
    """Whether the step reads the table as it is perturbed here, and the run has any value in the column."""
    table, _, name = source.partition(".")
    return table in tables and any(getattr(row, name) is not None for row in rows[table])


def test_every_derived_asset_and_column_is_there() -> None:
    tables = {each.TABLE: {field.name for field in dataclasses.fields(each)} for each in ROWS}
    writes = {"verdict": "verdicts", "study_validity": "verdicts", "gates": "gate_results", "study": "studies"}
    of = {name: tables[writes.get(name, "comparisons" if "comparisons" in name else name)] for name in COLUMNS}
    of |= {name: tables[writes.get(name, name)] for name in ("study", "gates", "comparisons", "verdicts")}
    for name, columns in COLUMNS.items():
        assert columns.keys() <= of[name], name
        for source in {each for sources in columns.values() for each in sources}:
            table, _, column = source.partition(".")
            assert column in of.get(table, tables.get(table, set())), f"{name}: {source}"
