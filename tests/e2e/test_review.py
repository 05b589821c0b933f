"""The reviewer's path over a real run on the fake engine: sealed, refused in every way, signed, promoted, verified."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
import yaml

from steelyard.cli import main
from steelyard.records import StudyRow
from steelyard.review.keys import new_key
from warehouse.store import Store

pytestmark = pytest.mark.e2e
GATES = [
    {"name": "gain", "category": "speed", "metric": "output_tokens_per_s", "on": "claimed", "at_least": 1.1},
    {"name": "accuracy", "category": "accuracy", "metric": "score", "margin": 0.2},
    {"name": "safety", "category": "safety", "metric": "score", "margin": 0.2},
]
# Slow, so that a busy machine's client is not late by much of a token.
ANSWERS = str(Path(__file__).parents[2] / "evals" / "suites" / "data")
SLOW = {"engine": "fake", "args": {"answers_file": ANSWERS, "max_num_seqs": 4, "ttft_s": 0.04, "itl_s": 0.012}}
CLAIM = {"workload": "chat", "load": "c16"}
CANDIDATES = [
    {"name": "wide", "lever": "batching", "claim": CLAIM, "args": {"max_num_seqs": 16}},
    {"name": "unsafe", "lever": "quantization", "claim": CLAIM, "args": {"max_num_seqs": 16, "unsafe_share": 0.5}},
]
PEOPLE = {
    "ana@example.org": ("responsible-ai", ["trust"]),
    "bo@example.org": ("sre", ["platform"]),
    "cy@example.org": ("sre", ["inference"]),
    "dee@example.org": ("sre", ["platform"]),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, make_study: Callable[..., Path]) -> Path:
    """A place with a run that waits for two roles; keys and registry beside its studies."""
    folder = tmp_path_factory.mktemp("review")
    study = make_study(
        folder / "studies" / "good", study="good", candidates=CANDIDATES, divergence=None, blocks=5,
        suites=[
            {"name": "facts", "task": "steelyard_facts", "category": "accuracy", "limit": 60},
            {"name": "refusal", "task": "steelyard_refusal", "category": "safety", "limit": 60},
        ],
        baseline=SLOW, policy={"gates": GATES, "sign_offs": ["responsible-ai", "sre"], "sign_off_days": 30},
    )  # fmt: skip
    lines = {person: new_key(folder / f"{person}.key") for person in PEOPLE}
    registry = [
        {"person": person, "roles": [role], "teams": teams, "public_key": lines[person]}
        for person, (role, teams) in PEOPLE.items()
    ]
    (folder / "studies" / "reviewers.yaml").write_text(yaml.safe_dump({"reviewers": registry}))
    with pytest.MonkeyPatch.context() as patch:
        at(folder, patch)
        patch.setenv("STEELYARD_SUBMITTER", "dee@example.org")
        assert main(["run", str(study), "--quiet"]) == 0
    return folder


def at(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("STEELYARD_HOME", str(folder / "var"))
    patch.setenv("STEELYARD_STUDIES", str(folder / "studies"))


class Desk:
    """A copy of the place, so that each test may spoil it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.live = folder / "var" / "warehouse.duckdb"
        with Store.open_published() as store:
            self.run = str(store.scalar("SELECT run_id FROM studies"))
            self.digest = self.do("review", self.run)[1].split()[1]

    def do(self, *words: str) -> tuple[int, str]:
        status = main(list(words))
        told = self._capsys.readouterr()
        return status, told.out + told.err

    def sign(self, person: str, *more: str, role: str | None = None, decision: str = "approve") -> tuple[int, str]:
        role = role or PEOPLE[person][0]
        key = ["--key", str(self.folder / f"{person}.key")] if "--key" not in more else []
        packet = ["--packet", self.digest[:16]] if "--packet" not in more else []
        return self.do("sign", self.run, "--as", person, "--role", role, "--decision", decision, *key, *packet, *more)

    def query(self, sql: str) -> list[tuple[object, ...]]:
        with duckdb.connect(self.folder / "var" / "published" / "steelyard.duckdb", read_only=True) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def desk(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    folder = tmp_path / "place"
    shutil.copytree(measured, folder, symlinks=True)
    at(folder, monkeypatch)
    return Desk(folder, capsys)


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
    from assets.session import Session
    from warehouse.publish import publish

    with Session() as session:
        publish(session.store)
    status, told = desk.sign("bo@example.org")
    assert status == 2
    assert "is not what it was when the run ended" in told
    status, told = desk.do("verify")
    assert status == 3
    assert "the rows of samples are not those that were sealed" in told


def test_a_run_whose_requests_were_thinned_can_still_be_signed(desk: Desk) -> None:
    from assets.session import Session
    from warehouse.publish import publish
    from warehouse.retention import thin

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
    from steelyard.records import PromotionRow, VerdictRow
    from steelyard.records_review import LedgerRow
    from steelyard.review.chain import PROMOTION, Draft, appended
    from steelyard.review.evidence import row_digest
    from warehouse.publish import publish

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
    from warehouse.evidence import sealed

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
    from warehouse.publish import publish

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
    from steelyard.reports import packet_page

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
        publish_of(store)
    status, told = desk.do("verify")
    assert status == 3, told
    assert "run copy promotes wide, and what that rests on was never sealed" in told


def publish_of(store: Store) -> None:
    from warehouse.publish import publish

    publish(store)


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
    from assets.session import Session
    from assets.signing import record
    from steelyard.errors import InputError
    from steelyard.review.keys import private_key
    from steelyard.review.sign_off import opened, signed

    early = opened(desk.sign("bo@example.org", "--because", "late news", "--print", decision="reject")[1])
    assert desk.sign("bo@example.org")[0] == 0
    envelope = signed(early, private_key(desk.folder / "bo@example.org.key"))
    with Session() as session, pytest.raises(InputError, match=r"signed another decision.*correct the clock"):
        record(session.store, envelope)


def test_what_lies_in_the_inbox_keeps_no_run_from_beginning(desk: Desk) -> None:
    from assets.session import Session
    from assets.signing import inbox, put, take_in

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
        publish_of(store)
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


def test_a_sign_off_waits_while_the_warehouse_is_another_process_s(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from assets.released import publish_late
    from assets.session import Session
    from steelyard.errors import InfrastructureError

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
    from assets.session import Session
    from assets.signing import record
    from steelyard.errors import InputError

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
    from assets.session import Session
    from assets.signing import record
    from steelyard.errors import InputError
    from steelyard.review.keys import private_key
    from steelyard.review.sign_off import opened, signed

    honest = opened(desk.sign("bo@example.org", "--print")[1])
    at = honest.signed_at + timedelta(days=ahead_days)
    asked = dataclasses.replace(honest, signed_at=at, expires_at=at + timedelta(days=days))
    envelope = signed(asked, private_key(desk.folder / "bo@example.org.key"))
    with Session() as session, pytest.raises(InputError, match=said):
        record(session.store, envelope)
    assert desk.query("SELECT * FROM sign_offs") == []


def test_the_dagster_job_takes_an_envelope_in_and_names_a_refusal(desk: Desk) -> None:
    from pipelines.sign_off_job import sign_off_job

    envelope = desk.sign("ana@example.org", "--print")[1]

    def job(text: str) -> bool:
        config = {"ops": {"take_sign_off": {"config": {"envelope": text}}}}
        return bool(sign_off_job.execute_in_process(run_config=config, raise_on_error=False).success)

    assert not job("{}")
    assert not job(envelope.replace("payloadType", "payloadKind"))
    assert desk.query("SELECT * FROM sign_offs") == []
    assert job(envelope)
    assert desk.query("SELECT person, decision FROM sign_offs") == [("ana@example.org", "approve")]
