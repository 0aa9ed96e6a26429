"""A ledger's secret keys: one file per ledger in the user's config folder, never in the database.

Lookup digests and fingerprints are keyed, so that somebody with the database alone cannot guess
low-entropy rows. A lost key cannot be made again: what was registered under it is not found any
more, and the ledger says so instead of drawing a new key in silence.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import tempfile
from pathlib import Path

from safegen.errors import LedgerError, hidden, upstream
from safegen.folders import config_folder, make_private

__all__ = ["add_key", "key_file", "key_id", "read_keys"]

_KEY_BYTES = 32


def key_id(key: bytes) -> str:
    """The public name of a key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(key).hexdigest()[:16]


def key_file(ledger_id: str) -> Path:
    """Where the keys of a ledger lie. Raises: LedgerError when there is no home folder."""
    return config_folder() / "keys" / f"{ledger_id}.json"


def read_keys(ledger_id: str) -> dict[str, bytes]:
    """The keys of a ledger that this user holds, by key id; empty when there is no key file.

    Raises: LedgerError when the file is open to others, unreadable or damaged.
    """
    path = key_file(ledger_id)
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(1 << 20)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LedgerError(
            f"the ledger's key file {path} cannot be read: check its owner and mode "
            f"({upstream(error)})"
        ) from hidden(error)
    if mode & 0o077 and os.name != "nt":
        raise LedgerError(
            f"the ledger's key file {path} is open to other users (mode {mode:04o}): "
            f"run chmod 600 '{path}'"
        )
    try:
        document = json.loads(data)
        keys = {key_id(key): key for key in map(bytes.fromhex, document["keys"])}
        sound = document["ledger_id"] == ledger_id and all(
            len(key) == _KEY_BYTES for key in keys.values()
        )
    except (ValueError, TypeError, KeyError):
        sound = False
    if not sound:
        # Not chained, not even when debugging: a decoder's text may quote key bytes.
        raise LedgerError(f"the ledger's key file {path} is damaged: restore it from a backup")
    return keys


def add_key(ledger_id: str) -> str:
    """Draw a key, add it to the ledger's key file and return its key id.

    Call it under the ledger's write lock: the file is replaced as a whole, so readers see the old
    or the new one. Raises: LedgerError when the file cannot be read or written.
    """
    path = key_file(ledger_id)
    key = secrets.token_bytes(_KEY_BYTES)
    keys = [*read_keys(ledger_id).values(), key]
    document = {"ledger_id": ledger_id, "keys": [k.hex() for k in keys]}
    make_private(path.parent)
    try:
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # mode 0600
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                json.dump(document, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
        if os.name != "nt":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise LedgerError(
            f"the ledger's key file {path} cannot be written: check that its folder can be "
            f"written and has space ({upstream(error)})"
        ) from hidden(error)
    return key_id(key)
