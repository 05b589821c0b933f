"""Which run a step works on, and what happens to a run that may not be believed."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from fake_study import write_fake_study

from assets.released import publish_late, releasable, settle
from assets.runs import begin_run, conclude, new_run
from assets.session import Session
from pipelines.headless import confirmations
from steelyard.errors import InfrastructureError, StudyVoid
from steelyard.home import reports_path, snapshot_path
from steelyard.records import PromotionRow, StudyRow
from steelyard.records_quality import SuiteRow
from steelyard.reports import Contract
from steelyard.study_file import LoadedStudy, load_study
from warehouse.ledger import heads_path
from warehouse.schema import APPLIED
from warehouse.store import Store


def fake_study(folder: Path, **changes: object) -> LoadedStudy:
    return load_study(write_fake_study(folder, **changes))


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedStudy:
    return fake_study(tmp_path / "a")


def test_a_resumed_run_is_the_run_of_every_step(session: Session, loaded: LoadedStudy, tmp_path: Path) -> None:
    other = fake_study(tmp_path / "b", blocks=9)
    first = session.begin(loaded)
    later = dataclasses.replace(
        new_run(other, datetime.now(UTC) + timedelta(hours=1)), status="complete", finished_at=datetime.now(UTC)
    )
    session.store.write([later])
    assert session.begin(loaded) == first
    assert session.run(loaded).run_id == first.run_id
    assert session.run(other).run_id == later.run_id


def test_another_environment_begins_anew_and_gives_the_old_run_up(session: Session, loaded: LoadedStudy) -> None:
    old = dataclasses.replace(session.begin(loaded), packages_json='{"vllm":"0.1"}', run_id="old")
    session.store.write([old])
    conclude(session.store, session.run(loaded), "complete")
    assert session.begin(loaded).run_id != "old"
    [given_up] = session.store.read(StudyRow, run_id="old")
    assert given_up.status == "failed"
    assert "packages_json" in (given_up.reason or "")


def test_without_a_run_of_this_digest_there_is_an_error_not_another_run(
    session: Session, loaded: LoadedStudy, tmp_path: Path
) -> None:
    session.begin(loaded)
    with pytest.raises(InfrastructureError, match="no run"):
        session.run(fake_study(tmp_path / "b", blocks=9))


def test_a_half_measured_run_is_not_released(session: Session, loaded: LoadedStudy) -> None:
    session.begin(loaded)
    with pytest.raises(InfrastructureError, match="no verdict yet"):
        releasable(session, loaded)


def test_a_broken_contract_voids_exactly_its_run_and_takes_promotions_back(
    session: Session, loaded: LoadedStudy, tmp_path: Path
) -> None:
    sound = session.begin(fake_study(tmp_path / "b", study="sound"))
    run = session.begin(loaded)
    session.store.write([promotion(run), promotion(sound)])
    session.contracts[run.run_id]["requests"] = Contract(name="requests", passed=False, detail="end before start")
    with pytest.raises(StudyVoid, match="end before start"):
        releasable(session, loaded)
    settle(session)
    status = {row.run_id: (row.status, row.reason) for row in session.store.read(StudyRow)}
    assert status[run.run_id][0] == "void"
    assert "requests" in (status[run.run_id][1] or "")
    assert status[sound.run_id][0] == "running"
    assert [row.run_id for row in session.store.read(PromotionRow)] == [sound.run_id]
    session.contracts.clear()
    with pytest.raises(StudyVoid):
        releasable(session, loaded)


def promotion(run: StudyRow) -> PromotionRow:
    return PromotionRow(
        run_id=run.run_id,
        arm="batching",
        study=run.study,
        deployment_digest="a" * 64,
        baseline_digest="b" * 64,
        policy_digest=run.policy_digest,
        promoted_at=datetime.now(UTC),
    )


def test_what_an_older_steelyard_published_is_published_anew(session: Session, loaded: LoadedStudy) -> None:
    conclude(session.store, session.begin(loaded), "void", "for the test")
    publish_late(session)
    snapshot_path().chmod(0o644)
    with duckdb.connect(snapshot_path()) as older:
        older.execute("DELETE FROM schema_version WHERE name = (SELECT max(name) FROM schema_version WHERE name < 'a')")
    publish_late(session)
    with Store.open_published() as snapshot:
        assert snapshot.query(APPLIED).equals(session.store.query(APPLIED))


def test_a_run_that_was_given_up_decides_nothing(session: Session, loaded: LoadedStudy) -> None:
    now = datetime.now(UTC)
    run = dataclasses.replace(new_run(loaded, now), run_id="earlier", started_at=now - timedelta(hours=1))
    session.store.write([run, promotion(run)])
    assert begin_run(session.store, loaded, fresh=True).run_id != run.run_id
    assert session.store.read(PromotionRow) == []
    [given_up] = session.store.read(StudyRow, run_id=run.run_id)
    assert given_up.status == "failed"


def test_what_a_killed_process_concluded_is_published_by_the_next(session: Session, loaded: LoadedStudy) -> None:
    run = session.begin(loaded)
    publish_late(session)
    assert not snapshot_path().is_file(), "a run that goes on is nobody's business yet"
    conclude(session.store, run, "void", "for the test")
    publish_late(session)
    with Store.open_published() as snapshot:
        (row,) = snapshot.read(StudyRow)
    assert (row.run_id, row.status) == (run.run_id, "void")
    assert (reports_path() / f"{run.run_id}.html").is_file()
    stamp = snapshot_path().stat().st_mtime_ns
    publish_late(session)
    assert snapshot_path().stat().st_mtime_ns == stamp


def test_sealed_documents_are_asked_once_whatever_became_of_the_run(session: Session, loaded: LoadedStudy) -> None:
    study = loaded.study.model_copy(update={"confirms": "campaign-run"})
    confirming = dataclasses.replace(loaded, study=study)
    run = new_run(confirming, datetime.now(UTC))
    session.store.write([run])

    def told(*, fresh: bool, **change: object) -> list[str]:
        session.store.write([dataclasses.replace(run, **change)])  # type: ignore[arg-type]
        return [row.run_id for row in confirmations(session.store, confirming, fresh=fresh)]

    assert told(fresh=False, status="running") == told(fresh=True, status="running") == []
    assert told(fresh=False, status="failed", finished_at=run.started_at) == []
    suite = SuiteRow(
        run_id=run.run_id, arm="baseline", suite="facts", deployment_digest="d", category="accuracy", task="t",
        task_version=None, route="chat", metric="score", documents=1, answered=1, mean_score=1.0,
        documents_digest="d", lm_eval_version="0", duration_s=1.0, empty=0, truncated=0,
    )  # fmt: skip
    session.store.write([suite])
    assert told(fresh=False, status="running", finished_at=None) == [], "it is resumed"
    assert told(fresh=True, status="running") == [run.run_id]
    for status in ("failed", "void", "complete"):
        assert told(fresh=False, status=status, finished_at=run.started_at) == [run.run_id]


def test_a_clock_that_was_set_back_begins_no_run(session: Session, loaded: LoadedStudy, tmp_path: Path) -> None:
    other = fake_study(tmp_path / "b", study="other")
    ahead = dataclasses.replace(
        new_run(other, datetime.now(UTC) + timedelta(days=1)), status="complete", finished_at=datetime.now(UTC)
    )
    session.store.write([ahead])
    with pytest.raises(InfrastructureError, match=rf"The clock says .* but run {ahead.run_id} began at .*set back"):
        session.begin(loaded)
    assert session.store.read(StudyRow, study=loaded.study.study) == []
    session.store.write([dataclasses.replace(ahead, status="imported")])
    assert session.begin(loaded).status == "running"


def test_a_run_is_named_by_its_date_first(loaded: LoadedStudy) -> None:
    run = new_run(loaded, datetime(2026, 11, 21, 2, 0, 5, tzinfo=UTC))
    assert run.run_id.startswith(f"20261121-020005-{loaded.study.study}-")


def test_a_warehouse_older_than_its_ledger_begins_no_run(session: Session, loaded: LoadedStudy) -> None:
    heads = heads_path(session.store)
    heads.parent.mkdir(parents=True)
    heads.write_text('{"chain": "c", "seq": 7, "entry": "e", "at": "2026-11-01T00:00:00+00:00"}\n')
    with pytest.raises(InfrastructureError, match="Entry 7 of the ledger is not there"):
        session.begin(loaded)
    assert session.store.read(StudyRow) == []
