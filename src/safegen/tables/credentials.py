"""Content credentials (C2PA): who says that a model made a file, signed, in the file or beside it.

"C2PA Technical Specification 2.2": a manifest in an image, or beside a file as `NAME.c2pa`, binds a
signed claim to the file's bytes. Ours say that a trained model made it, with which safegen, and
hold the stamp. Those of others are read too; nothing is fetched over a network. Needs c2pa-python.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

from safegen.errors import MissingExtra, UsageError, hidden, upstream
from safegen.manifest.certificate import certificate_of
from safegen.manifest.sign import SigningKey
from safegen.plugins import versions
from safegen.tables.image_metadata import MAX_BYTES

__all__ = [
    "FILE",
    "PNG_FILE",
    "SIDECAR",
    "ContentSigner",
    "Credential",
    "Mime",
    "parseable",
    "read_credential",
]

SIDECAR = ".c2pa"
"""What is added to a file's name for the credential beside it."""

FILE: Literal["application/octet-stream"] = "application/octet-stream"
PNG_FILE: Literal["image/png"] = "image/png"

Mime = Literal["application/octet-stream", "image/png", "image/jpeg", "image/webp"]

_MEDIA = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_DATA = "http://c2pa.org/digitalsourcetype/trainedAlgorithmicData"
_TRAINED = re.compile(r"trainedAlgorithmic(Media|Data)\b", re.IGNORECASE)
_STAMP = "safegen.stamp"

_SETTINGS: dict[str, Any] = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False},
    "builder": {"thumbnail": {"enabled": False}},
}
_PURPOSES = ("1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.62558.2.1")
"""Extended key usages that certificates may have: e-mail, documents, C2PA's own."""

_WHO = ("signingCredential.", "timeStamp.")  # of whom and when, and not of what
_SAME = {"assertion.dataHash.match", "assertion.boxesHash.match"}


@dataclass(frozen=True)
class Credential:
    """What a file's credential comes to.

    `holds`: its signature is sound, and it is of this very file; that says nothing of who signed,
    nor whether the certificate still counts. `trained`: it says that a trained model made the file,
    or a part of it. `state`: C2PA's own verdict; Trusted where the certificate leads to an
    authority that the reader trusts.
    """

    holds: bool
    trained: bool
    state: Literal["Invalid", "Valid", "Trusted"] = "Invalid"


class ContentSigner:
    """Signs files of a release with a key and the certificate beside it."""

    def __init__(self, key: SigningKey, chain: str):
        """Raises: ValueError for a chain that C2PA does not take; MissingExtra."""
        c2pa = _library()
        # No time stamp: nobody is asked over a network.
        told = c2pa.C2paSignerInfo(b"ed25519", chain.encode(), key.pem(), None)
        try:
            self._signer = c2pa.Signer.from_info(told)
        except Exception as error:  # whatever the library raises
            raise ValueError(f"it failed: {upstream(error)}") from hidden(error)
        self._context = _context(None)
        self._version = versions(("safegen",))["safegen"]

    @classmethod
    def of(cls, key: str | Path) -> ContentSigner:
        """The signer with a private key's file, tried out on a few bytes.

        Raises: UsageError for a certificate that is missing, or that C2PA does not take;
        MissingExtra.
        """
        chain = certificate_of(key)
        try:
            signer = cls(SigningKey(key), chain)
            signer._signed(FILE, io.BytesIO(b"tried"), io.BytesIO(), {})
        except ValueError as error:
            raise UsageError(
                f"{key}.crt: C2PA does not take this certificate ({error}); it has to be X.509 v3, "
                "issued by another key, with digitalSignature and an extended key usage"
            ) from None
        return signer

    def embedded(self, data: bytes, stamp: Mapping[str, Any]) -> bytes:
        """A PNG file with its credential in it. Raises: ValueError when it could not be signed."""
        made = io.BytesIO()
        self._signed(PNG_FILE, io.BytesIO(data), made, stamp)
        return made.getvalue()

    def beside(self, path: Path, stamp: Mapping[str, Any]) -> bytes:
        """The credential of a file of rows, to lie beside it. Raises: ValueError, OSError."""
        with path.open("rb") as source:
            return self._signed(FILE, source, _Nowhere(), stamp)

    def _signed(
        self, mime: Mime, source: BinaryIO, made: io.IOBase, stamp: Mapping[str, Any]
    ) -> bytes:
        """Sign, and read what was signed: only what holds counts as signed."""
        c2pa, apart = _library(), mime == FILE
        us = {"name": "safegen", "version": self._version}
        action = {
            "action": "c2pa.created",
            "digitalSourceType": _DATA if apart else _MEDIA,
            "softwareAgent": us,
        }
        said = [{"label": "c2pa.actions.v2", "data": {"actions": [action]}, "created": True}]
        if stamp:
            said.append({"label": _STAMP, "data": dict(stamp), "created": True})
        try:
            claim = {"claim_generator_info": [us], "assertions": said}
            with closing(c2pa.Builder(claim, context=self._context)) as builder:
                if apart:
                    builder.set_no_embed()
                manifest: bytes = builder.sign(self._signer, mime, source, made)
        except Exception as error:  # whatever the library raises
            raise ValueError(f"it failed: {upstream(error)}") from hidden(error)
        written = source if apart else made
        found = read_credential(written, mime, manifest if apart else None)  # type: ignore[arg-type]
        if found is None or found.state == "Invalid" or not found.trained:
            raise ValueError("what was signed does not hold")
        return manifest


