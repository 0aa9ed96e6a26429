"""Signatures: an in-toto Statement v1 in a DSSE envelope, Ed25519.

The statement's subjects are the dataset's files and its logical content; its predicate is the
whole manifest. A key's id is the SHA-256 of its public key (DER, SubjectPublicKeyInfo), and an
envelope that names a key by another id is refused: an id is never a mere label.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import ManifestError, UsageError
from safegen.manifest.canonical import MAX_DOCUMENT_BYTES, canonical_bytes, parse_canonical
from safegen.manifest.model import MANIFEST_NAME, Manifest, read_plain
from safegen.places import Place

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

__all__ = [
    "PublicKey",
    "SigningKey",
    "envelope_for",
    "key_id",
    "new_key",
    "opened",
    "signature_of",
    "signed_by",
    "signers_of",
]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:safegen:dataset-manifest:v1"
_MAX_SIGNATURES = 32


def key_id(text: str) -> str:
    """The id of a public key that a policy names: the SHA-256 of its DER bytes, in hex.

    text: the one line between the first and the last of its PEM file.
    """
    return hashlib.sha256(base64.b64decode(text)).hexdigest()


class PublicKey:
    """An Ed25519 public key; `.id` is the SHA-256 of its DER bytes, `.pem` its PEM file, `.text`
    the line of that file that policies name it by."""

    def __init__(self, pem: bytes):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            load_pem_public_key,
        )

        try:
            key = load_pem_public_key(pem)
        except ValueError:
            raise UsageError("not a PEM public key; `safegen key new` makes a pair") from None
        if not isinstance(key, Ed25519PublicKey):
            raise UsageError("not an Ed25519 key; `safegen key new` makes one")
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._key = key
        self.id = hashlib.sha256(der).hexdigest()
        self.pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self.text = base64.b64encode(der).decode()

    @classmethod
    def of(cls, text: str) -> PublicKey:
        """The public key that a policy names by the line of its PEM file. Raises: UsageError."""
        return cls(f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n".encode())

    @classmethod
    def read(cls, path: str | Path) -> PublicKey:
        """The public key in a PEM file. Raises: UsageError."""
        return cls(_read_key_file(path))

    def sslib(self) -> SSlibKey:
        from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

        return SSlibKey.from_crypto(self._key, keyid=self.id)


class SigningKey:
    """An Ed25519 private key, read from a PEM file that only its owner can read."""

    def __init__(self, path: str | Path):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            load_pem_private_key,
        )

        data = _read_key_file(path)
        if os.name == "posix" and Path(path).stat().st_mode & 0o077:
            raise UsageError(f"{path}: others can read this private key; run: chmod 600 {path}")
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError):
            raise UsageError(
                f"{path}: not an unencrypted PEM private key; `safegen key new` makes one"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{path}: not an Ed25519 key; `safegen key new` makes one")
        self._key = key
        self.public = PublicKey(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature of bytes that name their purpose themselves."""
        return self._key.sign(data)

    def pem(self) -> bytes:
        """The private key as its file has it, for a library that signs by itself."""
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def new_key(path: str | Path) -> PublicKey:
    """Write a new private key to `path` (mode 0600) and its public half to `path`.pub.

    Raises: UsageError when a file is there already (a key is never overwritten) or the folder
    cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    private, public = Path(path), Path(f"{path}.pub")
    if public.exists() or private.exists():
        raise UsageError(f"{private} or {public} exists already; a key is never overwritten")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(pem)
        half = SigningKey(private).public
        public.write_text(half.pem)
    except OSError as error:
        raise UsageError(f"{private}: cannot be written ({error.strerror})") from None
    return half


def _read_key_file(path: str | Path) -> bytes:
    try:
        with Path(path).open("rb") as stream:
            return stream.read(65536)
    except OSError as error:
        raise UsageError(f"{path}: the key cannot be read ({error.strerror})") from None


def _statement(manifest: Manifest) -> dict[str, Any]:
    subjects = [
        {"name": f.path, "digest": {"sha256": f.sha256.removeprefix("sha256:")}}
        for f in manifest.files
    ]
    scheme, _, rows = manifest.logical_digest.rpartition(":")
    kind = "safegenRows2" if scheme.endswith("-v2") else "safegenRows1"
    subjects.append({"name": "logical", "digest": {kind: rows}})
    return {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": manifest.document(),
    }


def envelope_for(manifest: Manifest, key: SigningKey, existing: bytes | None = None) -> bytes:
    """The DSSE envelope of a sealed manifest, canonical JSON.

    With `existing`, the signature is added to that envelope if it holds the same statement.
    Raises: ManifestError when it does not.
    """
    return signature_of(_statement(manifest), key, existing)


def signature_of(
    statement: dict[str, Any], key: SigningKey, existing: bytes | None = None
) -> bytes:
    """The DSSE envelope of an in-toto statement; with `existing` as `envelope_for` has it."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    payload = canonical_bytes(statement)
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    if existing is not None:
        envelope = _parse(existing)
        if envelope.payload != payload:
            raise ManifestError(
                ["the existing signature is of another manifest; verify the dataset first"]
            )
    envelope.sign(CryptoSigner(key._key, key.public.sslib()))
    return canonical_bytes(envelope.to_dict())


