"""A whole Dagster run on the fake engine, through the command a user types."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import duckdb
import pytest
from fake_study import SMALL, write_fake_study
from tests_support import processes_below, until

pytestmark = pytest.mark.e2e


def steelyard(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "steelyard", *args],
        env={**os.environ, "STEELYARD_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("e2e")
    done = steelyard(folder / "var", "run", str(write_fake_study(folder / "study")))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return {"home": folder / "var", "done": done, "result": json.loads(done.stdout.strip().splitlines()[-1])}


@pytest.fixture(scope="module")
def published(ran: dict[str, Any]) -> Any:
    with duckdb.connect(ran["result"]["warehouse"], read_only=True) as connection:
        yield connection


def test_known_truth_is_found(ran: dict[str, Any]) -> None:
    assert ran["result"]["verdicts"] == {
        "batching": "promote",
        "fast-but-unsafe": "reject",
        "identity": ran["result"]["verdicts"]["identity"],
        "known-bad": "reject",
    }
    assert ran["result"]["verdicts"]["identity"] in {"reject", "inconclusive"}


def test_rejection_names_the_harm(published: Any) -> None:
    reasons = published.execute("SELECT reasons FROM verdicts WHERE arm = 'fast-but-unsafe'").fetchone()[0]
    assert "rejected" in reasons[0]
    assert "refusal" in reasons[0]


def test_what_was_promoted_is_served_and_nothing_else(ran: dict[str, Any]) -> None:
    study = str(ran["home"].parent / "study")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serving = subprocess.Popen(
        [sys.executable, "-m", "steelyard", "serve-promoted", study, "--port", str(port)],
        env={**os.environ, "STEELYARD_HOME": str(ran["home"])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert serving.stdout is not None
    said = [serving.stdout.readline() for _ in range(3)]
    assert said[0].startswith("batching of study fake, promoted by run "), (said, serving.poll())
    assert f"http://127.0.0.1:{port}/v1" in said[2]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as answer:
        assert json.load(answer)["data"][0]["id"] == "fake-model"
    serving.send_signal(signal.SIGTERM)
    out, err = serving.communicate(timeout=30)
    assert (serving.returncode, out.strip(), err) == (0, "stopped", "")
    for arguments, why in (
        (["serve-promoted", study, "--arm", "fast-but-unsafe"], "fast-but-unsafe is not promoted in study fake"),
        (["bundle", study], "runs on the engine fake"),
    ):
        refused = steelyard(ran["home"], *arguments)
        assert refused.returncode == 2
        assert why in refused.stderr


def test_only_the_promoted_is_in_force(published: Any) -> None:
    assert published.execute("SELECT arm FROM promotions").fetchall() == [("batching",)]


def test_a_verdict_joins_down_to_requests_and_samples(published: Any) -> None:
    requests, samples, documents = published.execute(
        """
        SELECT (SELECT count(*) FROM requests r JOIN trials t USING (trial_id) WHERE t.arm = v.arm),
               (SELECT count(*) FROM samples s WHERE s.run_id = v.run_id AND s.arm = v.arm),
               (SELECT sum(documents) FROM suites s WHERE s.run_id = v.run_id AND s.arm = v.arm)
        FROM verdicts v WHERE arm = 'batching'
        """
    ).fetchone()
    assert requests == 5 * 32
    # Only whole clusters are asked.
    assert 2 * 235 + 140 <= samples == documents <= 2 * 240 + 140


def test_the_screen_sees_what_is_there_and_nothing_else(ran: dict[str, Any], published: Any) -> None:
    seen = published.execute(
        "SELECT arm, prompts, compared, kl_nats, same_answers, error FROM divergence_by_arm ORDER BY arm"
    ).fetchall()
    of = {arm: rest for arm, *rest in seen}
    assert set(of) == {"batching", "fast-but-unsafe", "identity", "known-bad"}
    assert of["identity"] == of["batching"] == [24, 24, 0.0, 24, None]
    for arm, most in (("fast-but-unsafe", 23), ("known-bad", 20)):
        prompts, compared, kl, same, error = of[arm]
        assert (prompts, compared, error) == (24, 24, None)
        assert kl > 0
        assert 0 < same <= most
    outcomes = dict(published.execute("SELECT arm, outcome FROM gate_results WHERE gate = 'screen'").fetchall())
    assert outcomes["identity"] == outcomes["batching"] == "pass"
    assert outcomes["known-bad"] == "fail"
    assert "Divergence from the baseline" in Path(ran["result"]["report"]).read_text()
    assert "Divergence from the baseline" in ran["done"].stdout


def test_every_measured_row_carries_its_deployment(published: Any) -> None:
    for table in ("trials", "requests", "samples", "suites", "engine_metrics", "divergences"):
        lost = published.execute(
            f"SELECT count(*) FROM {table} m JOIN arms a USING (run_id, arm) "
            "WHERE m.deployment_digest IS DISTINCT FROM a.deployment_digest"
        ).fetchone()[0]
        assert lost == 0, table


def test_identity_is_the_same_deployment_and_others_are_not(published: Any) -> None:
    digests = dict(published.execute("SELECT arm, deployment_digest FROM arms").fetchall())
    assert digests["identity"] == digests["baseline"]
    assert len(set(digests.values())) == len(digests) - 1


def test_the_report_is_one_page_without_network(ran: dict[str, Any]) -> None:
    page = Path(ran["result"]["report"]).read_text()
    assert "fast-but-unsafe" in page
    assert 'src="http' not in page


def test_state_stays_in_its_home(ran: dict[str, Any]) -> None:
    assert {path.name for path in ran["home"].iterdir()} <= {
        "warehouse.duckdb", "published", "reports", "logs", "dagster", "weights", "cache", "tmp", "run.lock",
        "ledger", "packets",
    }  # fmt: skip


def test_every_second_of_the_run_is_in_one_step_and_one_state(ran: dict[str, Any], published: Any) -> None:
    ((wall_s, answering_s, starting_s, idle_s, took_s),) = published.execute(
        "SELECT wall_s, answering_s, starting_s, idle_s, epoch(finished_at - started_at) "
        "FROM overhead JOIN studies USING (run_id)"
    ).fetchall()
    assert wall_s == pytest.approx(answering_s + starting_s + idle_s)
    # The run's row is written once Dagster is imported, which is the run's time too.
    assert took_s < wall_s < took_s + 30
    assert min(answering_s, starting_s) > 0
    asked = dict(published.execute("SELECT step, sum(wall_s) FROM wall_times GROUP BY step").fetchall())
    assert set(asked) == {"arms", "screen", "suites", "trials", "rest"}
    assert "engines answered" in ran["done"].stdout
    assert "Where the time went" in Path(ran["result"]["report"]).read_text()


def test_it_recomputes_bit_for_bit(ran: dict[str, Any]) -> None:
    done = steelyard(ran["home"], "recompute", "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["differences"] == []
    assert found["tables"]["verdicts"]["values"] > 0


def test_no_process_is_left(ran: dict[str, Any]) -> None:
    assert processes_below(ran["home"]) == []


def test_a_second_run_keeps_the_first_and_shares_its_home_with_no_third(ran: dict[str, Any], tmp_path: Path) -> None:
    home, study = ran["home"], str(write_fake_study(tmp_path / "study", suites=SMALL, blocks=3))
    second = subprocess.Popen(
        [sys.executable, "-m", "steelyard", "run", study, "--quiet"], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "STEELYARD_HOME": str(home)},
    )  # fmt: skip
    assert until(lambda: len(list((home / "logs").glob("*-fake-*"))) == 2, 60)
    refused = steelyard(home, "run", study)
    assert (refused.returncode, "run.lock" in refused.stderr) == (4, True)
    _, err = second.communicate(timeout=240)
    assert second.returncode == 0, err[-3000:]
    # From Parquet: this process still holds the first snapshot open, and within one process DuckDB shares it.
    with duckdb.connect() as connection:
        parquet = ran["home"] / "published" / "parquet" / "studies" / "*.parquet"
        runs = connection.execute(f"SELECT status, count(*) FROM '{parquet}' GROUP BY ALL").fetchall()
    assert runs == [("complete", 2)]
