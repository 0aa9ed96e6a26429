"""Canonical JSON (RFC 8785): the one way that safegen turns a document into bytes.

A document is read only when its bytes are already canonical. Two parsers then cannot disagree
about what was signed, duplicate keys cannot hide a field, and the self-digest needs no
normalisation step.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from safegen.errors import ManifestError

__all__ = ["MAX_DOCUMENT_BYTES", "canonical_bytes", "digest_of", "parse_canonical", "sha256"]

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
"""No document that we read is larger: about 100,000 row groups, 6.5 billion rows."""


def sha256(data: bytes) -> str:
    """`sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical_bytes(document: Any) -> bytes:
    """The RFC 8785 bytes of a JSON document.

    Raises: ManifestError for NaN, infinities, and integers outside ±2^53 (write those as strings:
    other readers would round them, and sign other bytes).
    """
    import rfc8785

    try:
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise ManifestError(
            [f"a value cannot be written as canonical JSON ({type(error).__name__})"]
        ) from None


def digest_of(document: Any) -> str:
    """SHA-256 of a document's canonical bytes."""
    return sha256(canonical_bytes(document))


def parse_canonical(data: bytes, what: str) -> Any:
    """The document in `data`, if these are canonical bytes.

    Raises: ManifestError when `data` is too large, is not JSON, or is not canonical.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ManifestError([f"{what} has {len(data):,} bytes; at most {MAX_DOCUMENT_BYTES:,}"])
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ManifestError([f"{what} is not JSON"]) from None
    try:
        canonical = canonical_bytes(document) == data
    except ManifestError:  # a number that RFC 8785 has no form for
        canonical = False
    if not canonical:
        raise ManifestError(
            [f"{what} is not canonical JSON (RFC 8785): it was edited or re-formatted"]
        )
    return document
