"""A connection to a SQLite ledger, for one transaction.

A fork waits until no connection is open: SQLite's own note of the locks that a process holds would
be wrong in the child. The journal is SQLite's default: WAL does not work on network file systems.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from safegen.errors import LedgerError, hidden
from safegen.ledger.failures import failure

__all__ = ["connection"]

BUSY_SECONDS = 30.0

_CONNECTED = threading.RLock()  # held while this process has a connection, and during a fork
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_CONNECTED.acquire,
        after_in_parent=_CONNECTED.release,
        after_in_child=_CONNECTED.release,
    )


class Connection(sqlite3.Connection):
    """A `Transaction` in a file."""

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]], /) -> None:
        marks = ", ".join("?" for _ in columns.split(","))
        self.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)


@contextmanager
def connection(path: Path, *, write: bool = False) -> Iterator[Connection]:
    """A transaction on the file: committed at the end, rolled back on any error.

    Raises: LedgerError for whatever SQLite says, with what to do.
    """
    # mode=rw never creates; where writing is not allowed, SQLite itself falls back to mode=ro.
    uri = f"{path.as_uri()}?mode=rw"
    try:
        with (
            _CONNECTED,
            closing(
                sqlite3.connect(
                    uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, factory=Connection
                )
            ) as db,
        ):
            db.text_factory = _text
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
    except sqlite3.Error as error:
        raise failure(error, path, write, BUSY_SECONDS) from hidden(error)
    except UnicodeEncodeError as error:
        raise LedgerError(
            "a text with lone surrogates cannot be in a ledger: it must be valid Unicode"
        ) from hidden(error)


def _text(data: bytes) -> str:
    """Bytes that are not UTF-8 any more come out changed, so that their hash tells."""
    return data.decode(errors="replace")
