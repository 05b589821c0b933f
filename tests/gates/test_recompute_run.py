"""A run recomputed from its rows: nothing differs when nothing was touched, and whatever was touched has a name."""

from __future__ import annotations

import dataclasses
import math
import random
from datetime import UTC, date, datetime
from typing import Any

import pytest
from recorded_run import RUN, recorded

from steelyard.errors import InputError
from steelyard.gates.recompute_diff import Recomputed
from steelyard.gates.recompute_run import recompute_run
from steelyard.records import ComparisonRow, GateRow, PromotionRow, Row, UnitCostRow, VerdictRow
from steelyard.records_keeping import ThinningRow
from steelyard.records_quality import SuiteRow
from steelyard.records_trials import TrialRow
from steelyard.reports.facts import Facts

FACTS = recorded()
CLEAN = recompute_run(FACTS)
FIELDS: dict[type[Row], str] = {
    TrialRow: "trials", SuiteRow: "suites", UnitCostRow: "unit_costs", ComparisonRow: "comparisons",
    GateRow: "gates", VerdictRow: "verdicts", PromotionRow: "promotions",
}  # fmt: skip


def changed(field: str, index: int, **values: Any) -> Facts:
    rows = list(getattr(FACTS, field))
    rows[index] = dataclasses.replace(rows[index], **values)
    return dataclasses.replace(FACTS, **{field: rows})


def other(value: Any) -> Any:
    """The nearest different value: of a float the next one up."""
    if value is None:
        return 0.5
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return math.nextafter(value, math.inf)
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return [*value, "edited"]
    return f"{value}x"


def tables(found: Recomputed) -> set[str]:
    return {each.table for each in found.differences}


def test_an_untouched_run_has_no_difference_whatever_the_order_of_its_rows() -> None:
    assert CLEAN.differences == []
    assert CLEAN.notes == []
    assert CLEAN.rows["trials"] == len(FACTS.trials) > 20
    assert CLEAN.rows["requests"] == len(FACTS.requests)
    assert {row.verdict for row in FACTS.verdicts} == {"promote", "reject"}
    assert [row.arm for row in FACTS.promotions] == ["batching"]
    mixed: dict[str, Any] = {}
    for each in dataclasses.fields(FACTS):
        rows = getattr(FACTS, each.name)
        if isinstance(rows, list):
            mixed[each.name] = random.Random(7).sample(rows, len(rows))
    assert recompute_run(dataclasses.replace(FACTS, **mixed)).differences == []


def walked() -> list[tuple[str, str, str]]:
    """(field, table, column) of every value of a derived table that is computed from others."""
    return [
        (field, table.TABLE, each.name)
        for table, field in FIELDS.items()
        for each in dataclasses.fields(table)  # type: ignore[arg-type]
        if each.name not in ("run_id", *CLEAN.as_stored[table.TABLE])
    ]


