"""The ledger's chain finds every change; the registry names every mistake; keys of both kinds are read."""

from __future__ import annotations

import dataclasses
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from steelyard.errors import InputError
from steelyard.records_review import LedgerRow
from steelyard.review.chain import FIRST, Draft, appended, chain_problems
from steelyard.review.keys import PASSPHRASE, fingerprint, new_key, private_key, public_line
from steelyard.review.reviewers import load_reviewers

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def chain(length: int = 5) -> list[LedgerRow]:
    drafts = [Draft(kind="run", run_id=f"run-{n}", payload={"n": n}) for n in range(length)]
    first = appended("c", None, drafts[:2], NOW)
    return [*first, *appended("c", first[-1], drafts[2:], NOW + timedelta(hours=1))]


def test_a_whole_chain_has_no_problem() -> None:
    rows = chain()
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0].previous == FIRST
    assert chain_problems(rows) == []
    assert chain_problems(list(reversed(rows))) == []
    assert chain_problems([*rows, *(dataclasses.replace(row, chain="d") for row in rows)]) != []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", "page"),
        ("run_id", "run-9"),
        ("payload_json", '{"n":8}'),
        ("recorded_at", NOW + timedelta(microseconds=1)),
        ("previous", "1" * 64),
        ("entry", "2" * 64),
        ("seq", 7),
        ("chain", "e"),
    ],
)
@pytest.mark.parametrize("place", range(4))
def test_every_changed_column_of_every_entry_is_found(place: int, column: str, value: Any) -> None:
    rows = chain()
    rows[place] = dataclasses.replace(rows[place], **{column: value})
    assert chain_problems(rows)


@pytest.mark.parametrize("place", range(4))
def test_an_entry_left_out_or_doubled_is_found(place: int) -> None:
    rows = chain()
    assert chain_problems(rows[:place] + rows[place + 1 :])
    assert chain_problems([*rows, rows[place]])


def registry(folder: Path, text: str) -> Path:
    path = folder / "reviewers.yaml"
    path.write_text(text)
    return path


def test_nobody_may_sign_where_there_is_no_registry(tmp_path: Path) -> None:
    assert load_reviewers(tmp_path / "reviewers.yaml").reviewers == ()


def test_the_registry_names_every_mistake_with_its_line(tmp_path: Path) -> None:
    line = new_key(tmp_path / "k")
    path = registry(
        tmp_path,
        f"reviewers:\n- person: ana\n  roles: [sre]\n  public_key: {line} ana's laptop\n"
        f"- person: bo@example.org\n  roles: []\n  public_key: ssh-rsa AAAA\n- persn: cy@example.org\n",
    )
    with pytest.raises(InputError) as error:
        load_reviewers(path)
    told = str(error.value)
    for place in ("reviewers.yaml:2: ", "reviewers.yaml:6: ", "reviewers.yaml:7: ", "reviewers.yaml:8: "):
        assert place in told, told


def test_a_key_or_a_person_twice_is_refused(tmp_path: Path) -> None:
    line = new_key(tmp_path / "k")
    entry = "- person: {}\n  roles: [sre]\n  public_key: {}\n"
    text = "reviewers:\n" + entry.format("ana@example.org", line) + entry.format("Bo@example.org", line)
    with pytest.raises(InputError, match="this public key stands twice"):
        load_reviewers(registry(tmp_path, text))
    text = "reviewers:\n" + entry.format("ana@example.org", line)
    text += entry.format("Ana@example.org", new_key(tmp_path / "k2"))
    with pytest.raises(InputError, match="this person stands twice"):
        load_reviewers(registry(tmp_path, text))


def test_keys_are_read_with_and_without_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = new_key(tmp_path / "open")
    assert public_line(private_key(tmp_path / "open").public_key()) == line
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o600
    line = new_key(tmp_path / "closed", "a phrase")
    with pytest.raises(InputError, match="passphrase"):
        private_key(tmp_path / "closed", lambda: "another")
    assert public_line(private_key(tmp_path / "closed", lambda: "a phrase").public_key()) == line
    monkeypatch.setenv(PASSPHRASE, "a phrase")
    assert public_line(private_key(tmp_path / "closed").public_key()) == line
    with pytest.raises(InputError, match="there already"):
        new_key(tmp_path / "open")
    (tmp_path / "text").write_text("no key")
    with pytest.raises(InputError, match="cannot be read"):
        private_key(tmp_path / "text")
    with pytest.raises(InputError, match="There is no key"):
        private_key(tmp_path / "nowhere")


def test_a_key_of_openssh_is_read_and_told_as_it_does(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    path = tmp_path / "id_ed25519"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    line = public_line(key.public_key())
    assert public_line(private_key(path).public_key()) == line
    (tmp_path / "id.pub").write_text(line + "\n")
    try:
        told = subprocess.run(["ssh-keygen", "-lf", tmp_path / "id.pub"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("no ssh-keygen here")
    assert fingerprint(line) in told.stdout
