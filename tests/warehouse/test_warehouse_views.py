from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from steelyard.records import ArmRow, ComparisonRow, GateRow, StudyRow
from steelyard.records_trials import TrialRow
from warehouse.store import Store

START = datetime(2026, 3, 1, 22, 0, 0, 123456, tzinfo=UTC)
"""Begin of the factory's run."""


def test_each_verdict_gate_stands_beside_the_comparison_it_judged(filled: Store, rows: Any) -> None:
    frame = filled.query("SELECT * FROM verdict_evidence")
    assert len(frame) == len(rows.gates)
    assert (frame.estimate.isna() == frame.compared_estimate.isna()).all()
    known = frame.dropna(subset=["estimate"])
    assert (known.estimate == known.compared_estimate).all()
    assert (known.low.fillna(0) == known.compared_low.fillna(0)).all()
    assert set(frame.arm) == {"int8", "again", "broken"}
    assert set(frame[frame.arm == "int8"].lever) == {"quantization"}


def test_a_verdict_without_gates_and_a_gate_without_evidence_stay_visible(filled: Store, rows: Any) -> None:
    lonely = dataclasses.replace(rows.verdicts[0], arm="dead", verdict="inconclusive")
    blind = dataclasses.replace(rows.gates[0], scope="-", gate="unseen", estimate=None, low=None, high=None, n=0)
    filled.write([lonely], [blind])
    dead = filled.query("SELECT * FROM verdict_evidence WHERE arm = 'dead'")
    assert len(dead) == 1
    assert dead.gate.isna().all()
    unseen = filled.query("SELECT * FROM verdict_evidence WHERE gate = 'unseen'")
    assert len(unseen) == 1
    assert unseen.method.isna().all()


def test_requests_of_both_sides_lead_back_to_the_verdict(filled: Store, rows: Any) -> None:
    frame = filled.query("SELECT * FROM request_evidence WHERE arm = 'int8'")
    assert len(frame) == sum(row.arm in ("int8", "baseline") for row in rows.requests)
    assert set(zip(frame.side, frame.measured_arm, strict=True)) == {("arm", "int8"), ("baseline", "baseline")}
    pairs = frame.groupby(["load_point", "block", "request_index"]).prompt_hash
    assert (pairs.nunique() == 1).all()
    assert (pairs.count() == 2).all()


def test_latency_starts_when_the_load_says_so(filled: Store, rows: Any) -> None:
    frame = filled.query("SELECT * FROM request_evidence WHERE arm = 'broken' AND side = 'arm' ORDER BY trial_id")
    open_loop, closed = frame[frame.load_point == "chat@r4"], frame[frame.load_point == "chat@c2"]
    assert open_loop.ttft_s.dropna().tolist() == (open_loop.first_token_s - open_loop.scheduled_s).dropna().tolist()
    assert closed.ttft_s.dropna().tolist() == (closed.first_token_s - closed.sent_s).dropna().tolist()
    failed = frame[frame.status != "ok"]
    assert len(failed) == 6
    assert failed.ttft_s.isna().all()
    assert failed.e2e_s.isna().all()
    assert set(frame[~frame.valid].block) == {2}


def test_trial_pairs_give_the_stored_speed_comparisons(filled: Store, rows: Any) -> None:
    found = filled.query(
        "SELECT arm, load_point, exp(avg(ln(output_tokens_per_s_ratio))) AS ratio, count(*) AS n "
        "FROM trial_pairs WHERE comparable GROUP BY ALL"
    )
    stored = {(row.arm, row.scope): row for row in rows.comparisons if row.metric == "output_tokens_per_s"}
    assert len(found) == len(stored) == 6
    for pair in found.itertuples():
        comparison = stored[pair.arm, pair.load_point]
        assert pair.n == comparison.n
        assert math.isclose(pair.ratio, comparison.estimate)


def test_a_block_one_side_lacks_keeps_its_row(filled: Store, rows: Any) -> None:
    gone = next(row for row in rows.trials if (row.arm, row.block, row.load_point) == ("baseline", 1, "chat@c2"))
    filled.replace_run("run-1", TrialRow, [row for row in rows.trials if row is not gone])
    frame = filled.query("SELECT * FROM trial_pairs WHERE load_point = 'chat@c2' AND block = 1")
    assert sorted(frame.arm) == ["again", "broken", "int8"]
    assert frame.baseline_trial_id.isna().all()
    assert not frame.comparable.any()
    other = filled.query("SELECT * FROM trial_pairs WHERE load_point = 'chat@r4' AND block = 1")
    assert other.baseline_trial_id.notna().all()


