"""A sign-off: a named person's decision on a packet, in a role, signed.

What is signed is an in-toto Statement whose subject is the packet, in a DSSE envelope (v1.0.0,
https://github.com/secure-systems-lab/dsse): any tool that knows the two can verify it without Steelyard.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from steelyard.digest import canonical, text_digest
from steelyard.errors import InputError
from steelyard.records_review import SignOffRow
from steelyard.review.evidence import moment
from steelyard.review.keys import fingerprint, public_key, public_line
from steelyard.review.packet import STATEMENT

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGN_OFF = "urn:steelyard:sign-off:1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
APPROVE, CONDITIONS, REJECT, ABSTAIN = "approve", "conditions", "reject", "abstain"
DECISIONS = (APPROVE, CONDITIONS, REJECT, ABSTAIN)
APPROVING = (APPROVE, CONDITIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOff:
    """What a person decides. `arm` is None for every candidate of the run; moments are UTC."""

    run_id: str
    packet_digest: str
    person: str
    role: str
    decision: str
    arm: str | None
    conditions: str | None
    signed_at: datetime
    expires_at: datetime
    ledger_head: str


def statement(found: SignOff) -> dict[str, Any]:
    """The statement that is signed."""
    return {
        "_type": STATEMENT,
        "subject": [{"name": found.run_id, "digest": {"sha256": found.packet_digest}}],
        "predicateType": SIGN_OFF,
        "predicate": {
            "person": found.person,
            "role": found.role,
            "decision": found.decision,
            "arm": found.arm,
            "conditions": found.conditions,
            "signed_at": moment(found.signed_at),
            "expires_at": moment(found.expires_at),
            "ledger_head": found.ledger_head,
        },
    }


def signed(found: SignOff, key: Ed25519PrivateKey) -> str:
    """The envelope, as JSON."""
    payload = canonical(statement(found)).encode()
    signature = key.sign(_authenticated(PAYLOAD_TYPE, payload))
    return canonical(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": fingerprint(public_line(key.public_key())), "sig": base64.b64encode(signature).decode()}
            ],
        }
    )


def opened(envelope: str) -> SignOff:
    """What an envelope says, its signature not looked at. Raises InputError if it is no sign-off."""
    try:
        outer = json.loads(envelope)
        if outer["payloadType"] != PAYLOAD_TYPE:
            raise ValueError(f"its payload is {outer['payloadType']}")
        inner = json.loads(base64.b64decode(outer["payload"], validate=True))
        return _read(inner)
    except (
        ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError, binascii.Error,
    ) as error:  # fmt: skip
        raise InputError(
            f"This is no signed sign-off ({type(error).__name__}: {error}).",
            remedy="Give what `steelyard sign --print` printed, unchanged.",
            field="envelope",
        ) from error


def _read(inner: Mapping[str, Any]) -> SignOff:
    if (inner["_type"], inner["predicateType"]) != (STATEMENT, SIGN_OFF):
        raise ValueError(f"it is a {inner['predicateType']}")
    [subject] = inner["subject"]
    said = inner["predicate"]
    if said["decision"] not in DECISIONS:
        raise ValueError(f"there is no decision {said['decision']}")
    texts = (subject["name"], subject["digest"]["sha256"], said["person"], said["role"], said["ledger_head"])
    if not all(isinstance(each, str) and each for each in texts):
        raise ValueError("a name or a digest is missing")
    if not all(each is None or isinstance(each, str) for each in (said["arm"], said["conditions"])):
        raise ValueError("arm or conditions are no text")
    # Half a character, as JSON can write it, is none that a database or a file takes. The error is a ValueError.
    "".join([*texts, said["arm"] or "", said["conditions"] or ""]).encode()
    return SignOff(
        run_id=texts[0], packet_digest=texts[1], person=texts[2], role=texts[3], decision=said["decision"],
        arm=said["arm"], conditions=said["conditions"], signed_at=_moment(said["signed_at"]),
        expires_at=_moment(said["expires_at"]), ledger_head=texts[4],
    )  # fmt: skip


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return found.astimezone(UTC)


def is_signed_by(envelope: str, line: str) -> bool:
    """Whether one of the envelope's signatures is that of the public key `ssh-ed25519 BASE64`."""
    from cryptography.exceptions import InvalidSignature

    try:
        outer = json.loads(envelope)
        message = _authenticated(outer["payloadType"], base64.b64decode(outer["payload"], validate=True))
        signatures = [base64.b64decode(each["sig"], validate=True) for each in outer["signatures"]]
        key = public_key(line)
    except (ValueError, KeyError, TypeError):
        return False
    for signature in signatures:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            continue
        return True
    return False


def sign_off_row(envelope: str, line: str, received_at: datetime) -> SignOffRow:
    """The row of an envelope that was verified with the public key `line`."""
    found = opened(envelope)
    return SignOffRow(
        run_id=found.run_id, sign_off=text_digest(envelope)[:16], packet_digest=found.packet_digest,
        person=found.person, as_role=found.role, decision=found.decision, about=found.arm, conditions=found.conditions,
        signed_at=found.signed_at, expires_at=found.expires_at, ledger_head=found.ledger_head, public_key=line,
        envelope_json=envelope, received_at=received_at,
    )  # fmt: skip


def as_signed(row: SignOffRow) -> bool:
    """Whether a stored sign-off says what its envelope says, and its signature is that of its key."""
    try:
        again = sign_off_row(row.envelope_json, row.public_key, row.received_at)
    except InputError:
        return False
    return again == row and is_signed_by(row.envelope_json, row.public_key)


def _authenticated(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what the signature is really over."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
