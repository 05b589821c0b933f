"""News: what is told at once, once, and to whom; and that no crash loses or repeats it."""

from __future__ import annotations

import hashlib
import hmac
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.nights_parts.webhook import webhook
from steelyard.errors import InfrastructureError, InputError
from steelyard.nightly import log
from steelyard.nightly.channels import channels, post, send_mail
from steelyard.nightly.log import Night, Step
from steelyard.nightly.metrics import write_metrics
from steelyard.nightly.news import Ended, Event, Standing, changes, failure, of_step, summary
from steelyard.nightly.outbox import Outbox
from steelyard.nightly.settings import Mail, Notify, Webhook

NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)
NONE_ENDED = Ended(expired={}, withdrawn={})
INT8 = Standing(study="chat", arm="int8", deployment_digest="d" * 64, run_id="r1", gain="It is 1.4 times as fast.")


def night(**changed: Any) -> Night:
    return Night(**{"night": "20261123-020000", "started_at": NOW, "deadline": NOW + timedelta(hours=8), **changed})


def event(name: str = "promoted-1") -> Event:
    return Event(event=name, kind="promoted", title="chat: int8 is promoted", text="Ü", facts={"study": "chat"})


def test_a_promotion_is_told_once_and_its_end_with_the_reason() -> None:
    [promoted] = changes([], [INT8], NONE_ENDED, 0)
    assert (promoted.kind, promoted.facts["arm"]) == ("promoted", "int8")
    assert "1.4 times" in promoted.text
    again = Standing(study="chat", arm="int8", deployment_digest="d" * 64, run_id="r2")
    assert changes([INT8], [again], NONE_ENDED, 1) == []
    ended = Ended(expired={("chat", "int8"): "revoked: run r3 confirmed a regression"}, withdrawn={})
    [revoked] = changes([INT8], [], ended, 1)
    assert revoked.kind == "revoked"
    assert "run r3 confirmed" in revoked.text
    # Of a promotion that was taken back, the reason is that of its own run.
    [revoked] = changes([INT8], [], Ended(expired=ended.expired, withdrawn={("r1", "int8"): "ana rejected it"}), 1)
    assert revoked.facts["reason"] == "ana rejected it"
    assert "no longer in the ledger" in changes([INT8], [], NONE_ENDED, 1)[0].text
    [back] = changes([], [INT8], NONE_ENDED, 2)
    assert back.event != promoted.event
    other = Standing(study="chat", arm="int8", deployment_digest="e" * 64, run_id="r4")
    assert [each.kind for each in changes([INT8], [other], NONE_ENDED, 1)] == ["promoted"]


def test_only_void_and_failed_steps_are_told_at_once() -> None:
    kinds = {
        outcome: [each.kind for each in of_step(night(), Step(study="s", decision="run", reason="", outcome=outcome))]
        for outcome in (log.COMPLETE, log.VOID, log.FAILED, log.STOPPED, log.LEFT)
    }
    assert kinds == {
        "complete": [], "void": ["void"], "failed": ["infrastructure failure"], "stopped": [], "left": [],
    }  # fmt: skip
    assert failure("a", "b", night()).event == failure("a", "b", night()).event
    assert failure("a", "b", night()).event != failure("a", "c", night()).event


def test_the_digest_says_everything_in_a_page() -> None:
    steps = [
        Step(study="chat", decision="run", reason="", outcome=log.COMPLETE, started_at=NOW,
             ended_at=NOW + timedelta(minutes=5), verdicts={"int8": "promote", "fp8": "promote"},
             withheld={"fp8": "revoked"}),
        Step(study="old", decision="skip", reason="run r began 1 h ago, and nothing changed", outcome=log.LEFT),
        Step(study="big", decision="run", reason="new", outcome=log.STOPPED, started_at=NOW, ended_at=NOW),
    ]  # fmt: skip
    told = summary(night(steps=steps, resumed=1, ended_at=NOW + timedelta(hours=1)), ["goodput fell"], [INT8])
    assert told.title == "Night 2026-11-23: 1 complete"
    for said in ("resumed, once", "chat  complete in 5 min: int8 promote, fp8 promote (revoked)",
                 "old  skip", "the next night resumes it",
                 "incident  goodput fell", "in force  chat: int8 (run r1)"):  # fmt: skip
        assert said in told.text, said


