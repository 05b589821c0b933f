"""Dagster's own storage, in SQLite and in PostgreSQL: the settings hold, and the purge takes old runs only."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from pipelines.headless import POSTGRES, prepare_dagster_home
from pipelines.night_upkeep import purge
from steelyard.errors import InputError

pytestmark = pytest.mark.e2e


@dg.asset
def first() -> None:
    """An asset of one job."""


@dg.asset
def second() -> None:
    """An asset of another."""


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of our own on loopback; its server refuses to run as root."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        pytest.skip("no PostgreSQL is installed")
    folder = Path("/tmp") / f"steelyard-postgres-{os.getpid()}"
    folder.mkdir()
    user = pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else None
    if user is not None:
        os.chown(folder, user, -1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    made = ["initdb", "-D", str(data), "-A", "trust", "-U", "steelyard", "--no-sync"]
    subprocess.run(made, check=True, user=user, capture_output=True, cwd=folder)
    serve = ["postgres", "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
    with subprocess.Popen(serve, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder) as server:
        try:
            for _ in range(200):
                if (folder / f".s.PGSQL.{port}").exists():
                    break
                time.sleep(0.05)
            yield f"postgresql://steelyard@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(20)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def instance(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    if request.param == "postgres":
        monkeypatch.setenv(POSTGRES, request.getfixturevalue("postgres"))
    prepare_dagster_home()
    with dg.DagsterInstance.get() as opened:
        assert (
            type(opened.event_log_storage)
            .__name__.lower()
            .startswith("postgres" if request.param == "postgres" else "sqlite")
        )
        yield opened


def test_settings_hold_and_old_runs_are_purged(instance: dg.DagsterInstance) -> None:
    assert not instance.telemetry_enabled
    assert instance.run_monitoring_enabled
    assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
    for asset, times in ((first, 3), (second, 1)):
        job = dg.Definitions([asset], jobs=[dg.define_asset_job(f"make_{asset.key.path[-1]}", [asset])])
        for _ in range(times):
            assert job.resolve_job_def(f"make_{asset.key.path[-1]}").execute_in_process(instance=instance).success
    now = datetime.now(UTC)
    assert purge(instance, older_than=now - timedelta(days=1)) == []
    gone = purge(instance, older_than=now + timedelta(minutes=5))
    assert len(gone) == 2
    left = [record.dagster_run.job_name for record in instance.get_run_records()]
    assert sorted(left) == ["make_first", "make_second"]
    # What the UI shows of an asset is there as before.
    for asset in (first, second):
        assert instance.get_latest_materialization_event(asset.key) is not None


def test_a_database_without_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_HOME", str(tmp_path))
    monkeypatch.setenv(POSTGRES, "postgresql://nobody@127.0.0.1/none")
    monkeypatch.setattr("pipelines.headless.importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match="dagster-postgres is not installed"):
        prepare_dagster_home()
