"""A ledger in one SQLite file, safe under concurrent processes and threads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from safegen.errors import LedgerError
from safegen.folders import make_private
from safegen.ledger.connections import connection
from safegen.ledger.places import create_empty, ledger_url
from safegen.ledger.schema import APPLICATION_ID, MIGRATIONS
from safegen.ledger.stores import Founding, Transaction

__all__ = ["SqliteStore"]


class SqliteStore:
    """A `Store` in the file `path`: every transaction has a connection of its own."""

    def __init__(self, path: Path):
        self.url = ledger_url(path)
        self.name = str(path)
        self._path = path

    def open(self, found: Founding | None) -> str:
        path = self._path
        if os.path.isdir(path):
            raise LedgerError(f"the ledger {path} is a folder: name a file in it")
        if os.path.exists(path) and not os.path.isfile(path):
            raise LedgerError(f"the ledger {path} is not a regular file: name another path")
        if not os.path.exists(path) and found:
            make_private(path.parent)
            create_empty(path)
        latest = MIGRATIONS[-1][0]
        with connection(self._path) as db:
            version = self._version(db)
        if version == 0 and found is None:
            raise LedgerError(f"the file {path} is empty: it holds no ledger; check the path")
        # What cannot be written can still be read, as the version that it is.
        if version < latest and (version == 0 or os.access(path, os.W_OK)):
            with connection(self._path, write=True) as db:
                self._migrate(db, found)
        with connection(self._path) as db:
            return self.identity(db)[1]

    def transaction(self, *, write: bool = False) -> AbstractContextManager[Transaction]:
        return connection(self._path, write=write)

    def identity(self, db: Transaction) -> tuple[int, str]:
        version = self._version(db)
        row = db.execute("SELECT ledger_id FROM ledger").fetchone() if version else None
        # The id becomes a file name, so nothing but hex digits is taken from a file.
        if row is None or not re.fullmatch(r"[0-9a-f]{32}", str(row[0])):
            raise LedgerError(f"the ledger {self._path} has lost its id: restore a backup")
        return version, str(row[0])

    def damage(self, db: Transaction) -> Iterator[str]:
        found = [row[0] for row in db.execute("PRAGMA integrity_check")]
        if found != ["ok"]:
            yield f"the database file is damaged ({len(found)} findings of PRAGMA integrity_check)"

    def close(self) -> None:
        pass

    def _migrate(self, db: Transaction, found: Founding | None) -> None:
        """Bring the schema up to date under the write lock; found the ledger where it is new."""
        version = self._version(db)  # again: another process may have been faster
        for number, statements in MIGRATIONS:
            if number > version:
                for statement in statements:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")
        if version == 0 and found is not None:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            found(db)

    def _version(self, db: Transaction) -> int:
        """The schema version, 0 for an empty file. Raises: LedgerError if it is not for us."""
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (application, version, tables) == (0, 0, 0):
            return 0
        if application != APPLICATION_ID or version < 1:
            raise LedgerError(
                f"the file {self._path} is a database of another program: name another path"
            )
        if version > MIGRATIONS[-1][0]:
            raise LedgerError(
                f"the ledger {self._path} has schema version {version} and this safegen knows up "
                f"to {MIGRATIONS[-1][0]}: upgrade safegen"
            )
        return int(version)
