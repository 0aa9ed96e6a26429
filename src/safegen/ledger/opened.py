"""A ledger's tables within one transaction: its rows, none of which is believed unread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from safegen.errors import LedgerError
from safegen.ledger.base import (
    LogEntry,
    Record,
    entry_from,
    genesis,
    next_entry,
    record_from,
    sha256,
)
from safegen.ledger.stores import Transaction
from safegen.ledger.taking import Imports
from safegen.ledger.verification import ENTRY, epochs

__all__ = ["Opened"]

_ALL = 2**62  # rows at most


class Opened:
    """One transaction on a ledger. name: what messages call its place."""

    def __init__(self, db: Transaction, ledger_id: str, name: str, version: int):
        self.db = db
        self.version = version
        self._ledger_id = ledger_id
        self._name = name

    def head(self) -> tuple[int, str]:
        """The number and the hash of the newest entry; of an empty log, its genesis."""
        row = self.db.execute("SELECT seq, hash FROM log ORDER BY seq DESC LIMIT 1").fetchone()
        if row:
            return row[0], row[1]
        return 0, genesis(self._ledger_id, (epochs(self.db) or [""])[-1])

    def entry(self, seq: int) -> LogEntry:
        """The entry of a number that is there."""
        query = f"SELECT {ENTRY} FROM log WHERE seq = ?"
        return entry_from(*self.db.execute(query, (seq,)).fetchone())

    def append(self, kind: str, payload: Mapping[str, Any]) -> LogEntry:
        """Put one entry after the newest."""
        seq, prev = self.head()
        entry, text = next_entry(seq + 1, prev, kind, payload)
        self.db.execute(
            f"INSERT INTO log ({ENTRY}) VALUES (?, ?, ?, ?, ?, ?)",
            (entry.seq, entry.time, kind, text, prev, entry.hash),
        )
        return entry

    def records(
        self, match: str, values: Sequence[object], limit: int = _ALL
    ) -> list[tuple[int, Record]]:
        """Records with their log numbers, each held against its log entry before it is believed."""
        query = (
            f"SELECT body, {ENTRY} FROM records LEFT JOIN log USING (seq)"
            f" WHERE {match} ORDER BY seq LIMIT ?"
        )
        found = []
        imports: Imports | None = None
        for body, *row in self.db.execute(query, (*values, limit)):
            said = self.believed(row, "register")
            if said["record_digest"] != sha256(str(body).encode()):
                raise self.changed(row[0])
            record = record_from(body)
            if "imported" in said:
                imports = imports or self.imports()
                origin = said["imported"]["ledger_id"]
                record = replace(record, imported_from=origin, claimed=imports.claims(said))
            found.append((row[0], record))
        return found

    def imports(self) -> Imports:
        """What the entries of kind `import` say together."""
        query = f"SELECT {ENTRY} FROM log WHERE kind = 'import' ORDER BY seq"
        rows = self.db.execute(query).fetchall()
        return Imports(self.db, [self.believed(row, "import") for row in rows])

    def believed(self, row: Sequence[Any], kind: str) -> dict[str, Any]:
        """The payload of a log row that still has its hash. Raises: LedgerError otherwise."""
        try:
            entry = entry_from(*row)
        except ValueError:
            raise self.changed(row[0]) from None
        if entry.kind != kind or not entry.sound():
            raise self.changed(entry.seq)
        return entry.payload

    def changed(self, seq: int) -> LedgerError:
        """The error of a row that is not what was written."""
        return LedgerError(
            f"entry {seq} of the ledger {self._name} is not what was written: "
            "run `safegen ledger verify` and restore a backup"
        )
