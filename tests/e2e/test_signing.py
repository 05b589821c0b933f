"""Signing over a real run on the fake engine: refused in every way, recorded, promoted, withdrawn."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta

import duckdb
import pytest
import yaml
from reviewer_desk import Desk

from assets.released import publish_late
from assets.session import Session
from assets.signing import inbox, put, record, take_in
from assets.withdrawing import withdraw_unsupported
from pipelines.night_known import standings
from pipelines.sign_off_job import sign_off_job
from steelyard.errors import InfrastructureError, InputError
from steelyard.records import StudyRow
from steelyard.review.keys import new_key, private_key
from steelyard.review.sign_off import opened, signed
from warehouse.publish import publish
from warehouse.retention import thin
from warehouse.store import Store

pytestmark = pytest.mark.e2e


def test_two_roles_promote_and_the_ledger_says_so(desk: Desk) -> None:
    assert desk.query("SELECT verdict FROM verdicts WHERE arm = 'wide'") == [("promote",)]
    assert desk.query("SELECT * FROM promotions") == []
    assert desk.do("verify")[0] == 0
    assert desk.do("recompute", desk.run)[0] == 0

    status, told = desk.sign("ana@example.org")
    assert status == 0, told
    assert "it waits for the sign-off of sre" in told
    assert desk.query("SELECT * FROM promotions") == []

    status, told = desk.sign("bo@example.org", "--because", "canary for a day", decision="conditions")
    assert status == 0, told
    assert "promoted  wide" in told
    status, told = desk.do("recompute", desk.run)
    assert status == 0, told
    assert desk.query("SELECT arm, state FROM promotions_in_force") == [("wide", "in force")]
    kinds = desk.query("SELECT kind FROM ledger ORDER BY seq")
    assert kinds == [("run",), ("page",), ("sign_off",), ("sign_off",), ("promotion",)]
    status, told = desk.do("verify")
    assert status == 0, told
    assert "2 sign-offs, 1 pages, " in told
    assert "all as recorded" in told

    # Somebody changes their mind: the promotion goes, and the ledger keeps both.
    status, told = desk.sign("ana@example.org", "--because", "seen in traffic", decision="reject")
    assert "ana@example.org (responsible-ai) rejected it: seen in traffic" in told
    assert desk.query("SELECT * FROM promotions") == []
    assert desk.query("SELECT kind FROM ledger ORDER BY seq DESC LIMIT 1") == [("withdrawal",)]
    assert desk.do("verify")[0] == 0


@pytest.mark.parametrize(
    ("person", "more", "said"),
    [
        ("cy@example.org", {}, "is of team:inference, which owns the study good; who submits may not approve"),
        ("dee@example.org", {}, "submitted run"),
        ("bo@example.org", {"role": "responsible-ai"}, "may sign as sre, not as responsible-ai"),
        ("bo@example.org", {"more": ("--packet", "0123456789abcdef")}, "and you read 0123456789abcdef"),
        ("bo@example.org", {"more": ("--expires", "60d")}, "30 days at most"),
        ("bo@example.org", {"more": ("--arm", "nobody")}, "no verdict on nobody"),
        ("bo@example.org", {"decision": "reject"}, "its reason in words"),
    ],
)
def test_what_may_not_be_is_refused_by_name(desk: Desk, person: str, more: dict[str, object], said: str) -> None:
    words = more.pop("more", ())
    status, told = desk.sign(person, *words, **more)  # type: ignore[misc, arg-type]
    assert status == 2
    assert said in told
    assert desk.query("SELECT * FROM sign_offs") == []


def test_who_submits_may_reject(desk: Desk) -> None:
    assert desk.sign("cy@example.org", "--because", "my own mistake", decision="reject")[0] == 0


def test_a_strangers_and_anothers_key_are_refused(desk: Desk) -> None:
    status, told = desk.sign("bo@example.org", "--key", str(desk.folder / "ana@example.org.key"))
    assert (status, "is not the key of bo@example.org" in told) == (2, True)
    status, told = desk.do(
        "sign", desk.run, "--as", "eve@example.org", "--role", "sre", "--decision", "approve",
        "--packet", desk.digest, "--key", str(desk.folder / "bo@example.org.key"),
    )  # fmt: skip
    assert (status, "eve@example.org is not in reviewers.yaml" in told) == (2, True)


def test_changed_evidence_cannot_be_signed_and_promotes_no_longer(desk: Desk) -> None:
    assert desk.sign("ana@example.org")[0] == 0
    with duckdb.connect(desk.live) as live:
        live.execute("UPDATE samples SET answer = answer || '.' WHERE rowid = (SELECT min(rowid) FROM samples)")
        live.execute("INSERT OR REPLACE INTO revisions VALUES (?, 'changed')", [desk.run])

    with Session() as session:
        publish(session.store)
    status, told = desk.sign("bo@example.org")
    assert status == 2
    assert "is not what it was when the run ended" in told
    status, told = desk.do("verify")
    assert status == 3
    assert "the rows of samples are not those that were sealed" in told


def test_a_run_whose_requests_were_thinned_can_still_be_signed(desk: Desk) -> None:
    with Session() as session:
        [study] = session.store.read(StudyRow)
        later = study.started_at + timedelta(days=1)
        session.store.write([dataclasses.replace(study, run_id="20990101-000000-good-0", started_at=later)])
        [done] = thin(session.store, after_days=2, keep=0.1, now=later + timedelta(days=9))
        assert done.kept < done.requests
        publish(session.store)
    assert desk.sign("ana@example.org")[0] == 0
    status, told = desk.sign("bo@example.org")
    assert (status, "promoted  wide" in told) == (0, True), told


def test_a_rejection_outlives_its_signer_s_key_and_expiry(desk: Desk) -> None:
    assert desk.sign("ana@example.org", "--because", "seen", "--expires", "1d", decision="reject")[0] == 0
    registry = yaml.safe_load((desk.folder / "studies" / "reviewers.yaml").read_text())
    for entry in registry["reviewers"]:
        if entry["person"] == "ana@example.org":
            entry["public_key"] = new_key(desk.folder / "ana-new.key")
    registry["reviewers"].append(
        {"person": "eve@example.org", "roles": ["responsible-ai"], "public_key": new_key(desk.folder / "eve.key")}
    )
    (desk.folder / "studies" / "reviewers.yaml").write_text(yaml.safe_dump(registry))
    key = ("--key", str(desk.folder / "eve.key"))
    assert desk.sign("eve@example.org", *key, role="responsible-ai")[0] == 0
    status, told = desk.sign("bo@example.org")
    assert status == 0, told
    assert "ana@example.org (responsible-ai) rejected it: seen" in told
    assert desk.query("SELECT * FROM promotions") == []


def test_a_decision_signed_on_a_slow_clock_is_refused_and_not_lost(desk: Desk) -> None:
    early = opened(desk.sign("bo@example.org", "--because", "late news", "--print", decision="reject")[1])
    assert desk.sign("bo@example.org")[0] == 0
    envelope = signed(early, private_key(desk.folder / "bo@example.org.key"))
    with Session() as session, pytest.raises(InputError, match=r"signed another decision.*correct the clock"):
        record(session.store, envelope)


def test_what_lies_in_the_inbox_keeps_no_run_from_beginning(desk: Desk) -> None:
    envelope = desk.sign("ana@example.org", "--print")[1].strip()
    waits = put(envelope)
    registry = desk.folder / "studies" / "reviewers.yaml"
    good = registry.read_text()
    registry.write_text(good + "- broken")
    said: list[str] = []
    with Session() as session:
        assert take_in(session.store, said.append) == 0
    assert waits.is_file()
    assert "cannot be read" in said[0]
    registry.write_text(good)
    (inbox() / "folder.json").mkdir()
    (inbox() / "nested.json").write_text("[" * 100_000)
    (inbox() / "bytes.json").write_bytes(b"\xff\xfe")
    with Session() as session:
        assert take_in(session.store, said.append) == 1
    assert sorted(path.stem for path in (inbox() / "refused").glob("*.json")) == ["bytes", "nested"]


def test_a_sign_off_waits_while_the_warehouse_is_another_process_s(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_: Session) -> Session:
        raise InfrastructureError("Another run is under way.", remedy="Wait.")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "__enter__", busy)
        status, told = desk.sign("ana@example.org")
    assert (status, "It waits in" in told) == (0, True)
    assert desk.query("SELECT * FROM sign_offs") == []
    with Session() as session:
        publish_late(session)
    assert desk.query("SELECT person, as_role, decision FROM sign_offs") == [
        ("ana@example.org", "responsible-ai", "approve")
    ]


def test_an_envelope_is_made_elsewhere_and_taken_in_once(desk: Desk) -> None:
    status, envelope = desk.sign("ana@example.org", "--print")
    assert status == 0
    assert desk.query("SELECT * FROM sign_offs") == []
    outer = json.loads(envelope)
    with Session() as session:
        forged = json.dumps({**outer, "signatures": [{"keyid": "x", "sig": "AAAA"}]})
        with pytest.raises(InputError, match="signature is not that of"):
            record(session.store, forged)
        for _ in range(2):
            record(session.store, envelope.strip())
        assert session.store.scalar("SELECT count(*) FROM sign_offs") == 1
        assert session.store.scalar("SELECT count(*) FROM ledger WHERE kind = 'sign_off'") == 1


@pytest.mark.parametrize(
    ("days", "ahead_days", "said"), [(31, 0, "more than the 30 days"), (20, 5, "which is not yet: correct that clock")]
)
def test_a_signature_of_ones_own_making_keeps_to_policy_and_time(
    desk: Desk, days: int, ahead_days: int, said: str
) -> None:
    honest = opened(desk.sign("bo@example.org", "--print")[1])
    at = honest.signed_at + timedelta(days=ahead_days)
    asked = dataclasses.replace(honest, signed_at=at, expires_at=at + timedelta(days=days))
    envelope = signed(asked, private_key(desk.folder / "bo@example.org.key"))
    with Session() as session, pytest.raises(InputError, match=said):
        record(session.store, envelope)
    assert desk.query("SELECT * FROM sign_offs") == []


def test_the_dagster_job_takes_an_envelope_in_and_names_a_refusal(desk: Desk) -> None:
    envelope = desk.sign("ana@example.org", "--print")[1]

    def job(text: str) -> bool:
        config = {"ops": {"take_sign_off": {"config": {"envelope": text}}}}
        return bool(sign_off_job.execute_in_process(run_config=config, raise_on_error=False).success)

    assert not job("{}")
    assert not job(envelope.replace("payloadType", "payloadKind"))
    assert desk.query("SELECT * FROM sign_offs") == []
    assert job(envelope)
    assert desk.query("SELECT person, decision FROM sign_offs") == [("ana@example.org", "approve")]


def promoted(desk: Desk) -> None:
    assert desk.sign("ana@example.org")[0] == 0
    assert "promoted  wide" in desk.sign("bo@example.org")[1]
    with Session() as session:
        entries = session.store.scalar("SELECT count(*) FROM ledger")
        assert withdraw_unsupported(session.store) == []
        assert session.store.scalar("SELECT count(*) FROM ledger") == entries


def taken_back(desk: Desk) -> str:
    """By the night; the reason that people are told."""
    with Session() as session:
        assert [row.arm for row in withdraw_unsupported(session.store)] == ["wide"]
        assert withdraw_unsupported(session.store) == []
        publish(session.store)
    assert desk.query("SELECT * FROM promotions") == []
    with Store.open_published() as store:
        _, ended = standings(store)
    return ended.withdrawn[desk.run, "wide"]


def test_a_key_that_left_takes_its_promotion_back_and_another_signature_brings_it_again(desk: Desk) -> None:
    promoted(desk)
    registry = desk.folder / "studies" / "reviewers.yaml"
    people = yaml.safe_load(registry.read_text())["reviewers"]
    registry.write_text(yaml.safe_dump({"reviewers": [each for each in people if each["person"] != "bo@example.org"]}))
    assert taken_back(desk) == "it waits for the sign-off of sre"
    assert desk.do("verify")[0] == 0
    registry.write_text(yaml.safe_dump({"reviewers": people}))
    assert "promoted  wide" in desk.sign("bo@example.org")[1]
    with Store.open_published() as store:
        assert standings(store)[1].withdrawn == {}


def test_changed_evidence_takes_its_promotion_back(desk: Desk) -> None:
    promoted(desk)
    with duckdb.connect(desk.live) as live:
        live.execute("UPDATE samples SET answer = answer || '.' WHERE rowid = (SELECT min(rowid) FROM samples)")
    assert taken_back(desk).startswith("the evidence is not what was signed (packet ")


def test_another_machines_promotions_and_a_place_without_a_registry_are_left_alone(desk: Desk) -> None:
    promoted(desk)
    registry = desk.folder / "studies" / "reviewers.yaml"
    people = registry.read_text()
    registry.unlink()
    with Session() as session:
        assert withdraw_unsupported(session.store) == []
    registry.write_text(people.replace("bo@", "no@"))
    with duckdb.connect(desk.live) as live:
        live.execute("UPDATE studies SET hostname_digest = 'another'")
    with Session() as session:
        assert withdraw_unsupported(session.store) == []
