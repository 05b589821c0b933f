"""Rows of a search for the best stack: what was asked, and every stack of every round."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from steelyard.records_base import ARM, RUN, Row, col


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRow(Row):
    TABLE = "searches"
    KEY = ("run_id",)
    MEANING = (
        "One search for the best stack of a study's levers (`steelyard tune`). It judges nobody: see confirmed_by."
    )

    run_id: str = col(RUN)
    source: str = col("Name of the study that was searched.")
    source_digest: str = col("sha256 of that study as validated, policy and prices included.")
    goal: str = col("Metric that was maximised, geometric mean over the load points.")
    load_points: list[str] = col("Load points it was searched over.")
    settings_json: str = col("What the search was told: levers, numbers and limits, as canonical JSON.")
    surveyed_by: str | None = col("Run whose survey gave the predictions; NULL where none was there.")
    levers: list[str] = col("Levers that could be pulled here, most promising first.")
    left_out_json: str = col("Levers that could not, and why, as canonical JSON.")
    budget_s: float = col("Wall time it was given, of which seven tenths are the search's.", "s")
    spent_s: float = col("Wall time the search itself took, in all its sittings.", "s")
    journal_json: str = col(
        "What was asked of its engines, what came of it and what had been spent then, in order: canonical JSON, which "
        "a resumed search goes through again. Trials of blocks that are not in it were cut off."
    )
    winner: str | None = col("Arm that the search found best; NULL if nothing paid, or while it runs.")
    fallback: str | None = col("The best arm that changes nothing but rounding, where the winner risks more.")
    stopped: str | None = col("Why it ended early; NULL if nothing was left to try.")
    confirmed_by: str | None = col("Run of the study that judged the winner afresh; NULL if none did.")
    searched_at: datetime = col("When this row was last written.", "UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class StackRow(Row):
    TABLE = "stacks"
    KEY = ("run_id", "round", "arm")
    MEANING = "One stack of levers in one round of a search: what it was held against there, and what became of it."

    run_id: str = col(RUN)
    round: int = col("Round of the search, from 1: stacks of a round share their blocks. 0 before the first.")
    arm: str = col(ARM)
    stage: str = col("start, screen (levers alone), stack (together) or numbers.")
    pulled: list[str] = col("Levers it pulls, in the order they were taken.")
    numbers_json: str = col("Numeric arguments the search set over them, as canonical JSON.")
    change_json: str = col("What it changes on the baseline, as a candidate of a study writes it: canonical JSON.")
    answer_risk: str = col("The gravest risk of its levers: none, rounding, approximation, unknown, damage.")
    against: str = col("Arm it was held against: the best so far.")
    varied: str = col("What distinguishes it from that: + a lever more, - a lever less, or numbers.")
    blocks_measured: int = col("Blocks of this round it was measured in.", "blocks")
    gain: float | None = col("The goal over that of `against`, by everything measured; NULL if it was not.", "ratio")
    gain_low: float | None = col("Lower end, 90 %.", "ratio")
    gain_high: float | None = col("Upper end.", "ratio")
    total: float | None = col("The goal over the baseline's, by everything measured.", "ratio")
    total_low: float | None = col("Lower end, 90 %.", "ratio")
    total_high: float | None = col("Upper end.", "ratio")
    tokens_ratio: float | None = col("Output tokens/s over the baseline's.", "ratio")
    latency_ratio: float | None = col("Median end-to-end latency over the baseline's.", "ratio")
    usd_per_million: float | None = col("Geometric mean over the load points, output tokens.", "USD/1e6 tokens")
    on_front: bool = col("Whether no other stack is better in throughput, latency, cost and risk at once.")
    fate: str = col("kept, slower, no gain, undecided, failed, harmful or not tried.")
    reason: str | None = col("Why, where figures do not say it.")


SEARCH_ROWS: tuple[type[Row], ...] = (SearchRow, StackRow)
