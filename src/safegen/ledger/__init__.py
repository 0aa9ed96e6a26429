"""The ledger: what was ever attested or released, as manifests, keyed digests and decisions.

`open_ledger()` gives the one that the user's environment names. It stores no rows.
"""

from __future__ import annotations

import os
from pathlib import Path

from safegen.ledger.base import Attached, Attachment, Ledger, LogEntry, Record
from safegen.ledger.books import StoredLedger
from safegen.ledger.places import Place, ledger_place
from safegen.ledger.sqlite import SqliteStore
from safegen.ledger.stores import Store
from safegen.policy.organisation import pins

__all__ = ["Attached", "Attachment", "Ledger", "LogEntry", "Record", "open_ledger"]


def open_ledger(url: str | Path | Ledger | None = None, *, create: bool = True) -> Ledger:
    """The ledger at `url`: a path, `sqlite:///abs/path.db`, `postgresql://user@host/database`, or a
    Ledger, which is given back.

    None means the one that the organisation pins, else $SAFEGEN_LEDGER, else `ledger.db` in the
    user's data folder. With `create`, a missing ledger is founded, with a new id and a new key.
    Raises: LedgerError when it cannot be reached, is not a ledger, is newer than this safegen, is
    missing and not to be created, or has a key file that is open to other users; MissingExtra
    without the driver of PostgreSQL.
    """
    if url is not None and not isinstance(url, str | os.PathLike):
        if pins().ledger is not None:
            ledger_place(url.url)  # raises for another one
        return url
    return StoredLedger(store_at(ledger_place(url)), create=create)


def store_at(place: Place) -> Store:
    """The database at a place, which holds a ledger or will. Raises: MissingExtra."""
    if isinstance(place, Path):
        return SqliteStore(place)
    from safegen.ledger.postgres import PostgresStore

    return PostgresStore(place)
