"""What a ledger needs of the database that it is in, whichever that is.

A query is written once, in the SQL that SQLite and PostgreSQL share, with `?` for a value: no
query is ever made of values. Texts are compared and ordered by their code points.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from safegen.ledger import keys

__all__ = ["Founding", "Rows", "Store", "Transaction", "new_ledger"]


class Rows(Protocol):
    """What a query found, as tuples."""

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Transaction(Protocol):
    """Queries that see one state of the database."""

    def execute(self, query: str, values: Sequence[Any] = ..., /) -> Rows: ...

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]], /) -> None:
        """Put rows into a table; columns: their names, with commas between."""
        ...


Founding = Callable[[Transaction], None]


def new_ledger(db: Transaction) -> None:
    """A `Founding`: a new id and a new key."""
    ledger_id = secrets.token_hex(16)
    key = keys.add_key(ledger_id)
    db.execute("INSERT INTO ledger (one, ledger_id) VALUES (1, ?)", (ledger_id,))
    db.execute("INSERT INTO epochs (seq, key_id) VALUES (0, ?)", (key,))


class Store(Protocol):
    """A database that holds one ledger. Can be pickled, shared by threads, and forked.

    url: leads here again, and holds no password. name: what messages call the place.
    Every method raises LedgerError, with what to do, when the database cannot be used.
    """

    url: str
    name: str

    def open(self, found: Founding | None) -> str:
        """Bring the schema up to date, where that may be written; the ledger's id.

        found: what a ledger begins with where there is none yet, in one transaction with its
        tables; None: there has to be one.
        """
        ...

    def transaction(self, *, write: bool = False) -> AbstractContextManager[Transaction]:
        """Committed at the end, rolled back on any error. With `write`, no other writes between."""
        ...

    def identity(self, db: Transaction) -> tuple[int, str]:
        """The schema's version and the ledger's id. Raises: LedgerError for what is no ledger."""
        ...

    def damage(self, db: Transaction) -> Iterator[str]:
        """What the database itself knows to be broken."""
        ...

    def close(self) -> None:
        """Let go of what is held between transactions."""
        ...