def _parse(data: bytes) -> Any:
    from securesystemslib.dsse import Envelope

    document = parse_canonical(data, "the signature file")
    try:
        if len(document["signatures"]) > _MAX_SIGNATURES:
            raise ManifestError([f"the signature file has more than {_MAX_SIGNATURES} signatures"])
        return Envelope.from_dict(json.loads(json.dumps(document)))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ManifestError(["the signature file is not a DSSE envelope"]) from None
    except Exception as error:
        if type(error).__module__.startswith("securesystemslib"):
            raise ManifestError(["the signature file is not a DSSE envelope"]) from None
        raise


def signed_by(manifest: Manifest, envelope: bytes, keys: Sequence[PublicKey]) -> list[PublicKey]:
    """Which of `keys` signed this manifest.

    Raises: ManifestError when the envelope is not of this manifest, or carries a signature under
    one of the keys' ids that does not verify.
    """
    return signers_of(_statement(manifest), envelope, keys, MANIFEST_NAME)


def signers_of(
    statement: dict[str, Any], envelope: bytes, keys: Sequence[PublicKey], what: str
) -> list[PublicKey]:
    """Which of `keys` signed a statement about `what`. Raises: ManifestError as `signed_by`."""
    parsed = _parse(envelope)
    if parsed.payload != canonical_bytes(statement):
        raise ManifestError([f"the signature is not of this {what}"])
    return _verified(parsed, keys)


def opened(envelope: bytes, keys: Sequence[PublicKey], predicate_type: str) -> dict[str, Any]:
    """The predicate of a statement that one of `keys` signed.

    Raises: ManifestError where none did, and for a statement of another kind.
    """
    parsed = _parse(envelope)
    if not _verified(parsed, keys):
        raise ManifestError(["it is not signed by a key that is trusted"])
    statement = parse_canonical(parsed.payload, "the signed statement")
    if (statement.get("_type"), statement.get("predicateType")) != (STATEMENT_TYPE, predicate_type):
        raise ManifestError(["it is a signed statement of another kind"])
    predicate = statement.get("predicate")
    if not isinstance(predicate, dict):
        raise ManifestError(["the signed statement says nothing"])
    return predicate


def _verified(parsed: Any, keys: Sequence[PublicKey]) -> list[PublicKey]:
    """Which of `keys` signed an envelope. Raises: ManifestError for a signature that is under the
    id of one of them and does not verify."""
    from securesystemslib.exceptions import UnverifiedSignatureError

    if parsed.payload_type != PAYLOAD_TYPE:
        raise ManifestError(["the signature is of another payload type"])
    known = {k.id: k for k in keys}
    signers = []
    for keyid, signature in parsed.signatures.items():
        if keyid not in known:
            continue
        try:
            known[keyid].sslib().verify_signature(signature, parsed.pae())
        except UnverifiedSignatureError:
            raise ManifestError([f"the signature by key {keyid[:16]}… does not verify"]) from None
        signers.append(known[keyid])
    return signers


def key_ids(envelope: bytes) -> list[str]:
    """The ids that an envelope names. They prove nothing until `signed_by` has verified them."""
    return list(_parse(envelope).signatures)


def read_keys(keys: Iterable[str | Path | PublicKey]) -> list[PublicKey]:
    return [k if isinstance(k, PublicKey) else PublicKey.read(k) for k in keys]


def read_envelope(path: Place) -> bytes | None:
    """The bytes of a signature file, or None when there is none."""
    try:
        return read_plain(path, 2 * MAX_DOCUMENT_BYTES)
    except FileNotFoundError:
        return None