@pytest.mark.parametrize(("field", "table", "column"), walked(), ids=str)
def test_any_single_changed_value_is_found_by_name(field: str, table: str, column: str) -> None:
    rows = getattr(FACTS, field)
    for index in {0, len(rows) // 2, len(rows) - 1}:
        row = rows[index]
        value = other(getattr(row, column))
        found = recompute_run(changed(field, index, **{column: value}))
        if column in type(row).KEY and column != "trial_id":
            named = [each for each in found.differences if each.table == table and each.column is None]
            assert {str(each.stored) for each in named} == {"a row", "no row"}
        else:
            named = [each for each in found.differences if (each.table, each.column) == (table, column)]
            assert [each.stored for each in named] == [value]
            assert named[0].recomputed == getattr(row, column) or column == "trial_id"
            assert str(getattr(row, type(row).KEY[-1])) in named[0].key or column == "trial_id"


def test_the_walk_covers_the_figures_that_decide() -> None:
    seen = {(table, column) for _, table, column in walked()}
    for table in (UnitCostRow, ComparisonRow, GateRow):
        every = {(table.TABLE, each.name) for each in dataclasses.fields(table)}
        assert every - seen == {(table.TABLE, "run_id")}
    assert CLEAN.as_stored["verdicts"] == ("decided_at",)
    assert CLEAN.as_stored["promotions"] == ("promoted_at",)
    assert set(CLEAN.as_stored["trials"]) >= {"deployment_digest", "position", "started_at", "client_cpu_share"}
    assert {name for _, name in seen if name.endswith(("_per_s", "p50_s", "p95_s"))} >= {
        "output_tokens_per_s", "goodput_per_s", "slo_tokens_per_s", "ttft_p50_s", "itl_p95_s", "lateness_p95_s",
    }  # fmt: skip


@pytest.mark.parametrize(
    "field",
    ["arms", "trials", "requests", "engine_metrics", "suites", "samples", "divergences", "comparisons", "gates",
     "verdicts", "prices", "unit_costs", "promotions"],
)  # fmt: skip
def test_a_row_that_is_lost_or_doubled_is_found(field: str) -> None:
    rows = getattr(FACTS, field)
    for index in range(0, len(rows), 1 + len(rows) // 12):
        lost = dataclasses.replace(FACTS, **{field: [*rows[:index], *rows[index + 1 :]]})
        assert recompute_run(lost).differences, rows[index]
        twice = recompute_run(dataclasses.replace(FACTS, **{field: [*rows, rows[index]]}))
        table = type(rows[index]).TABLE
        assert [each.stored for each in twice.differences if (each.table, each.column) == (table, None)] == ["2 rows"]


def test_a_trial_lost_with_all_its_requests_leaves_a_gap() -> None:
    gone = next(row for row in FACTS.trials if (row.arm, row.block) == ("batching", 1))
    kept: dict[str, Any] = {
        name: [row for row in getattr(FACTS, name) if row.trial_id != gone.trial_id]
        for name in ("trials", "requests", "engine_metrics")
    }
    found = recompute_run(dataclasses.replace(FACTS, **kept))
    key = f"arm batching, load_point {gone.load_point}, block 1"
    assert [str(each) for each in found.differences if each.table == "trials"] == [
        f"trials, {key}: the row is not stored, though its evidence is."
    ]


def test_one_score_shows_in_every_layer_above_it() -> None:
    index = next(
        n for n, row in enumerate(FACTS.samples) if (row.arm, row.suite, row.score) == ("batching", "refusal", 1.0)
    )
    found = recompute_run(changed("samples", index, score=0.0))
    assert tables(found) == {"suites", "comparisons", "gate_results", "verdicts"}
    named = {(each.table, each.column) for each in found.differences}
    assert {("suites", "mean_score"), ("comparisons", "estimate"), ("comparisons", "lost"), ("gate_results", "low"),
            ("verdicts", "reasons")} <= named  # fmt: skip
    assert all("batching" in each.key for each in found.differences)


def test_one_moment_shows_in_every_layer_above_it() -> None:
    index = next(n for n, row in enumerate(FACTS.requests) if row.arm == "batching")
    row = FACTS.requests[index]
    assert row.end_s is not None
    found = recompute_run(changed("requests", index, end_s=row.end_s + 20.0))
    assert tables(found) == {
        "requests",
        "trials",
        "unit_costs",
        "comparisons",
        "gate_results",
        "verdicts",
        "promotions",
    }
    named = {(each.table, each.column) for each in found.differences}
    assert {("requests", "met_slo"), ("trials", "duration_s"), ("trials", "slo_share"),
            ("unit_costs", "usd_per_million_output_tokens"), ("comparisons", "high"), ("gate_results", "outcome"),
            ("verdicts", "verdict"), ("promotions", None)} <= named  # fmt: skip


def test_a_last_bit_of_one_token_time_is_enough() -> None:
    index = next(n for n, row in enumerate(FACTS.requests) if row.arm == "batching")
    times = list(FACTS.requests[index].token_times_s)
    times[-1] = math.nextafter(times[-1], math.inf)
    found = recompute_run(changed("requests", index, token_times_s=times))
    assert {each.column for each in found.differences if each.table == "trials"} <= {"itl_p50_s"}
    index = next(n for n, row in enumerate(FACTS.requests) if row.arm == "batching" and row.request_index == 3)
    end = FACTS.requests[index].end_s
    assert end is not None
    moved = recompute_run(changed("requests", index, end_s=math.nextafter(end, math.inf)))
    assert {each.column for each in moved.differences if each.table == "trials"} >= {"duration_s"}


@pytest.mark.parametrize(
    ("column", "value"),
    [("study_digest", "0" * 64), ("policy_digest", "0" * 64), ("seed", 8), ("blocks", 4), ("owner", "team:else"),
     ("status", "void"), ("reason", "because")],
)  # fmt: skip
def test_an_edited_row_of_the_run_itself_is_found(column: str, value: Any) -> None:
    found = recompute_run(dataclasses.replace(FACTS, study=dataclasses.replace(FACTS.study, **{column: value})))
    assert (column, value) in {(each.column, each.stored) for each in found.differences if each.table == "studies"}


def test_an_edited_policy_is_found_by_its_digest_and_by_its_gates() -> None:
    text = FACTS.study.policy_json.replace('"at_least":1.1', '"at_least":1.01')
    assert text != FACTS.study.policy_json
    found = recompute_run(dataclasses.replace(FACTS, study=dataclasses.replace(FACTS.study, policy_json=text)))
    assert {"policy_digest", "study_digest"} <= {each.column for each in found.differences if each.table == "studies"}
    assert ("gate_results", "bound") in {(each.table, each.column) for each in found.differences}


def test_an_edited_study_is_found_by_its_digest() -> None:
    text = FACTS.study.study_json.replace('"e2e_s":5.0', '"e2e_s":0.05')
    assert text != FACTS.study.study_json
    found = recompute_run(dataclasses.replace(FACTS, study=dataclasses.replace(FACTS.study, study_json=text)))
    assert "study_digest" in {each.column for each in found.differences}
    assert ("trials", "goodput_per_s") in {(each.table, each.column) for each in found.differences}


@pytest.mark.parametrize(
    "change", [{"usd_per_hour": 0.5}, {"source": "hearsay"}, {"dated": date(2020, 1, 1)}, {"note": "discount"}]
)
@pytest.mark.parametrize("index", [0, 1])
def test_an_edited_price_is_found_by_the_digest_of_the_study(index: int, change: dict[str, Any]) -> None:
    found = recompute_run(changed("prices", index, **change))
    assert "study_digest" in {each.column for each in found.differences if each.table == "studies"}
    assert ("unit_costs" in tables(found)) == (index == 0 and "usd_per_hour" in change)


def test_prices_that_do_not_know_their_place_are_tried_in_every_order() -> None:
    rows = [dataclasses.replace(row, place=None) for row in FACTS.prices]
    for order in (rows, rows[::-1]):
        assert recompute_run(dataclasses.replace(FACTS, prices=order)).differences == []
    edited = [rows[0], dataclasses.replace(rows[1], source="hearsay")]
    assert {each.column for each in recompute_run(dataclasses.replace(FACTS, prices=edited)).differences} == {
        "study_digest"
    }
    many = [*rows, *(dataclasses.replace(rows[1], price=f"price-{n}") for n in range(8))]
    found = recompute_run(dataclasses.replace(FACTS, prices=many))
    assert found.differences == []
    assert "study_digest is not compared" in found.notes[0]


@pytest.mark.parametrize(
    "column", ["weights_digest", "engine_version", "args_json", "env_json", "resolved_json", "role"]
)
def test_an_edited_arm_is_found(column: str) -> None:
    index = next(n for n, row in enumerate(FACTS.arms) if row.arm == "batching")
    value = {"role": "identity"}.get(column, '{"max_num_seqs":99}')
    found = recompute_run(changed("arms", index, **{column: value}))
    named = {each.column for each in found.differences if each.table == "arms"}
    assert named == {column if column in ("args_json", "env_json", "role") else "deployment_digest"}


def test_rows_of_another_deployment_make_the_run_void() -> None:
    found = recompute_run(changed("trials", 0, deployment_digest="0" * 64))
    assert {("studies", "status"), ("studies", "reason"), ("verdicts", "verdict")} <= {
        (each.table, each.column) for each in found.differences
    }


def test_a_void_run_is_recomputed_with_its_reasons() -> None:
    facts = recorded_void()
    assert facts.study.status == "void"
    assert {row.verdict for row in facts.verdicts} == {"void"}
    assert recompute_run(facts).differences == []
    believed = dataclasses.replace(facts, study=dataclasses.replace(facts.study, status="complete", reason=None))
    assert {each.column for each in recompute_run(believed).differences} == {"status", "reason"}
    contract = dataclasses.replace(facts.study, reason=f"{facts.study.reason}; data contract of trials: 1 row")
    assert recompute_run(dataclasses.replace(facts, study=contract)).differences == []
    wrong = dataclasses.replace(facts.study, reason="somebody said so")
    assert [each.column for each in recompute_run(dataclasses.replace(facts, study=wrong)).differences] == ["reason"]


def recorded_void() -> Facts:
    """The same run, had nobody seen the known harm."""
    import recorded_run

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recorded_run.WRONG, "known-bad", 20)
        return recorded()


def test_an_unfinished_run_lacks_rows_and_is_no_worse_for_it() -> None:
    derived = ("comparisons", "gates", "verdicts", "unit_costs", "promotions", "suites", "samples", "divergences")
    nothing: dict[str, Any] = {name: [] for name in derived}
    running = dataclasses.replace(FACTS.study, status="running", finished_at=None)
    found = recompute_run(dataclasses.replace(FACTS, study=running, **nothing))
    assert found.differences == []
    assert "running" in found.notes[0]
    contract = dataclasses.replace(FACTS.study, status="void", reason="data contract of trials: 3 rows")
    assert recompute_run(dataclasses.replace(FACTS, study=contract, **nothing)).differences == []
    assert recompute_run(dataclasses.replace(FACTS, **nothing)).differences
    edited = dataclasses.replace(changed("trials", 0, ttft_p50_s=9.0), study=running, **nothing)
    assert [each.column for each in recompute_run(edited).differences] == ["ttft_p50_s"]


def test_a_column_that_no_row_of_the_run_knows_was_not_recorded() -> None:
    old = [dataclasses.replace(row, empty=None, truncated=None) for row in FACTS.suites]
    found = recompute_run(dataclasses.replace(FACTS, suites=old))
    assert found.differences == []
    assert "empty, truncated not compared" in found.notes[0]
    index = next(n for n, row in enumerate(FACTS.suites) if row.route == "chat")
    old[index] = FACTS.suites[index]
    assert {each.column for each in recompute_run(dataclasses.replace(FACTS, suites=old)).differences} == {
        "empty", "truncated",
    }  # fmt: skip


def test_a_reason_that_only_the_client_could_know_is_as_stored_and_counted() -> None:
    said = ["the client read first tokens together with later ones up to 9.0 ms late (95 % of them)"]
    running = dataclasses.replace(FACTS.study, status="running")
    facts = dataclasses.replace(changed("trials", 0, valid=False, invalid_reasons=said), study=running)
    nothing: dict[str, Any] = {name: [] for name in ("comparisons", "gates", "verdicts", "unit_costs", "promotions")}
    found = recompute_run(dataclasses.replace(facts, **nothing))
    assert found.differences == []
    assert any("1 reasons against trials" in note for note in found.notes)
    facts = dataclasses.replace(changed("trials", 0, valid=True, invalid_reasons=said), study=running)
    found = recompute_run(dataclasses.replace(facts, **nothing))
    assert [each.column for each in found.differences] == ["valid"]
    warm = changed("trials", 0, valid=False, invalid_reasons=["its prefix cache could not be reset, so"])
    named = {(each.table, each.column) for each in recompute_run(warm).differences}
    assert {("trials", "valid"), ("trials", "invalid_reasons")} <= named


@pytest.mark.parametrize("column", ["study_json", "policy_json"])
@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_study_that_cannot_be_read_names_the_version_that_can(column: str, text: str) -> None:
    with pytest.raises(InputError, match=r"Use the Steelyard that wrote it: 0\.1\.0") as caught:
        recompute_run(dataclasses.replace(FACTS, study=dataclasses.replace(FACTS.study, **{column: text})))
    assert RUN in str(caught.value)
    assert caught.value.field == column


def test_a_difference_is_one_sentence() -> None:
    row = FACTS.comparisons[0]
    [said] = map(
        str, recompute_run(changed("comparisons", 0, estimate=math.nextafter(row.estimate or 0, 9))).differences
    )
    assert said.startswith(
        f"comparisons, arm {row.arm}, metric {row.metric}, scope {row.scope}: estimate is stored as "
    )
    assert said.endswith(" of it).")
    reasons = [*FACTS.verdicts[0].reasons[:-1], "edited"]
    [said] = map(str, recompute_run(changed("verdicts", 0, reasons=reasons)).differences)
    assert f"reasons differs from entry {len(reasons)} on: stored 'edited', recomputed " in said


def test_a_thinned_run_is_recomputed_from_its_trials_on() -> None:
    thinning = ThinningRow(
        run_id=FACTS.study.run_id, thinned_at=datetime(2027, 3, 1, tzinfo=UTC), after_days=90, keep=0.5,
        requests_before=len(FACTS.requests), requests_kept=len(FACTS.requests) // 2,
    )  # fmt: skip
    thinned = dataclasses.replace(FACTS, thinnings=[thinning], requests=FACTS.requests[::2])
    found = recompute_run(thinned)
    assert found.differences == []
    assert any("Retention thinned its requests on 2027-03-01" in note for note in found.notes)
    assert recompute_run(dataclasses.replace(FACTS, requests=FACTS.requests[::2])).differences
    slower = dataclasses.replace(thinned.trials[0], output_tokens_per_s=1.0)
    assert recompute_run(dataclasses.replace(thinned, trials=[slower, *thinned.trials[1:]])).differences
