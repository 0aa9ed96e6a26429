"""A whole ledger from one database into another: the same id, the same keys, the same chain."""

from __future__ import annotations

from collections.abc import Iterator

from safegen.errors import UsageError, VerificationError
from safegen.ledger import Ledger, store_at
from safegen.ledger.books import StoredLedger
from safegen.ledger.opened import Opened
from safegen.ledger.places import named_place
from safegen.ledger.stores import Transaction

__all__ = ["copy_ledger"]

_AT_ONCE = 1_000  # rows
# What refers to a log entry comes after it.
_TABLES = (
    ("ledger", "one, ledger_id", "one"),
    ("epochs", "seq, key_id", "seq"),
    ("log", "seq, time, kind, payload, prev, hash", "seq"),
    ("records", "seq, body, dataset_id, logical_digest", "seq"),
    ("lookups", "seq, key_id, digest", "seq, key_id, digest"),
    ("models", "seq, digest", "seq"),
)
_PART = "seq, kind, name, key_id"


def copy_ledger(source: Ledger, to: str) -> Ledger:
    """Copy all of a ledger to a path or URL where none is yet, or nothing. What was written there
    is verified.

    From then on the two go apart: write to one of them only. Raises: VerificationError for a ledger
    that does not verify, here or there; UsageError where there is one; LedgerError.
    """
    assert isinstance(source, StoredLedger)
    store = store_at(named_place(to))
    if problems := source.verify():
        raise VerificationError([f"{source.url}: {p}" for p in problems])
    begun = False
    with source._transaction() as at:

        def found(db: Transaction) -> None:
            nonlocal begun
            begun = True
            _fill(at, db)

        store.open(found)
        head = at.head()
    if not begun:
        raise UsageError(f"there is a ledger at {store.name} already: name another place")
    copied = StoredLedger(store, create=False)
    problems = copied.verify()
    state = copied.state()
    if (state["log_entries"], state["head"]) != head:
        problems.append("it does not end where the other one does")
    if problems:
        raise VerificationError([f"{store.url}: {p}" for p in problems])
    return copied


def _fill(at: Opened, db: Transaction) -> None:
    for table, columns, order in _TABLES:
        query = f"SELECT {columns} FROM {table} ORDER BY {order} LIMIT {_AT_ONCE} OFFSET ?"
        for rows in _pages(at, query):
            db.insert(table, columns, rows)
    if at.version < 2:  # of a file that could not be brought up to date
        return
    query = f"SELECT {_PART} FROM attachments ORDER BY {_PART} LIMIT {_AT_ONCE} OFFSET ?"
    one = "WHERE seq = ? AND kind = ? AND name = ? AND key_id = ?"
    for rows in _pages(at, query):
        for part in rows:  # each may have half a gigabyte
            body = at.db.execute(f"SELECT digest, body FROM attachments {one}", part).fetchone()
            db.insert("attachments", f"{_PART}, digest, body", [(*part, *body)])


def _pages(at: Opened, query: str) -> Iterator[list[tuple[object, ...]]]:
    done = 0
    while rows := at.db.execute(query, (done,)).fetchall():
        yield rows
        done += len(rows)
