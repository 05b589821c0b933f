"""Ed25519 keys in files: OpenSSH's or PKCS#8. Signing and verifying is `cryptography`'s; nothing is invented here."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from steelyard.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PASSPHRASE = "STEELYARD_KEY_PASSPHRASE"
"""Environment variable with the passphrase of a key, where nobody can be asked."""
KIND = "ssh-ed25519"


def new_key(path: Path, passphrase: str | None = None) -> str:
    """Write a new private key (PKCS#8, mode 600) and return its public line. Raises InputError if the file is there."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        KeySerializationEncryption,
        NoEncryption,
        PrivateFormat,
    )

    key = Ed25519PrivateKey.generate()
    how: KeySerializationEncryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    except FileExistsError as error:
        raise InputError(
            f"{path} is there already.", remedy="Name another file; a key is never overwritten."
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}).", remedy="Name another file.") from error
    return public_line(key.public_key())


def private_key(path: Path, ask: Callable[[], str] | None = None) -> Ed25519PrivateKey:
    """The private key in a file; `ask` gives its passphrase if the environment does not.

    Raises InputError if there is none, if the passphrase is wrong, or if it is no Ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    try:
        text = path.expanduser().read_bytes()
    except OSError as error:
        raise InputError(
            f"There is no key in {path} ({error.strerror}).", remedy="Make one: steelyard key FILE."
        ) from error
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in text else load_pem_private_key
    phrase: bytes | None = None
    try:
        try:
            key = load(text, None)
        except TypeError:
            # It is encrypted.
            said = os.environ.get(PASSPHRASE) or (ask() if ask else "")
            phrase = said.encode()
            key = load(text, phrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = "its passphrase is another, or it is damaged" if phrase is not None else f"it cannot be read: {error}"
        raise InputError(
            f"{path}: {why}.",
            remedy=f"Name an Ed25519 private key (PKCS#8 or OpenSSH); {PASSPHRASE} may hold its passphrase.",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} is no Ed25519 key.", remedy="Make one: steelyard key FILE.")
    return key


def public_line(key: Ed25519PublicKey) -> str:
    """A public key as OpenSSH writes it, without a comment."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def public_key(line: str) -> Ed25519PublicKey:
    """The public key of a line `ssh-ed25519 BASE64 [comment]`. Raises ValueError if it is none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        key = load_ssh_public_key(line.strip().encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{line[:40]!r} is no public key ({error})") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{line.split(maxsplit=1)[0]} is no {KIND} key")
    return key


def fingerprint(line: str) -> str:
    """A public key's fingerprint as OpenSSH tells it: SHA256 and base64."""
    blob = base64.b64decode(line.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