def test_an_event_is_written_before_it_is_sent_and_told_once(tmp_path: Path) -> None:
    outbox, sent = Outbox(tmp_path), list[str]()
    assert [each.event for each in outbox.put([event()])] == ["promoted-1"]
    assert outbox.put([event()]) == []
    assert Outbox(tmp_path).deliver({"hook": lambda each: sent.append(each.event)}) == []
    assert sent == ["promoted-1"]
    assert outbox.put([event()]) == []
    assert outbox.deliver({"hook": lambda each: sent.append(each.event)}) == []
    assert (sent, outbox.waiting()) == (["promoted-1"], 0)


def test_a_channel_that_fails_gets_it_later_and_holds_up_no_other(tmp_path: Path) -> None:
    outbox, sent = Outbox(tmp_path), list[str]()

    def broken(_: Event) -> None:
        raise InfrastructureError("The webhook did not answer.", remedy="Look.")

    outbox.put([event("a"), event("b")])
    both: dict[str, Callable[[Event], None]] = {"hook": broken, "mail": lambda each: sent.append(each.event)}
    assert len(outbox.deliver(both)) == 1
    assert (sorted(sent), outbox.waiting()) == (["a", "b"], 2)
    both["hook"] = lambda each: sent.append(f"hook {each.event}")
    assert outbox.deliver(both) == []
    assert (sorted(sent), outbox.waiting()) == (["a", "b", "hook a", "hook b"], 0)


def test_whatever_a_channel_raises_ends_no_night(tmp_path: Path) -> None:
    outbox, sent = Outbox(tmp_path), list[str]()

    def surprising(_: Event) -> None:
        raise RuntimeError("hunter2")

    outbox.put([event("a")])
    both: dict[str, Callable[[Event], None]] = {"webhook": surprising, "mail": lambda each: sent.append(each.event)}
    [why] = outbox.deliver(both)
    assert ("RuntimeError" in why, "hunter2" in why) == (True, False)
    assert (sent, outbox.waiting()) == (["a"], 1)


def test_where_no_note_can_be_taken_an_event_is_sent_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, sent = Outbox(tmp_path), list[str]()
    outbox.put([event("a")])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steelyard.nightly.outbox.write_whole", full)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            outbox.deliver({"mail": lambda each: sent.append(each.event)})
        assert outbox.give("mail", lambda each: sent.append(each.event), event("a")) is None
    assert sent == ["a"]


def test_what_people_know_is_remembered(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    assert outbox.standing() == ([], 0)
    outbox.stand([INT8], 3)
    assert Outbox(tmp_path).standing() == ([INT8], 3)


def test_a_webhook_gets_json_signed_with_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    with webhook() as heard:
        monkeypatch.setenv("HOOK", heard.url)
        channels(Notify(webhook=Webhook(url_env="HOOK", secret_env="SECRET"), mail=None, digest=True))["webhook"](
            event()
        )
    [headers], [body] = heard.headers, heard.bodies
    told = json.loads(body)
    assert (told["event"], told["kind"], told["study"]) == ("promoted-1", "promoted", "chat")
    assert told["text"] == "chat: int8 is promoted\nÜ"
    assert headers["X-Steelyard-Event"] == "promoted-1"
    assert headers["X-Steelyard-Signature"] == "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_does_not_take_it_is_named(status: int) -> None:
    hook = Webhook(url=None, url_env="X", secret_env=None)
    with webhook(status) as heard, pytest.raises(InfrastructureError, match=f"HTTP {status}"):
        post(hook.model_copy(update={"url": heard.url}), event())


def test_nobody_listening_or_no_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InfrastructureError, match="refused"):
        post(Webhook(url="http://127.0.0.1:9", url_env=None, secret_env=None), event())
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(InputError, match="NOWHERE"):
        post(Webhook(url=None, url_env="NOWHERE", secret_env=None), event())


