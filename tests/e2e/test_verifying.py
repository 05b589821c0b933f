"""`steelyard verify` over a real run on the fake engine: every change is found, and nothing honest is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import UTC, datetime, timedelta

import duckdb
import pytest
from reviewer_desk import Desk

from steelyard.records import PromotionRow, StudyRow, VerdictRow
from steelyard.records_review import LedgerRow
from steelyard.reports import packet_page
from steelyard.review.chain import PROMOTION, Draft, appended
from steelyard.review.evidence import row_digest
from warehouse.evidence import sealed
from warehouse.publish import publish
from warehouse.store import Store

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE verdicts SET verdict = 'promote' WHERE arm = 'identity'", "the rows of verdicts"),
        ("UPDATE trials SET duration_s = duration_s * (1 + 1e-15) WHERE block = 1", "the rows of trials"),
        ("DELETE FROM gate_results WHERE arm = 'unsafe'", "the rows of gate_results"),
        ("UPDATE sign_offs SET decision = 'conditions'", "is not what was signed"),
        ("DELETE FROM sign_offs", "the rows of sign_offs are not those in the ledger"),
        ("UPDATE ledger SET payload_json = replace(payload_json, 'ana', 'ann') WHERE kind = 'sign_off'", "was changed"),
        ("DELETE FROM ledger WHERE seq = 2", "entry 2 of chain"),
        ("DELETE FROM ledger WHERE kind = 'sign_off'", "that was told outside is not in the ledger"),
        (
            "INSERT INTO promotions SELECT run_id, 'unsafe', 'good', 'd', 'b', 'p', now(), NULL, NULL FROM studies",
            "the rows of promotions are not those in the ledger (0 there, 1 stored)",
        ),
    ],
)
def test_any_change_is_found(desk: Desk, sql: str, said: str) -> None:
    assert desk.sign("ana@example.org")[0] == 0
    snapshot = desk.folder / "var" / "published" / "steelyard.duckdb"
    snapshot.chmod(0o644)
    with duckdb.connect(snapshot) as connection:
        connection.execute(sql)
    status, told = desk.do("verify")
    assert status == 3, told
    assert said in told


def forged(desk: Desk, run_id: str) -> None:
    """A promotion and its entry, as somebody with write access would add them: no head was told of it."""
    with Store.open() as store:
        [study] = store.read(StudyRow, run_id=run_id)
        [verdict] = store.read(VerdictRow, run_id=desk.run, arm="wide")
        assert verdict.deployment_digest is not None
        assert verdict.baseline_digest is not None
        row = PromotionRow(
            run_id=run_id, arm="wide", study="good", deployment_digest=verdict.deployment_digest,
            baseline_digest=verdict.baseline_digest, policy_digest=study.policy_digest, promoted_at=datetime.now(UTC),
            packet_digest=store.read(LedgerRow, kind="run")[0].entry if run_id != desk.run else sealed_digest(store),
            valid_until=datetime.now(UTC) + timedelta(days=9),
        )  # fmt: skip
        payload = {"arm": "wide", "deployment_digest": row.deployment_digest, "row": row_digest(row)}
        last = max(store.read(LedgerRow), key=lambda each: each.seq)
        entries = appended(last.chain, last, [Draft(kind=PROMOTION, run_id=run_id, payload=payload)], datetime.now(UTC))
        store.write([row, *entries])
        publish(store)


def sealed_digest(store: Store) -> str:
    seal = sealed(store, str(store.scalar("SELECT run_id FROM studies WHERE status = 'complete'")))
    assert seal is not None
    return seal.digest


def test_a_promotion_that_rests_on_no_signature_is_found(desk: Desk) -> None:
    forged(desk, desk.run)
    status, told = desk.do("verify")
    assert status == 3, told
    assert "the promotion of wide rests on no such approvals: it waits for the sign-off of responsible-ai, sre" in told
    assert "(promotion of run " in told
    assert "was appended by somebody else: it is the last, and no head was told of it" in told
    # Nothing honest is built on it.
    status, told = desk.sign("ana@example.org")
    assert "that no Steelyard announced" in told
    assert desk.query("SELECT * FROM sign_offs") == []


def test_a_kill_before_the_head_was_told_is_no_stranger_s_entry(desk: Desk) -> None:
    heads = desk.folder / "var" / "ledger" / "heads.jsonl"
    assert desk.sign("ana@example.org")[0] == 0
    lines = heads.read_text().splitlines(keepends=True)
    states = [json.loads(line)["state"] for line in lines]
    assert states[-3:] == ["intended", "recorded", "published"]
    heads.write_text("".join(lines[:-2]))
    assert desk.do("verify")[0] == 0
    status, told = desk.sign("bo@example.org")
    assert status == 0, told
    assert "promoted  wide" in told
    assert desk.do("verify")[0] == 0


def test_what_is_recorded_and_not_published_yet_is_a_note(desk: Desk) -> None:
    snapshot = desk.folder / "var" / "published"
    shutil.copytree(snapshot, desk.folder / "before", symlinks=True)
    assert desk.sign("ana@example.org")[0] == 0
    heads = desk.folder / "var" / "ledger" / "heads.jsonl"
    lines = heads.read_text().splitlines(keepends=True)
    heads.write_text("".join(lines[:-1]))
    shutil.rmtree(snapshot)
    (desk.folder / "before").rename(snapshot)
    status, told = desk.do("verify")
    assert status == 0, told
    assert "is not published yet" in told
    with Store.open() as store:
        publish(store)
    assert "not published yet" not in desk.do("verify")[1]


def test_a_page_that_another_steelyard_would_make_otherwise_is_no_tampering(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = desk.folder / "var" / "packets" / f"{desk.run}.html"
    page.unlink()
    honest = packet_page.render
    monkeypatch.setattr(packet_page, "render", lambda *each: honest(*each).replace("<body", "<body id=new", 1))
    for _ in range(2):
        status, told = desk.do("review", desk.run)
        assert status == 0, told
        assert f"{desk.run}.again.html" in told
    assert desk.do("verify")[0] == 0


def test_a_promotion_of_a_run_without_a_seal_is_found_and_not_in_force(desk: Desk) -> None:
    with Store.open() as store:
        [study] = store.read(StudyRow, run_id=desk.run)
        store.write([dataclasses.replace(study, run_id="copy", finished_at=None, status="running")])
    forged(desk, "copy")
    told = desk.query("SELECT state, expired_because FROM promotions_in_force")
    assert told == [("expired", "the run that promotes it is not complete")]
    with Store.open() as store:
        store.write([dataclasses.replace(study, run_id="copy", finished_at=datetime.now(UTC))])
        publish(store)
    status, told = desk.do("verify")
    assert status == 3, told
    assert "run copy promotes wide, and what that rests on was never sealed" in told


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE ledger SET payload_json = replace(payload_json, '{', '[') WHERE kind = 'run'",
        "UPDATE trials SET duration_s = 'nan'",
    ],
)
def test_what_cannot_be_read_is_a_problem_and_no_traceback(desk: Desk, sql: str) -> None:
    with duckdb.connect(desk.live) as connection:
        connection.execute(sql)
    with Store.open() as store:
        publish(store)
    status, told = desk.do("verify")
    assert status == 3, told
    assert "Traceback" not in told


def test_a_run_that_is_not_there_is_told(desk: Desk) -> None:
    status, told = desk.do("verify", "no-such-run")
    assert status == 2
    assert "There is no run no-such-run" in told


def test_any_byte_of_the_page_is_found(desk: Desk) -> None:
    page = desk.folder / "var" / "packets" / f"{desk.run}.html"
    text = page.read_bytes()
    assert desk.digest.encode() in text
    assert b"refusal" in text
    for place in range(0, len(text), len(text) // 7):
        page.write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        status, told = desk.do("verify")
        assert status == 3
        assert "is not the page that was written" in told
    assert "Somebody changed it" in desk.do("review", desk.run)[1]
