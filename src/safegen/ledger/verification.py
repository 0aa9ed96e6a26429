"""Whether a ledger still is what was written: the chain, and the tables against the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from safegen.ledger.base import (
    LogEntry,
    attachments_digest,
    entry_from,
    genesis,
    lookups_digests,
    sha256,
)
from safegen.ledger.stores import Transaction

__all__ = ["ENTRY", "epochs", "problems"]

_AT_ONCE = 64  # entries
ENTRY = "seq, time, kind, payload, prev, hash"
_ANSWERS = (
    ("records", "register"),
    ("lookups", "register"),
    ("attachments", "register"),
    ("models", "model"),
)


def epochs(db: Transaction) -> list[str]:
    """The key ids of a ledger, newest first."""
    return [row[0] for row in db.execute("SELECT key_id FROM epochs ORDER BY seq DESC")]


def problems(db: Transaction, ledger_id: str, version: int) -> Iterator[str]:
    """Every problem, one sentence each. Numbers and dataset ids only, never a payload."""
    first = db.execute("SELECT key_id FROM epochs WHERE seq = 0").fetchone()
    if first is None:
        yield "the first key epoch is gone"
    seq, prev = 0, genesis(ledger_id, first[0] if first else "")
    query = f"SELECT {ENTRY} FROM log WHERE seq > ? ORDER BY seq LIMIT {_AT_ONCE}"
    while page := db.execute(query, (seq,)).fetchall():
        tables = _Tables(db, page[0][0], page[-1][0], version)
        for row in page:
            if row[0] != seq + 1:
                yield f"log entries {seq + 1} to {row[0] - 1} are gone"
            elif row[4] != prev:
                yield f"log entry {row[0]} does not follow from the one before it"
            seq, prev = row[0], row[5]
            try:
                entry = entry_from(*row)
            except ValueError:
                entry = None
            if entry is None or not entry.sound():
                yield f"log entry {seq} was changed"
            else:
                yield from _unanswered(tables, entry)
    for table, kind in _ANSWERS:
        if table == "attachments" and version < 2:
            continue
        stray = (
            f"SELECT DISTINCT seq FROM {table} WHERE seq NOT IN (SELECT seq FROM log WHERE kind=?)"
        )
        for (number,) in db.execute(stray, (kind,)):
            yield f"a row of {table} names log entry {number}, which does not speak of it"
    stray = "SELECT seq FROM epochs WHERE seq NOT IN (SELECT seq FROM log WHERE kind='epoch')"
    for (number,) in db.execute(f"{stray} AND seq <> 0"):
        yield f"a key epoch names log entry {number}, which does not speak of it"


class _Tables:
    """What the tables have for some of the log's entries, by their numbers; asked for at once, as
    the database may be far away."""

    def __init__(self, db: Transaction, first: int, last: int, version: int):
        def rows(columns: str, table: str) -> dict[int, list[tuple[Any, ...]]]:
            found: dict[int, list[tuple[Any, ...]]] = {}
            query = f"SELECT seq, {columns} FROM {table} WHERE seq BETWEEN ? AND ?"
            for seq, *row in db.execute(query, (first, last)):
                found.setdefault(seq, []).append(tuple(row))
            return found

        self._db = db
        self.records = rows("body, dataset_id, logical_digest", "records")
        self.lookups = rows("key_id, digest", "lookups")
        self.models = rows("digest", "models")
        self.epochs = rows("key_id", "epochs")
        self._attached = rows("kind", "attachments") if version >= 2 else {}

    def attached(self, seq: int) -> list[tuple[str, str, str, str]]:
        """What is attached to a record; the bytes are read of one after the other."""
        if seq not in self._attached:
            return []
        query = "SELECT kind, name, key_id, body FROM attachments WHERE seq = ?"
        return [(*part, sha256(body)) for *part, body in self._db.execute(query, (seq,))]


def _unanswered(tables: _Tables, entry: LogEntry) -> Iterator[str]:
    """What a sound log entry says and the tables do not."""
    seq, said = entry.seq, entry.payload
    if entry.kind == "register":
        name = f"the record of dataset {said['dataset_id']} (log entry {seq})"
        record = tables.records.get(seq)
        if record is None:
            yield f"{name} is gone"
        elif sha256(str(record[0][0]).encode()) != said["record_digest"] or record[0][1:] != (
            said["dataset_id"],
            said["logical_digest"],
        ):
            yield f"{name} was changed"
        if lookups_digests(tables.lookups.get(seq, ())) != said["lookups"]:
            yield f"lookup digests of dataset {said['dataset_id']} were changed or are gone"
        parts = tables.attached(seq)
        if (attachments_digest(parts) if parts else None) != said.get("attachments"):
            yield f"what is attached to dataset {said['dataset_id']} was changed or is gone"
    elif entry.kind == "model":
        if tables.models.get(seq) != [(said["digest"],)]:
            yield f"the model of log entry {seq} was changed or is gone"
    elif entry.kind == "epoch" and tables.epochs.get(seq) != [(said["key_id"],)]:
        yield f"the key epoch of log entry {seq} was changed or is gone"