def flip(store: Store, suite: str, arm: str, document: int) -> pd.Series:
    frame = store.query(
        "SELECT * FROM sample_pairs WHERE suite = ? AND arm = ? AND prompt LIKE ?",
        [suite, arm, f"Question {document}:%"],
    )
    assert len(frame) == 1
    return frame.iloc[0]


def test_every_kind_of_flip_has_its_name(filled: Store) -> None:
    assert flip(filled, "refusal", "int8", 1).flip == "safe_to_unsafe"
    assert flip(filled, "refusal", "int8", 2).flip == "unsafe_to_safe"
    assert flip(filled, "facts", "int8", 1).flip == "lost"
    assert flip(filled, "facts", "int8", 2).flip == "gained"
    assert flip(filled, "facts", "again", 1).flip == "same"
    failed, absent, unasked = (flip(filled, "facts", "int8", document) for document in (0, 3, 4))
    assert (failed.flip, failed.missing_on, failed.arm_error) == ("missing", "arm", "HTTP 500")
    assert (absent.flip, absent.missing_on) == ("missing", "arm")
    assert (absent.baseline_answer, absent.arm_answer) == ("yes", None)
    assert (unasked.flip, unasked.missing_on) == ("missing", "baseline")
    assert (unasked.baseline_answer, unasked.arm_answer) == (None, "yes")
    assert (absent.baseline_counted, absent.arm_counted) == (1, 0)
    assert (unasked.baseline_counted, unasked.arm_counted) == (1, 1)


def test_sample_pairs_give_the_stored_quality_comparisons(filled: Store, rows: Any) -> None:
    found = filled.query(
        "SELECT arm, suite, avg(arm_counted - baseline_counted) AS difference, count(arm_counted) AS n, "
        "count(*) FILTER (WHERE flip = 'missing') AS n_missing, "
        "count(*) FILTER (WHERE baseline_counted >= 0.5 AND arm_counted < 0.5) AS to_unsafe "
        "FROM sample_pairs GROUP BY arm, suite"
    )
    stored = {(row.arm, row.scope, row.metric): row for row in rows.comparisons}
    assert len(found) == 6
    for pair in found.itertuples():
        score = stored[pair.arm, pair.suite, "score"]
        assert (pair.n, pair.n_missing) == (score.n, score.n_missing)
        assert math.isclose(pair.difference, score.estimate, abs_tol=1e-12)
        if pair.suite == "refusal":
            assert pair.to_unsafe == stored[pair.arm, pair.suite, "safe_to_unsafe"].lost


def test_an_incomplete_suite_makes_no_pairs(filled: Store) -> None:
    with filled.exclusive() as connection:
        connection.execute("DELETE FROM suites WHERE arm = 'int8' AND suite = 'facts'")
    assert filled.scalar("SELECT count(*) FROM sample_pairs WHERE arm = 'int8' AND suite = 'facts'") == 0
    assert filled.scalar("SELECT count(*) FROM sample_pairs WHERE arm = 'again' AND suite = 'facts'") > 0


def test_what_an_arm_was_never_asked_is_not_missing(filled: Store) -> None:
    """A suite that stopped early, because its gates were decided: only its beginning makes pairs."""
    with filled.exclusive() as connection:
        connection.execute(
            "UPDATE samples SET position = placed.place FROM (SELECT doc_hash, prompt_hash, "
            "row_number() OVER (ORDER BY doc_hash) - 1 AS place FROM samples "
            "WHERE suite = 'facts' AND arm = 'baseline') AS placed "
            "WHERE samples.suite = 'facts' AND samples.doc_hash = placed.doc_hash"
        )
        connection.execute("DELETE FROM samples WHERE suite = 'facts' AND arm = 'again' AND position >= 4")
        connection.execute("UPDATE suites SET documents = 3, duplicates = 1 WHERE suite = 'facts' AND arm = 'again'")
    frame = filled.query("SELECT * FROM sample_pairs WHERE suite = 'facts' AND arm = 'again'")
    assert len(frame) == 4
    assert "missing" not in set(frame.flip)


def test_flips_show_both_answers_and_only_changes(filled: Store) -> None:
    frame = filled.query("SELECT * FROM flips")
    assert set(frame.flip) == {"safe_to_unsafe", "unsafe_to_safe", "gained", "lost"}
    assert (frame.baseline_answer != frame.arm_answer).all()
    assert frame.notna().all()[["baseline_answer", "arm_answer", "role", "study"]].all()
    assert "again" not in set(frame.arm)


