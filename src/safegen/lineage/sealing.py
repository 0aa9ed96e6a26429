"""Documents that only a ledger's key opens."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["opened", "sealed"]


def sealed(key: bytes, document: Mapping[str, Any], what: str) -> bytes:
    """A document that only the ledger's key opens (AES-256-GCM)."""
    nonce = secrets.token_bytes(12)
    text = json.dumps(document, separators=(",", ":")).encode()
    return nonce + AESGCM(_sealing(key)).encrypt(nonce, text, what.encode())


def opened(key: bytes, data: bytes, what: str) -> Any:
    """What `sealed` closed. Raises: ValueError when it was changed, or is of another key."""
    try:
        return json.loads(AESGCM(_sealing(key)).decrypt(data[:12], data[12:], what.encode()))
    except (InvalidTag, ValueError):
        raise ValueError(f"the {what} was changed, or belongs to another key") from None


def _sealing(key: bytes) -> bytes:
    return hashlib.blake2b(key=key, digest_size=32, person=b"safegen-seal").digest()
