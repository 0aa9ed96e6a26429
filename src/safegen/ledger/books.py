"""The ledger, as far as it is the same in every database.

Every call is one transaction, and nothing is shared between threads or carried over a fork; an
abandoned iterator holds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from safegen.errors import LedgerError, VerificationError
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
    lookups_digests,
    record_body,
    sha256,
)
from safegen.ledger.opened import Opened
from safegen.ledger.parcels import Kept, Parcel, Sender, Taken
from safegen.ledger.schema import ATTACHING
from safegen.ledger.stores import Store, new_ledger
from safegen.ledger.taking import attached_to, digest_alone, digested, names, withdrawn
from safegen.ledger.verification import ENTRY, epochs, problems

__all__ = ["StoredLedger"]


PAGE = 64  # entries read at a time by the iterators

_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
# An optional scheme and hex digits: a value taken from data does not pass for a digest.
_DIGEST = re.compile(r"(?:[A-Za-z0-9._-]{1,40}:)?[0-9a-f]{16,128}")


class StoredLedger:
    """A `Ledger` in a database. Can be pickled, shared by threads, and forked."""

    url: str
    ledger_id: str

    def __init__(self, store: Store, *, create: bool = True):
        self.url = store.url
        self._name = store.name
        self._store = store
        self._closed = False
        self.ledger_id = store.open(new_ledger if create else None)
        keys.read_keys(self.ledger_id)  # a key file that is open to others is said at once

    def register(
        self,
        record: Record,
        lookups: Mapping[str, Sequence[str]],
        attachments: Sequence[Attachment] = (),
    ) -> LogEntry:
        with self._transaction(write=True) as at:
            _refuse_strange_keys({*lookups, *(a.key_id for a in attachments)}, epochs(at.db))
            return self._register(at, record, lookups, attachments)

    def take_in(self, sender: Sender, parcels: Iterable[Parcel]) -> Taken:
        with self._transaction(write=True) as at:
            before, there, have = at.imports(), withdrawn(at.db), names(at.db)
            trusted = sender.trusted or before.trusts(sender.signed_by)
            taken, vouched = Taken(0, 0, 0, 0), list[str]()
            for parcel in parcels:
                dataset_id, signed_by = parcel.record.dataset_id, sender.signed_by
                if parcel.claimed_by is not None:  # they vouch for what they state themselves
                    signed_by = None
                known = at.records("dataset_id = ?", (dataset_id,))
                claim = not (trusted and signed_by) and all(r.claimed for _, r in known)
                for seq, record in known:
                    if record.manifest_digest != parcel.record.manifest_digest:
                        raise VerificationError(
                            [
                                f"dataset {dataset_id} is in the ledger {self._name} with another "
                                "manifest: one of the two is forged; nothing was imported"
                            ]
                        )
                    said = at.entry(seq).payload
                    if "imported" in said and signed_by not in (None, *before.signers(said)):
                        vouched.append(dataset_id)
                if not known:
                    parts = [*parcel.attachments()]
                    parts += [p for p in parcel.needed() if (p.kind, p.name, p.key_id) not in have]
                    origin = {
                        "ledger_id": parcel.claimed_by or sender.ledger_id,
                        "signed_by": signed_by,
                    }
                    self._register(at, parcel.record, parcel.lookups, parts, origin)
                    have |= {(p.kind, p.name, p.key_id) for p in parts}
                new = [w for w in parcel.withdrawals if sha256(canonical(w, "entry")) not in there]
                for one in new:
                    at.append(WITHDRAWAL, one)
                taken = Taken(
                    taken.new + (not known),
                    taken.known + len(known),
                    taken.claims + claim,
                    taken.withdrawals + len(new),
                )
            trust = trusted and not before.trusts(sender.signed_by)
            keys_ = sender.keys.keys() - {*epochs(at.db), *before.keys}
            if taken.new or taken.withdrawals or vouched or trust or keys_:
                at.append("import", {**vars(sender), **vars(taken), "vouched": vouched})
            return taken

    def _register(
        self,
        at: Opened,
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
        for row in at.db.execute(query, (record.dataset_id,)):
            if (known := entry_from(*row)).payload == payload:
                return known
            raise LedgerError(
                f"dataset {record.dataset_id} is in the ledger {self._name} already, with "
                "another record or other lookups: draw a new dataset id"
            )
        entry = at.append("register", payload)
        seq = entry.seq
        at.db.insert(
            "records",
            "seq, body, dataset_id, logical_digest",
            [(seq, body.decode(), record.dataset_id, record.logical_digest)],
        )
        at.db.insert(
            "lookups", "seq, key_id, digest", [(seq, key, digest) for key, digest in pairs]
        )
        at.db.insert(
            "attachments",
            "seq, kind, name, key_id, digest, body",
            [(seq, *p, a.body) for p, a in zip(parts, attachments, strict=True)],
        )
        return entry

    def attached(self, *kinds: str) -> list[Attached]:
        parts = (
            "SELECT a.seq, r.dataset_id, a.kind, a.name, a.key_id, a.digest FROM attachments AS a"
            " JOIN records AS r USING (seq) ORDER BY a.seq, a.name"
        )
        found: list[Attached] = []
        there: dict[int, list[tuple[str, str, str, str]]] = {}
        with self._transaction() as at:
            if at.version < 2:
                return []
            for seq, dataset_id, *part in at.db.execute(parts):
                there.setdefault(seq, []).append(tuple(part))
                if part[0] in kinds:
                    found.append(Attached(dataset_id, *part[:3]))
            # Each entry is asked what it attached: what is gone must not pass for never there.
            for row in at.db.execute(f"SELECT {ENTRY} FROM log WHERE {ATTACHING}"):
                said = at.believed(row, "register")
                if attachments_digest(there.get(row[0], ())) != said.get("attachments"):
                    raise LedgerError(
                        f"what was attached to dataset {said['dataset_id']} is gone from the "
                        f"ledger {self._name} or was changed: run `safegen ledger verify` and "
                        "restore a backup"
                    )
        return found

    def attachment(self, where: Attached) -> bytes:
        named = (where.kind, where.name, where.key_id)
        query = (
            "SELECT a.kind, a.name, a.key_id, a.digest,"
            " CASE WHEN a.kind = ? AND a.name = ? AND a.key_id = ? THEN a.body END,"
            " seq, l.time, l.kind, l.payload, l.prev, l.hash"
            " FROM records AS r JOIN attachments AS a USING (seq) LEFT JOIN log AS l USING (seq)"
            " WHERE r.dataset_id = ?"
        )
        with self._transaction() as at:
            rows = at.db.execute(query, (*named, where.dataset_id)).fetchall()
        found = next((r for r in rows if r[:3] == named), None)
        if found is None:
            raise LedgerError(
                f"the {where.kind} of dataset {where.dataset_id} are gone from the ledger "
                f"{self._name}: run `safegen ledger verify` and restore a backup"
            )
        body, entry = found[4], found[5:]
        said = at.believed(entry, "register")
        every = [r[:4] for r in rows]
        if (*named, sha256(body)) not in every or said.get("attachments") != attachments_digest(
            every
        ):
            raise at.changed(entry[0])
        return bytes(body)

    def record(self, kind: str, payload: Mapping[str, Any]) -> LogEntry:
        if kind in OWN_KINDS or not _KIND.fullmatch(kind):
            raise LedgerError(
                "the kind of a log entry is a lower-case word of at most 64 letters, digits, "
                f"dots, dashes and underscores, and none of {', '.join(OWN_KINDS)}"
            )
        with self._transaction(write=True) as at:
            return at.append(kind, payload)

    def record_model(self, digest: str, payload: Mapping[str, Any]) -> LogEntry:
        with self._transaction(write=True) as at:
            entry = at.append("model", {"digest": digest, "model": dict(payload)})
            at.db.execute("INSERT INTO models (seq, digest) VALUES (?, ?)", (entry.seq, digest))
            return entry

    def knows_model(self, digest: str) -> dict[str, Any] | None:
        query = (
            f"SELECT {ENTRY} FROM models LEFT JOIN log USING (seq)"
            " WHERE digest = ? ORDER BY seq DESC LIMIT 1"
        )
        with self._transaction() as at:
            row = at.db.execute(query, (digest,)).fetchone()
        if row is None:
            return None
        payload = at.believed(row, "model")
        if payload["digest"] != digest:
            raise at.changed(row[0])
        model: dict[str, Any] = payload["model"]
        return model

    def get(self, dataset_id: str) -> Record | None:
        with self._transaction() as at:
            found = at.records("dataset_id = ?", (dataset_id,))
        return found[0][1] if found else None

    def kept(self, dataset_id: str) -> Kept | None:
        with self._transaction() as at:
            for seq, record in at.records("dataset_id = ?", (dataset_id,)):
                return Kept(record, at.entry(seq), digested(at.db, seq), *attached_to(at.db, seq))
        return None

    def find(
        self, *, logical_digest: str | None = None, lookups: Mapping[str, str] | None = None
    ) -> list[Record]:
        found: dict[int, Record] = {}
        with self._transaction() as at:
            if logical_digest is not None:
                found.update(at.records("logical_digest = ?", (logical_digest,)))
            if lookups:
                _refuse_strange_keys(lookups, [*epochs(at.db), *at.imports().keys])
            for pair in (lookups or {}).items():
                match = "seq IN (SELECT seq FROM lookups WHERE key_id = ? AND digest = ?)"
                found.update(at.records(match, pair))
        return [found[seq] for seq in sorted(found)]

    def digest_alone(self, scheme: str, key_ids: Collection[str]) -> bool:
        with self._transaction() as at:
            return digest_alone(at.db, scheme, key_ids)

    def records(self) -> Iterator[Record]:
        last = 0
        while True:
            with self._transaction() as at:
                page = at.records("seq > ?", (last,), PAGE)
            for _, record in page:
                yield record
            if not page:
                return
            last = page[-1][0]

    def log(self, *, after: int = 0, kind: str | None = None) -> Iterator[LogEntry]:
        wanted = "" if kind is None else " AND kind = ?"
        query = f"SELECT {ENTRY} FROM log WHERE seq > ?{wanted} ORDER BY seq LIMIT {PAGE}"
        while True:
            with self._transaction() as at:
                page = at.db.execute(query, (after, *([] if kind is None else [kind]))).fetchall()
            for row in page:
                after = row[0]
                try:
                    yield entry_from(*row)
                except ValueError:
                    raise at.changed(after) from None
            if not page:
                return

    def verify(self) -> list[str]:
        with self._transaction() as at:
            found = list(self._store.damage(at.db))
            return found + list(problems(at.db, self.ledger_id, at.version))

    def state(self) -> dict[str, Any]:
        with self._transaction() as at:
            (datasets,) = at.db.execute("SELECT count(*) FROM records").fetchone()
            (entries,) = at.db.execute("SELECT count(*) FROM log").fetchone()
            _, head = at.head()
            key_ids = epochs(at.db)
            others = at.imports().keys
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
        with self._transaction() as at:
            key_ids = epochs(at.db)
        held = keys.read_keys(self.ledger_id)
        return [(key, held[key]) for key in key_ids if key in held]

    def lookup_keys(self) -> list[tuple[str, bytes]]:
        with self._transaction() as at:
            others = at.imports().keys
        return [*self.key_epochs(), *_held(others).items()]

    def new_epoch(self) -> str:
        with self._transaction(write=True) as at:
            key = keys.add_key(self.ledger_id)
            entry = at.append("epoch", {"key_id": key})
            at.db.execute("INSERT INTO epochs (seq, key_id) VALUES (?, ?)", (entry.seq, key))
            return key

    def close(self) -> None:
        self._closed = True
        self._store.close()

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[Opened]:
        """A transaction on this very ledger: committed at the end, rolled back on any error."""
        if self._closed:
            raise LedgerError(f"the ledger {self._name} was closed: open it again")
        with self._store.transaction(write=write) as db:
            version, ledger_id = self._store.identity(db)
            if ledger_id != self.ledger_id:
                raise LedgerError(
                    f"the ledger {self._name} was replaced by another one: open it again"
                )
            yield Opened(db, ledger_id, self._name, version)


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