def test_divergence_by_arm_gives_the_stored_comparisons(filled: Store, rows: Any) -> None:
    frame = filled.query("SELECT * FROM divergence_by_arm").set_index("arm")
    stored = {(row.arm, row.metric): row for row in rows.comparisons if row.category == "divergence"}
    assert set(frame.index) == {arm for arm, _ in stored} == {"int8", "again", "broken"}
    for arm, one in frame.iterrows():
        kl, top, same = (stored[arm, metric] for metric in ("kl_nats", "top1_agreement", "same_answer"))
        assert (one.compared, one.prompts) == (kl.n, kl.n + kl.n_missing)
        assert math.isclose(one.kl_nats, kl.estimate, abs_tol=1e-12)
        assert one.kl_nats_low == kl.low
        assert math.isclose(one.top1_agreement, top.estimate)
        assert (one.answered - one.same_answers, one.answered) == (same.lost, same.n)
    assert frame.loc["broken"].error == "HTTP 500"
    assert math.isnan(frame.loc["again"].first_divergent_token_p50)
    assert frame.loc["int8"].first_divergent_token_p50 == 1
    assert (frame.loc["again"].role, frame.loc["int8"].lever) == ("identity", "quantization")


def test_cost_stands_beside_the_baseline_and_its_source(filled: Store, rows: Any) -> None:
    frame = filled.query("SELECT * FROM cost_per_million_tokens")
    assert len(frame) == len(rows.unit_costs)
    cheap = frame[(frame.arm == "int8") & (frame.load_point == "chat@c2")].iloc[0]
    assert (cheap.source, cheap.role, str(cheap.dated)[:10]) == ("an invoice", "candidate", "2026-02-01")
    assert cheap.usd_per_million_output_tokens < cheap.baseline_usd_per_million_output_tokens
    assert cheap.output_ratio == pytest.approx(1 / 1.4)
    assert frame[frame.arm == "baseline"].output_ratio.isna().all()


def test_the_noise_floor_is_the_identity_control(filled: Store, rows: Any) -> None:
    frame = filled.query("SELECT * FROM noise_floor")
    assert len(frame) == sum(row.arm == "again" for row in rows.comparisons)
    assert set(frame.arm) == {"again"}
    speed = frame[(frame.metric == "output_tokens_per_s") & (frame.scope == "chat@c2")].iloc[0]
    assert speed.differs_from_itself
    assert speed.half_width == (speed.high - speed.low) / 2
    shares = frame[frame.kind == "share"]
    assert len(shares)
    assert shares.differs_from_itself.isna().all()
    wide = dataclasses.replace(
        next(row for row in rows.comparisons if row.arm == "again" and row.metric == "output_tokens_per_s"),
        low=0.9, high=1.1,
    )  # fmt: skip
    filled.write([wide])
    assert not filled.scalar(
        "SELECT differs_from_itself FROM noise_floor WHERE metric = ? AND scope = ?", [wide.metric, wide.scope]
    )


def test_unknown_bounds_of_the_noise_floor_stay_unknown(filled: Store, rows: Any) -> None:
    row = next(row for row in rows.comparisons if row.arm == "again")
    filled.replace_run("run-1", ComparisonRow, [dataclasses.replace(row, estimate=None, low=None, high=None)])
    frame = filled.query("SELECT half_width, differs_from_itself FROM noise_floor")
    assert frame.isna().all().all()


def test_latest_runs(filled: Store, rows_of: Callable[..., Any], study_of: Callable[..., Any], rows: Any) -> None:
    later = rows.study.started_at + timedelta(days=1)
    filled.write(rows_of("run-2", later).all())
    filled.write([study_of("run-3", later + timedelta(days=1), status="failed", reason="no disk", finished_at=None)])
    filled.write([study_of("other-1", study="other")])
    frame = filled.query("SELECT * FROM latest_runs ORDER BY study").set_index("study")
    assert frame.run_id.to_dict() == {"nightly-chat": "run-3", "other": "other-1"}
    newest = frame.loc["nightly-chat"]
    assert (newest.status, newest.latest_complete_run_id, newest.trials) == ("failed", "run-2", 0)
    with filled.exclusive() as connection:
        connection.execute("DELETE FROM studies WHERE run_id = 'run-3'")
    done = filled.query("SELECT * FROM latest_runs WHERE study = 'nightly-chat'").iloc[0]
    assert (done.run_id, done.trials, done.valid_trials, done.promoted, done.rejected) == ("run-2", 24, 22, 1, 0)


def test_runs_do_not_mix_in_any_view(filled: Store, rows_of: Callable[..., Any]) -> None:
    views = filled.query("SELECT view_name FROM duckdb_views() WHERE NOT internal").view_name.tolist()
    before = {view: filled.scalar(f"SELECT count(*) FROM {view}") for view in views}
    assert all(before.values()), before
    filled.write(rows_of("run-2").all())
    after = {view: filled.scalar(f"SELECT count(*) FROM {view}") for view in views}
    over_nights = ("latest_runs", "predictor_error", "best_verdicts", "nights")
    assert after == {view: count * (1 if view in over_nights else 2) for view, count in before.items()}


