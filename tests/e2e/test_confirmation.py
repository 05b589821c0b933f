"""A campaign of several candidates promotes nobody; its winner does, on documents and blocks that chose nobody."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from fake_study import write_fake_study

pytestmark = pytest.mark.e2e

CANDIDATES = [
    {"name": name, "lever": "batching", "claim": {"workload": "chat", "load": "c16"}, "args": {"max_num_seqs": slots}}
    for name, slots in (("wide", 16), ("middling", 8))
]
SUITES = [
    {"name": "facts", "task": "steelyard_facts", "category": "accuracy", "limit": 300, "sealed": 300},
    {"name": "refusal", "task": "steelyard_refusal", "category": "safety", "limit": 160, "sealed": 180},
]


def steelyard(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "steelyard", *arguments],
        env={**os.environ, "STEELYARD_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("confirm")
    study = write_fake_study(
        folder / "study", policy={"confirm": "winner"}, candidates=CANDIDATES, suites=SUITES, divergence=None, blocks=6,
        controls=[{"name": "identity", "kind": "identity"}],
    )  # fmt: skip
    # Without the screen its gates would be asked for in vain.
    policy = yaml.safe_load((study / "policy.yaml").read_text())
    policy["gates"] = [gate for gate in policy["gates"] if gate["category"] != "divergence"]
    (study / "policy.yaml").write_text(json.dumps(policy))
    home = folder / "var"
    early = steelyard(home, "confirm", str(study))
    first = steelyard(home, "run", str(study), "--quiet")
    assert first.returncode == 0, first.stderr[-3000:]
    second = steelyard(home, "confirm", str(study), "--quiet")
    assert second.returncode == 0, second.stderr[-3000:]
    told = [json.loads(each.stdout.strip().splitlines()[-1]) for each in (first, second)]
    with duckdb.connect(told[1]["warehouse"], read_only=True) as connection:
        yield {
            "early": early, "told": told, "home": home, "study": study,
            "ask": lambda sql, *values: connection.execute(sql, list(values)).fetchall(),
        }  # fmt: skip


def test_nobody_is_confirmed_before_the_campaign(ran: dict[str, Any]) -> None:
    assert ran["early"].returncode == 2
    assert "has no complete run" in ran["early"].stderr
    assert "Traceback" not in ran["early"].stderr


def test_the_campaign_promotes_nobody_and_the_confirmation_its_winner(ran: dict[str, Any]) -> None:
    campaign, confirmed = ran["told"]
    assert campaign["verdicts"]["wide"] == campaign["verdicts"]["middling"] == "promote"
    assert confirmed["study"] == "fake-confirmed"
    reasons = ran["ask"]("SELECT reasons FROM verdicts WHERE run_id = ? AND arm = 'wide'", confirmed["run_id"])
    assert confirmed["verdicts"]["wide"] == "promote", reasons
    assert "middling" not in confirmed["verdicts"]
    promoted = ran["ask"]("SELECT run_id, arm FROM promotions")
    assert promoted == [(confirmed["run_id"], "wide")]
    # In the campaign's name, so that its next run can end it.
    assert ran["ask"]("SELECT study, arm FROM promotions_in_force") == [("fake", "wide")]
    (asked,) = ran["ask"]("SELECT study_json->>'confirms' FROM studies WHERE run_id = ?", confirmed["run_id"])
    assert asked == (campaign["run_id"],)


def test_no_document_and_no_prompt_was_seen_before(ran: dict[str, Any]) -> None:
    campaign, confirmed = (each["run_id"] for each in ran["told"])
    for table, column in (("samples", "doc_hash"), ("requests", "prompt_hash")):
        (again,) = ran["ask"](
            f"SELECT count(*) FROM {table} WHERE run_id = ? AND {column} IN "
            f"(SELECT {column} FROM {table} WHERE run_id = ?)",
            confirmed,
            campaign,
        )
        assert again == (0,)
    sizes = dict(ran["ask"]("SELECT suite, documents FROM suites WHERE run_id = ? AND arm = 'wide'", confirmed))
    assert sizes["refusal"] == 180
    assert 300 <= sizes["facts"] <= 305


@pytest.mark.parametrize("which", [0, 1])
def test_both_runs_recompute(ran: dict[str, Any], which: int) -> None:
    done = steelyard(ran["home"], "recompute", ran["told"][which]["run_id"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_is_confirmed_once_and_only_its_own_winners(ran: dict[str, Any]) -> None:
    again = steelyard(ran["home"], "confirm", str(ran["study"]))
    assert again.returncode == 2
    assert f"has its confirmation already: {ran['told'][1]['run_id']}, complete" in again.stderr.replace("\n", " ")
    other = steelyard(ran["home"], "confirm", str(ran["study"]), "--arm", "middling")
    assert other.returncode == 2
    assert "has its confirmation already" in other.stderr.replace("\n", " ")
    stranger = steelyard(ran["home"], "confirm", str(ran["study"]), "--arm", "narrow")
    assert stranger.returncode == 2
    assert "narrow does not deserve promotion" in stranger.stderr.replace("\n", " ")
