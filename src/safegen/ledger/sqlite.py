"""The ledger in one SQLite file, safe under concurrent processes and threads.

Every call opens its own connection and closes it, so nothing is shared between threads or carried
over a fork, and no abandoned iterator holds a lock.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safegen.errors import LedgerError, VerificationError
from safegen.folders import make_private
from safegen.ledger import keys
from safegen.ledger.base import (
    MAX_ATTACHED,
    MAX_BYTES,
    OWN_KINDS,
    WITHDRAWAL,
    Attached,
    Attachment,
    LogEntry,
    Record,
    attachments_digest,
    canonical,
    entry_from,
    genesis,
    lookups_digests,
    next_entry,
    record_body,
    record_from,
    sha256,
)
from safegen.ledger.connections import connection
from safegen.ledger.parcels import Kept, Parcel, Sender, Taken
from safegen.ledger.places import create_empty, ledger_url
from safegen.ledger.schema import APPLICATION_ID, ATTACHING, MIGRATIONS
from safegen.ledger.taking import (
    Imports,
    attached_to,
    digest_alone,
    digested,
    names,
    withdrawn,
)
from safegen.ledger.verification import ENTRY, epochs, problems

__all__ = ["SqliteLedger"]

PAGE = 64  # entries read at a time by the iterators

_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
# An optional scheme and hex digits: a value taken from data does not pass for a digest.
_DIGEST = re.compile(r"(?:[A-Za-z0-9._-]{1,40}:)?[0-9a-f]{16,128}")


class SqliteLedger:
    """A `Ledger` in the SQLite file `path`. Can be pickled, shared by threads, and forked."""

    url: str
    ledger_id: str

    def __init__(self, path: Path, *, create: bool = True):
        self.url = ledger_url(path)
        self.ledger_id = ""
        self._path = path
        self._closed = False
        self._open(create)
        keys.read_keys(self.ledger_id)  # a key file that is open to others is said at once

    def register(
        self,
        record: Record,
        lookups: Mapping[str, Sequence[str]],
        attachments: Sequence[Attachment] = (),
    ) -> LogEntry:
        with self._transaction(write=True) as db:
            _refuse_strange_keys({*lookups, *(a.key_id for a in attachments)}, epochs(db))
            return self._register(db, record, lookups, attachments)

    def take_in(self, sender: Sender, parcels: Iterable[Parcel]) -> Taken:
        with self._transaction(write=True) as db:
            before, there, have = self._imports(db), withdrawn(db), names(db)
            trusted = sender.trusted or before.trusts(sender.signed_by)
            taken, vouched = Taken(0, 0, 0, 0), list[str]()
            for parcel in parcels:
                dataset_id, signed_by = parcel.record.dataset_id, sender.signed_by
                if parcel.claimed_by is not None:  # they vouch for what they state themselves
                    signed_by = None
                known = self._records(db, "dataset_id = ?", (dataset_id,))
                claim = not (trusted and signed_by) and all(r.claimed for _, r in known)
                for seq, record in known:
                    if record.manifest_digest != parcel.record.manifest_digest:
                        raise VerificationError(
                            [
                                f"dataset {dataset_id} is in the ledger {self._path} with another "
                                "manifest: one of the two is forged; nothing was imported"
                            ]
                        )
                    said = self._entry(db, seq).payload
                    if "imported" in said and signed_by not in (None, *before.signers(said)):
                        vouched.append(dataset_id)
                if not known:
                    parts = [*parcel.attachments()]
                    parts += [p for p in parcel.needed() if (p.kind, p.name, p.key_id) not in have]
                    origin = {
                        "ledger_id": parcel.claimed_by or sender.ledger_id,
                        "signed_by": signed_by,
                    }
                    self._register(db, parcel.record, parcel.lookups, parts, origin)
                    have |= {(p.kind, p.name, p.key_id) for p in parts}
                new = [w for w in parcel.withdrawals if sha256(canonical(w, "entry")) not in there]
                for one in new:
                    self._append(db, WITHDRAWAL, one)
                taken = Taken(
                    taken.new + (not known),
                    taken.known + len(known),
                    taken.claims + claim,
                    taken.withdrawals + len(new),
                )
            trust = trusted and not before.trusts(sender.signed_by)
            keys_ = sender.keys.keys() - {*epochs(db), *before.keys}
            if taken.new or taken.withdrawals or vouched or trust or keys_:
                self._append(db, "import", {**vars(sender), **vars(taken), "vouched": vouched})
            return taken

    def _register(
        self,
        db: sqlite3.Connection,
        record: Record,
        lookups: Mapping[str, Sequence[str]],
        attachments: Sequence[Attachment],
        imported: Mapping[str, Any] | None = None,
    ) -> LogEntry:
        body = record_body(record)
        pairs = sorted({(key, digest) for key, digests in lookups.items() for digest in digests})
        if not all(_DIGEST.fullmatch(digest) for _, digest in pairs):
            raise LedgerError(
                "a lookup is not a digest in hex: a ledger keeps digests, never values"
            )
        if sum(len(digest) for _, digest in pairs) > MAX_BYTES:
            raise LedgerError(f"the lookups of one dataset are larger than {MAX_BYTES:,} bytes")
        if any(len(a.body) > MAX_ATTACHED for a in attachments):
            raise LedgerError(f"an attachment of a record is larger than {MAX_ATTACHED:,} bytes")
        parts = [(a.kind, a.name, a.key_id, sha256(a.body)) for a in attachments]
        payload = {
            "dataset_id": record.dataset_id,
            "statement": record.statement,
            "origin": record.origin,
            "ancestry": record.ancestry,
            "depth": record.depth,
            "logical_digest": record.logical_digest,
            "manifest_digest": record.manifest_digest,
            "record_digest": sha256(body),
            "lookups": lookups_digests(pairs),
            **({"attachments": attachments_digest(parts)} if parts else {}),
            **({"imported": imported} if imported else {}),
        }
        query = f"SELECT {ENTRY} FROM log JOIN records USING (seq) WHERE dataset_id = ?"
        for row in db.execute(query, (record.dataset_id,)):
            if (known := entry_from(*row)).payload == payload:
                return known
            raise LedgerError(
                f"dataset {record.dataset_id} is in the ledger {self._path} already, with "
                "another record or other lookups: draw a new dataset id"
            )
        entry = self._append(db, "register", payload)
        db.execute(
            "INSERT INTO records (seq, body, dataset_id, logical_digest) VALUES (?, ?, ?, ?)",
            (entry.seq, body.decode(), record.dataset_id, record.logical_digest),
        )
        db.executemany(
            "INSERT INTO lookups (key_id, digest, seq) VALUES (?, ?, ?)",
            [(key, digest, entry.seq) for key, digest in pairs],
        )
        db.executemany(
            "INSERT INTO attachments (seq, kind, name, key_id, digest, body)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(entry.seq, *p, a.body) for p, a in zip(parts, attachments, strict=True)],
        )
        return entry

    def attached(self, *kinds: str) -> list[Attached]:
        parts = (
            "SELECT a.seq, r.dataset_id, a.kind, a.name, a.key_id, a.digest FROM attachments AS a"
            " JOIN records AS r USING (seq) ORDER BY a.seq, a.name"
        )
        found: list[Attached] = []
        there: dict[int, list[tuple[str, str, str, str]]] = {}
        with self._transaction() as db:
            if self._version(db) < 2:
                return []
            for seq, dataset_id, *part in db.execute(parts):
                there.setdefault(seq, []).append(tuple(part))
                if part[0] in kinds:
                    found.append(Attached(dataset_id, *part[:3]))
            # Each entry is asked what it attached: what is gone must not pass for never there.
            for row in db.execute(f"SELECT {ENTRY} FROM log WHERE {ATTACHING}"):
                said = self._believed(row, "register")
                if attachments_digest(there.get(row[0], ())) != said.get("attachments"):
                    raise LedgerError(
                        f"what was attached to dataset {said['dataset_id']} is gone from the "
                        f"ledger {self._path} or was changed: run `safegen ledger verify` and "
                        "restore a backup"
                    )
        return found

    def attachment(self, where: Attached) -> bytes:
        named = (where.kind, where.name, where.key_id)
        query = (
            "SELECT a.seq, a.body FROM attachments AS a JOIN records AS r USING (seq)"
            " WHERE r.dataset_id = ? AND a.kind = ? AND a.name = ? AND a.key_id = ?"
        )
        parts = "SELECT kind, name, key_id, digest FROM attachments WHERE seq = ?"
        with self._transaction() as db:
            row = db.execute(query, (where.dataset_id, *named)).fetchone()
            if row is None:
                raise LedgerError(
                    f"the {where.kind} of dataset {where.dataset_id} are gone from the ledger "
                    f"{self._path}: run `safegen ledger verify` and restore a backup"
                )
            seq, body = row
            entry = db.execute(f"SELECT {ENTRY} FROM log WHERE seq = ?", (seq,)).fetchone()
            said = self._believed(entry or (seq, "", "", "", "", ""), "register")
            every = [tuple(p) for p in db.execute(parts, (seq,))]
        mine = (*named, sha256(body))
        if mine not in every or said.get("attachments") != attachments_digest(every):
            raise self._changed(seq)
        return bytes(body)

    def record(self, kind: str, payload: Mapping[str, Any]) -> LogEntry:
        if kind in OWN_KINDS or not _KIND.fullmatch(kind):
            raise LedgerError(
                "the kind of a log entry is a lower-case word of at most 64 letters, digits, "
                f"dots, dashes and underscores, and none of {', '.join(OWN_KINDS)}"
            )
        with self._transaction(write=True) as db:
            return self._append(db, kind, payload)

    def record_model(self, digest: str, payload: Mapping[str, Any]) -> LogEntry:
        with self._transaction(write=True) as db:
            entry = self._append(db, "model", {"digest": digest, "model": dict(payload)})
            db.execute("INSERT INTO models (seq, digest) VALUES (?, ?)", (entry.seq, digest))
            return entry

    def knows_model(self, digest: str) -> dict[str, Any] | None:
        query = (
            f"SELECT {ENTRY} FROM models LEFT JOIN log USING (seq)"
            " WHERE digest = ? ORDER BY seq DESC LIMIT 1"
        )
        with self._transaction() as db:
            row = db.execute(query, (digest,)).fetchone()
        if row is None:
            return None
        payload = self._believed(row, "model")
        if payload["digest"] != digest:
            raise self._changed(row[0])
        model: dict[str, Any] = payload["model"]
        return model

    def get(self, dataset_id: str) -> Record | None:
        with self._transaction() as db:
            found = self._records(db, "dataset_id = ?", (dataset_id,))
        return found[0][1] if found else None

    def kept(self, dataset_id: str) -> Kept | None:
        with self._transaction() as db:
            for seq, record in self._records(db, "dataset_id = ?", (dataset_id,)):
                return Kept(record, self._entry(db, seq), digested(db, seq), *attached_to(db, seq))
        return None

    def find(
        self, *, logical_digest: str | None = None, lookups: Mapping[str, str] | None = None
    ) -> list[Record]:
        found: dict[int, Record] = {}
        with self._transaction() as db:
            if logical_digest is not None:
                found.update(self._records(db, "logical_digest = ?", (logical_digest,)))
            if lookups:
                _refuse_strange_keys(lookups, [*epochs(db), *self._imports(db).keys])
            for pair in (lookups or {}).items():
                match = "seq IN (SELECT seq FROM lookups WHERE key_id = ? AND digest = ?)"
                found.update(self._records(db, match, pair))
        return [found[seq] for seq in sorted(found)]

    def digest_alone(self, scheme: str, key_ids: Collection[str]) -> bool:
        with self._transaction() as db:
            return digest_alone(db, scheme, key_ids)

    def records(self) -> Iterator[Record]:
        last = 0
        while True:
            with self._transaction() as db:
                page = self._records(db, "seq > ?", (last,), PAGE)
            for _, record in page:
                yield record
            if not page:
                return
            last = page[-1][0]

    def log(self, *, after: int = 0, kind: str | None = None) -> Iterator[LogEntry]:
        wanted = "" if kind is None else " AND kind = ?"
        query = f"SELECT {ENTRY} FROM log WHERE seq > ?{wanted} ORDER BY seq LIMIT {PAGE}"
        while True:
            with self._transaction() as db:
                page = db.execute(query, (after, *([] if kind is None else [kind]))).fetchall()
            for row in page:
                after = row[0]
                try:
                    yield entry_from(*row)
                except ValueError:
                    raise self._changed(after) from None
            if not page:
                return

    def verify(self) -> list[str]:
        with self._transaction() as db:
            return list(problems(db, self.ledger_id))

    def state(self) -> dict[str, Any]:
        with self._transaction() as db:
            (datasets,) = db.execute("SELECT count(*) FROM records").fetchone()
            (entries,) = db.execute("SELECT count(*) FROM log").fetchone()
            _, head = self._head(db)
            key_ids = epochs(db)
            others = self._imports(db).keys
        held = keys.read_keys(self.ledger_id)
        lent = _held(others)
        return {
            "url": self.url,
            "ledger_id": self.ledger_id,
            "datasets": datasets,
            "log_entries": entries,
            "head": head,
            "key_epochs": key_ids,
            "key_epochs_missing": [key for key in key_ids if key not in held],
            "imported_keys_missing": {k: v for k, v in others.items() if k not in lent},
        }

    def key_epochs(self) -> list[tuple[str, bytes]]:
        with self._transaction() as db:
            key_ids = epochs(db)
        held = keys.read_keys(self.ledger_id)
        return [(key, held[key]) for key in key_ids if key in held]

    def lookup_keys(self) -> list[tuple[str, bytes]]:
        with self._transaction() as db:
            others = self._imports(db).keys
        return [*self.key_epochs(), *_held(others).items()]

    def new_epoch(self) -> str:
        with self._transaction(write=True) as db:
            key = keys.add_key(self.ledger_id)
            entry = self._append(db, "epoch", {"key_id": key})
            db.execute("INSERT INTO epochs (seq, key_id) VALUES (?, ?)", (entry.seq, key))
            return key

    def close(self) -> None:
        self._closed = True

    # -- opening ---------------------------------------------------------------------------

    def _open(self, create: bool) -> None:
        path = self._path
        if os.path.isdir(path):
            raise LedgerError(f"the ledger {path} is a folder: name a file in it")
        if os.path.exists(path) and not os.path.isfile(path):
            raise LedgerError(f"the ledger {path} is not a regular file: name another path")
        if not os.path.exists(path) and create:
            make_private(path.parent)
            create_empty(path)
        latest = MIGRATIONS[-1][0]
        with connection(self._path) as db:
            version = self._version(db)
        if version == 0 and not create:
            raise LedgerError(f"the file {path} is empty: it holds no ledger; check the path")
        # What cannot be written can still be read, as the version that it is.
        if version < latest and (version == 0 or os.access(path, os.W_OK)):
            with connection(self._path, write=True) as db:
                self._migrate(db)
        with connection(self._path) as db:
            self.ledger_id = self._identity(db)

    def _migrate(self, db: sqlite3.Connection) -> None:
        """Bring the schema up to date under the write lock; found the ledger where it is new."""
        version = self._version(db)  # again: another process may have been faster
        for number, statements in MIGRATIONS:
            if number > version:
                for statement in statements:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")
        if version == 0:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            ledger_id = secrets.token_hex(16)
            key = keys.add_key(ledger_id)
            db.execute("INSERT INTO ledger (one, ledger_id) VALUES (1, ?)", (ledger_id,))
            db.execute("INSERT INTO epochs (seq, key_id) VALUES (0, ?)", (key,))

    def _version(self, db: sqlite3.Connection) -> int:
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

    def _identity(self, db: sqlite3.Connection) -> str:
        row = db.execute("SELECT ledger_id FROM ledger").fetchone()
        # The id becomes a file name, so nothing but hex digits is taken from a file.
        if row is None or not re.fullmatch(r"[0-9a-f]{32}", str(row[0])):
            raise LedgerError(f"the ledger {self._path} has lost its id: restore a backup")
        return str(row[0])

    # -- transactions ----------------------------------------------------------------------

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction on this very ledger: committed at the end, rolled back on any error."""
        if self._closed:
            raise LedgerError(f"the ledger {self._path} was closed: open it again")
        with connection(self._path, write=write) as db:
            if self._version(db) == 0 or self._identity(db) != self.ledger_id:
                raise LedgerError(
                    f"the file {self._path} was replaced by another ledger: open it again"
                )
            yield db

    # -- rows of tables --------------------------------------------------------------------

    def _head(self, db: sqlite3.Connection) -> tuple[int, str]:
        row = db.execute("SELECT seq, hash FROM log ORDER BY seq DESC LIMIT 1").fetchone()
        return (row[0], row[1]) if row else (0, genesis(self.ledger_id, (epochs(db) or [""])[-1]))

    def _entry(self, db: sqlite3.Connection, seq: int) -> LogEntry:
        return entry_from(*db.execute(f"SELECT {ENTRY} FROM log WHERE seq = ?", (seq,)).fetchone())

    def _append(self, db: sqlite3.Connection, kind: str, payload: Mapping[str, Any]) -> LogEntry:
        seq, prev = self._head(db)
        entry, text = next_entry(seq + 1, prev, kind, payload)
        db.execute(
            f"INSERT INTO log ({ENTRY}) VALUES (?, ?, ?, ?, ?, ?)",
            (entry.seq, entry.time, kind, text, prev, entry.hash),
        )
        return entry

    def _records(
        self, db: sqlite3.Connection, match: str, values: Sequence[object], limit: int = -1
    ) -> list[tuple[int, Record]]:
        """Records with their log numbers, each held against its log entry before it is believed."""
        query = (
            f"SELECT body, {ENTRY} FROM records LEFT JOIN log USING (seq)"
            f" WHERE {match} ORDER BY seq LIMIT ?"
        )
        found = []
        imports: Imports | None = None
        for body, *row in db.execute(query, (*values, limit)):
            said = self._believed(row, "register")
            if said["record_digest"] != sha256(str(body).encode()):
                raise self._changed(row[0])
            record = record_from(body)
            if "imported" in said:
                imports = imports or self._imports(db)
                origin = said["imported"]["ledger_id"]
                record = replace(record, imported_from=origin, claimed=imports.claims(said))
            found.append((row[0], record))
        return found

    def _imports(self, db: sqlite3.Connection) -> Imports:
        rows = db.execute(f"SELECT {ENTRY} FROM log WHERE kind = 'import' ORDER BY seq").fetchall()
        return Imports(db, [self._believed(row, "import") for row in rows])

    def _believed(self, row: Sequence[Any], kind: str) -> dict[str, Any]:
        """The payload of a log row that still has its hash. Raises: LedgerError otherwise."""
        try:
            entry = entry_from(*row)
        except ValueError:
            raise self._changed(row[0]) from None
        if entry.kind != kind or not entry.sound():
            raise self._changed(entry.seq)
        return entry.payload

    def _changed(self, seq: int) -> LedgerError:
        return LedgerError(
            f"entry {seq} of the ledger {self._path} is not what was written: "
            "run `safegen ledger verify` and restore a backup"
        )


def _held(others: Mapping[str, str]) -> dict[str, bytes]:
    """The keys of other ledgers that this user holds: their key files lie beside one's own."""
    held: dict[str, bytes] = {}
    for ledger_id in set(others.values()):
        held.update(keys.read_keys(ledger_id))
    return {key: held[key] for key in others if key in held}


def _refuse_strange_keys(key_ids: Collection[str], known: Collection[str]) -> None:
    """A digest under a key that is not an epoch would never be found: refuse it at once."""
    if strange := set(key_ids) - set(known):
        raise LedgerError(
            f"{len(strange)} of the lookup key ids are not key epochs of this ledger: "
            "use the key ids that its key_epochs() gives"
        )