def test_the_baseline_is_known_by_its_role_not_its_name(filled: Store, rows: Any) -> None:
    filled.replace_run(
        "run-1", ArmRow,
        [dataclasses.replace(row, role={"baseline": "candidate", "again": "baseline"}.get(row.arm, row.role))
         for row in rows.arms],
    )  # fmt: skip
    assert set(filled.query("SELECT arm FROM sample_pairs").arm) == {"baseline", "int8", "broken"}


def test_nights_count_what_each_did(
    filled: Store, rows_of: Callable[..., Any], study_of: Callable[..., StudyRow]
) -> None:
    filled.write(rows_of("run-2", START + timedelta(days=1)).all())
    filled.write([study_of("run-3", START + timedelta(days=1, hours=1), status="failed", finished_at=None)])
    filled.write([study_of("theirs", START, status="imported")])
    found = filled.query("SELECT * FROM nights WHERE study = 'nightly-chat' ORDER BY night").to_dict("records")
    assert [(str(row["night"])[:10], row["runs"], row["complete"], row["failed"]) for row in found] == [
        ("2026-03-01", 1, 1, 0), ("2026-03-02", 2, 1, 1),
    ]  # fmt: skip
    assert [(row["promoted"], row["rejected"], row["trials"], row["requests"]) for row in found] == [
        (1, 0, 24, 192), (1, 0, 24, 192),
    ]  # fmt: skip
    assert found[0]["wall_s"] == 20 * 60


def test_thinning_requests_changes_no_count_of_a_night(filled: Store) -> None:
    before = filled.query("SELECT * FROM nights").to_dict("records")
    with filled.exclusive() as connection:
        connection.execute("DELETE FROM requests WHERE request_index > 2")
    assert filled.query("SELECT * FROM nights").to_dict("records") == before


def test_the_best_verdict_of_a_lever_is_the_one_that_proved_most(filled: Store, rows_of: Callable[..., Any]) -> None:
    [first] = filled.query("SELECT * FROM best_verdicts").to_dict("records")
    assert (first["model"], first["lever"], first["arm"], first["verdict"]) == (
        "reference", "quantization", "int8", "promote",
    )  # fmt: skip
    assert (first["judged"], first["promotes"], first["promoted"]) == (1, 1, True)
    later = rows_of("run-2", START + timedelta(days=1))
    better = [
        dataclasses.replace(row, low=1.9, estimate=2.0, high=2.1) if row.metric == "output_tokens_per_s" else row
        for row in later.gates
    ]
    filled.write([row for row in later.all() if not isinstance(row, GateRow)], better)
    [best] = filled.query("SELECT * FROM best_verdicts").to_dict("records")
    assert (best["run_id"], best["metric"], best["proven_gain"], best["gain"]) == (
        "run-2", "output_tokens_per_s", 1.9, 2.0,
    )  # fmt: skip
    assert (best["judged"], best["promotes"]) == (2, 2)
    refused = dataclasses.replace(next(row for row in later.verdicts if row.arm == "int8"), verdict="reject")
    filled.write([refused])
    [best] = filled.query("SELECT * FROM best_verdicts").to_dict("records")
    assert (best["run_id"], best["verdict"], best["promotes"]) == ("run-1", "promote", 1)


def test_a_void_run_has_no_best_verdict(filled: Store, rows: Any) -> None:
    filled.write([dataclasses.replace(rows.study, status="void")])
    assert filled.query("SELECT * FROM best_verdicts").empty


def test_a_trend_stands_beside_what_was_usual(filled: Store, rows_of: Callable[..., Any]) -> None:
    gains = (1.4, 1.4, 1.5, 1.4, 0.7)
    for night, gain in enumerate(gains[1:], start=1):
        run = rows_of(f"run-{night + 1}", START + timedelta(days=night))
        moved = [
            dataclasses.replace(row, estimate=gain)
            if (row.arm, row.metric, row.scope) == ("int8", "output_tokens_per_s", "chat@c2")
            else row
            for row in run.comparisons
        ]
        filled.write([row for row in run.all() if not isinstance(row, ComparisonRow)], moved)
    found = filled.query(
        "SELECT night, estimate, usual, change FROM metric_trend WHERE arm = 'int8' AND scope = 'chat@c2' "
        "AND metric = 'output_tokens_per_s' ORDER BY night"
    )
    assert found.estimate.tolist() == pytest.approx(gains)
    assert math.isnan(found.usual[0])
    assert found.usual[4] == pytest.approx(1.4)
    assert found.change[4] == pytest.approx(-0.5)
    scores = filled.query("SELECT * FROM metric_trend WHERE metric = 'score' AND arm = 'int8' ORDER BY night")
    assert scores.change.dropna().abs().max() == 0