class _Nowhere(io.RawIOBase):
    """Where the copy of a file goes that is signed apart from it."""

    def write(self, data: Any, /) -> int:
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return 0

    def tell(self) -> int:
        return 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def read_credential(
    source: BinaryIO, mime: Mime, manifest: bytes | None = None, *, anchors: str | None = None
) -> Credential | None:
    """What the credential in a file, or the `manifest` beside it, comes to; None without one.

    `anchors`: PEM certificates of authorities that are trusted. Damaged ones do not hold; none
    raises. A manifest of others has to be `parseable`. Raises: MissingExtra.
    """
    c2pa = _library()
    source.seek(0)
    try:
        context = _context(anchors)
        if manifest is not None:
            reader = c2pa.Reader(mime, source, manifest_data=manifest, context=context)
        elif (reader := c2pa.Reader.try_create(mime, source, context=context)) is None:
            return None
        with closing(reader):
            state = reader.get_validation_state()
            told = json.loads(reader.json())
        return Credential(_holds(told), _trained(told), state)
    except Exception:  # whatever the library raises at what it does not understand
        return Credential(holds=False, trained=False)


def parseable(manifest: bytes) -> bool:
    """Whether a manifest is one that the library is to be given: of less than 1 MiB, and with no
    box in it that is packed, of which nobody knows how much it holds."""
    return len(manifest) < MAX_BYTES and b"brob" not in manifest


def _holds(document: Any) -> bool:
    """Whether the signature and every hash were found right, whoever signed."""
    found = document["validation_results"]["activeManifest"]
    right = {one["code"] for one in found["success"]}
    wrong = [c for one in found["failure"] if not (c := one["code"]).startswith(_WHO)]
    return not wrong and "claimSignature.validated" in right and bool(right & _SAME)


def _trained(document: Any) -> bool:
    """Whether a digital source type in any of the manifests names a trained model."""
    if isinstance(document, Mapping):
        if any(
            name.lower().endswith("digitalsourcetype") and _TRAINED.search(str(said))
            for name, said in document.items()
        ):
            return True
        return any(map(_trained, document.values()))
    return isinstance(document, list) and any(map(_trained, document))


def _library() -> Any:
    try:
        import c2pa
    except (ImportError, OSError):  # OSError: its shared library cannot be loaded
        raise MissingExtra(
            "content credentials need c2pa-python: pip install 'safegen[c2pa]'"
        ) from None
    return c2pa


@lru_cache(maxsize=4)
def _context(anchors: str | None) -> Any:
    c2pa = _library()
    trust = {"trust_config": "\n".join(_PURPOSES)}
    if anchors is not None:
        trust["trust_anchors"] = anchors
    return c2pa.Context(settings=c2pa.Settings.from_dict({**_SETTINGS, "trust": trust}))
