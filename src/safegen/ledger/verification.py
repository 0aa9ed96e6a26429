"""Whether a ledger still is what was written: the chain, and the tables against the log."""

from __future__ import annotations

from collections.abc import Iterator

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
    for row in db.execute(f"SELECT {ENTRY} FROM log ORDER BY seq"):
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
            yield from _unanswered(db, entry, version)
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


def _attached(db: Transaction, seq: int) -> Iterator[tuple[str, str, str, str]]:
    query = "SELECT kind, name, key_id, body FROM attachments WHERE seq = ?"
    for kind, name, key_id, body in db.execute(query, (seq,)):
        yield kind, name, key_id, sha256(body)


def _unanswered(db: Transaction, entry: LogEntry, version: int) -> Iterator[str]:
    """What a sound log entry says and the tables do not."""
    seq, said = entry.seq, entry.payload
    if entry.kind == "register":
        name = f"the record of dataset {said['dataset_id']} (log entry {seq})"
        query = "SELECT body, dataset_id, logical_digest FROM records WHERE seq = ?"
        row = db.execute(query, (seq,)).fetchone()
        if row is None:
            yield f"{name} is gone"
        elif sha256(str(row[0]).encode()) != said["record_digest"] or row[1:] != (
            said["dataset_id"],
            said["logical_digest"],
        ):
            yield f"{name} was changed"
        pairs = db.execute("SELECT key_id, digest FROM lookups WHERE seq = ?", (seq,))
        if lookups_digests(pairs) != said["lookups"]:
            yield f"lookup digests of dataset {said['dataset_id']} were changed or are gone"
        parts = list(_attached(db, seq)) if version >= 2 else []
        if (attachments_digest(parts) if parts else None) != said.get("attachments"):
            yield f"what is attached to dataset {said['dataset_id']} was changed or is gone"
    elif entry.kind == "model":
        row = db.execute("SELECT digest FROM models WHERE seq = ?", (seq,)).fetchone()
        if row is None or row[0] != said["digest"]:
            yield f"the model of log entry {seq} was changed or is gone"
    elif entry.kind == "epoch":
        row = db.execute("SELECT key_id FROM epochs WHERE seq = ?", (seq,)).fetchone()
        if row is None or row[0] != said["key_id"]:
            yield f"the key epoch of log entry {seq} was changed or is gone"
