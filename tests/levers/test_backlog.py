"""`steelyard opportunities`: what to try next, from what is published."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from comparison_rows import speed_comparison
from profile_rows import profile_rows

from steelyard.cli import main
from steelyard.cli_opportunities import backlog, show
from steelyard.records import VerdictRow
from steelyard.records_profile import OpportunityRow

NOW = datetime(2026, 11, 22, tzinfo=UTC)
LAPTOP = Path(__file__).parents[2] / "studies" / "laptop"


def rows() -> list[OpportunityRow]:
    made = profile_rows("run-1", ["chat@c2", "long@c4"], "d", NOW, {"batching": 2.0})
    return [row for row in made if isinstance(row, OpportunityRow)]


COMPARISON = speed_comparison("batching", "chat@c2", 2.2, run_id="run-1")
VERDICT = VerdictRow(
    run_id="run-1", arm="batching", role="candidate", verdict="promote", reasons=[], deployment_digest=None,
    baseline_digest=None, policy_digest="p", decided_at=NOW,
)  # fmt: skip


def test_each_lever_is_one_line_where_it_promises_most(capsys: pytest.CaptureFixture[str]) -> None:
    found = backlog("run-1", rows(), [COMPARISON], [VERDICT])
    assert [row.name for row in found.rows] == ["batching", "omp-threads", "suffix-speculation"]
    assert show(found, as_json=False) == 0
    text = capsys.readouterr().out
    assert text.index("Not tried yet") < text.index("omp-threads") < text.index("Tried") < text.index("batching")
    assert "2.20×" in text
    assert "promote" in text
    assert "suffix-speculation: there is no model of it" in text


def test_as_json_it_holds_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    show(
        backlog("run-1", rows(), [COMPARISON], [VERDICT]),
        as_json=True,
    )
    told = json.loads(capsys.readouterr().out)
    assert told[0]["measured"] == 2.2
    assert told[0]["verdict"] == "promote"
    assert told[1]["measured"] is None
    assert told[2]["reason"] == "there is no model of it"


def test_without_a_run_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path))
    assert main(["opportunities", str(LAPTOP)]) == 2
    assert "Run a study first" in capsys.readouterr().err