class _NoHttp(socketserver.StreamRequestHandler):
    """Answers, in another protocol."""

    def handle(self) -> None:
        self.wfile.write(b"220 mail.example.org ESMTP\r\n")


def test_a_webhook_that_is_none_is_named_and_its_address_kept_secret() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _NoHttp) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(InfrastructureError, match="did not take the event"):
            post(Webhook(url=f"http://127.0.0.1:{server.server_address[1]}", url_env=None, secret_env=None), event())
        server.shutdown()
    hook = Webhook.model_construct(url="hooks.example.org/services/hunter2", url_env=None, secret_env=None)
    with pytest.raises(InfrastructureError, match="no http or https URL") as refused:
        post(hook, event())
    assert "hunter2" not in str(refused.value)


class _Smtp(socketserver.StreamRequestHandler):
    """As much of SMTP as a message without login needs."""

    def handle(self) -> None:
        got: list[str] = self.server.got  # type: ignore[attr-defined]
        self.wfile.write(b"220 test\r\n")
        while line := self.rfile.readline().decode().strip():
            verb = line.split(":")[0].split()[0].upper()
            if verb == "QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            if verb == "DATA":
                self.wfile.write(b"354 go on\r\n")
                while (text := self.rfile.readline().decode()) != ".\r\n":
                    got.append(text.rstrip())
            refused = verb == "STARTTLS" or "nobody@" in line
            self.wfile.write(b"550 no\r\n" if refused else b"250 ok\r\n")


@contextmanager
def smtp() -> Iterator[tuple[int, list[str]]]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp) as server:
        server.got = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], server.got  # type: ignore[attr-defined]
        server.shutdown()


def mail(port: int, **changed: Any) -> Mail:
    return Mail(
        **{
            "host": "127.0.0.1", "port": port, "security": "none", "sender": "steelyard@example.org",
            "to": ("ops@example.org",), "user_env": None, "password_env": None, **changed,
        }
    )  # fmt: skip


def test_mail_is_sent_under_the_name_of_the_event() -> None:
    with smtp() as (port, got):
        send_mail(mail(port), event())
    assert "Subject: [steelyard] chat: int8 is promoted" in got
    assert "Message-ID: <promoted-1@steelyard>" in got
    with smtp() as (port, _), pytest.raises(InfrastructureError, match="nobody"):
        send_mail(mail(port, to=("nobody@example.org",)), event())
    with pytest.raises(InfrastructureError, match=r"127\.0\.0\.1:9"):
        send_mail(mail(9), event())
    with smtp() as (port, _), pytest.raises(InfrastructureError, match="STARTTLS"):
        send_mail(mail(port, security="starttls"), event())


def test_metrics_leave_out_what_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "steelyard.prom"
    decided = {"a": "promote", "b": "reject", "c": "reject"}
    step = Step(study="chat", decision="run", reason="", outcome=log.COMPLETE, started_at=NOW,
                ended_at=NOW + timedelta(seconds=90), verdicts=decided)  # fmt: skip
    under_way = night(steps=[step])
    write_metrics(path, under_way, in_force=None, open_incidents=None, waiting=2, warehouse_bytes=None)
    text = path.read_text()
    assert "steelyard_night_ended" not in text
    assert "steelyard_promotions_in_force" not in text
    for line in ("steelyard_night_under_way 1.0", "steelyard_events_waiting 2.0",
                 'steelyard_night_studies{outcome="complete"} 1.0',
                 'steelyard_study_duration_seconds{decision="run",study="chat"} 90.0',
                 'steelyard_study_verdicts{study="chat",verdict="reject"} 2.0'):  # fmt: skip
        assert line in text, line
    ended = night(steps=[step], ended_at=NOW, status=log.ENDED)
    write_metrics(path, ended, in_force=[INT8], open_incidents=0, waiting=0, warehouse_bytes=10)
    text = path.read_text()
    assert "steelyard_promotions_in_force 1.0" in text
    assert "steelyard_incidents_open 0.0" in text
    assert "steelyard_night_ended_timestamp_seconds 1.7" in text
