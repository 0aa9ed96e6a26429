"""What a ledger offers and what its log is made of, whichever database is underneath.

A ledger stores manifests, decisions and keyed digests, never rows. Its log is a hash chain over
RFC 8785 bytes: an entry's hash is the SHA-256 of {seq, time, kind, payload, prev}, `prev` is the
hash of the entry before, and the first `prev` is the `genesis` of the ledger's identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import rfc8785

from safegen.errors import LedgerError, hidden

if TYPE_CHECKING:
    from safegen.ledger.parcels import Kept, Parcel, Sender, Taken
    from safegen.manifest import Manifest

__all__ = [
    "MAX_BYTES",
    "OWN_KINDS",
    "WITHDRAWAL",
    "Attachment",
    "Ledger",
    "LogEntry",
    "Record",
    "Attached",
    "attachments_digest",
    "canonical",
    "entry_from",
    "genesis",
    "lookups_digests",
    "next_entry",
    "parsed",
    "quick",
    "record_body",
    "record_from",
    "sha256",
]

MAX_ATTACHED = 512 * 1024 * 1024  # bytes of one attachment
MAX_BYTES = 4 * 1024 * 1024  # of one payload or one record, in canonical bytes
OWN_KINDS = ("register", "model", "epoch", "import")  # entries that only the ledger itself writes
WITHDRAWAL = "withdrawal"  # the kind of entries that say that a dataset was withdrawn


@dataclass(frozen=True)
class Record:
    """One dataset or attested source: what was stated about it, and its whole manifest.

    `imported_from` is the id of another ledger that it came from; `claimed`, that it is no more
    than that ledger's claim: it came under no key that is trusted here. Both are what the log says,
    and no part of what is stored.
    """

    dataset_id: str
    statement: str  # attestation | release | derivation
    origin: str  # real | synthetic | mixed | unknown
    ancestry: str  # attested | unverified
    depth: int
    effective_depth: float
    depth_is_lower_bound: bool
    rows: int
    logical_digest: str
    manifest_digest: str
    created: str
    expires: str | None
    manifest: dict[str, Any]
    public_key: str | None  # PEM of the signing key when it was signed
    imported_from: str | None = None
    claimed: bool = False

    @property
    def made_from(self) -> list[str]:
        """The ids of the datasets that its manifest names as its sources."""
        named = [s.get("dataset_id") for s in self.manifest.get("sources") or ()]
        return [n for n in named if isinstance(n, str)]

    @classmethod
    def of(cls, manifest: Manifest, public_key: str | None) -> Record:
        """The record of a manifest, and of the key that signed it."""
        return cls(
            dataset_id=manifest.dataset_id,
            statement=manifest.statement,
            origin=manifest.origin,
            ancestry=manifest.ancestry,
            depth=manifest.depth,
            effective_depth=manifest.effective_depth,
            depth_is_lower_bound=manifest.depth_is_lower_bound,
            rows=manifest.rows,
            logical_digest=manifest.logical_digest,
            manifest_digest=manifest.digest,
            created=manifest.created,
            expires=manifest.expires,
            manifest=manifest.document(),
            public_key=public_key,
        )


@dataclass(frozen=True)
class LogEntry:
    """One line of the log; `hash` covers the other five fields."""

    seq: int
    time: str
    kind: str
    payload: dict[str, Any]
    prev: str
    hash: str

    def sound(self) -> bool:
        """Whether the entry still is what was hashed when it was written."""
        body = {k: v for k, v in vars(self).items() if k != "hash"}
        try:
            known = sha256(quick(body)) == self.hash
            return known or sha256(canonical(body, "log entry")) == self.hash
        except LedgerError:
            return False


@dataclass(frozen=True)
class Attachment:
    """Bytes that belong to a record, made under one of the ledger's keys, such as fingerprints."""

    kind: str
    name: str
    key_id: str
    body: bytes


@dataclass(frozen=True)
class Attached:
    """Where an attachment is: whose it is, and what it is called."""

    dataset_id: str
    kind: str
    name: str
    key_id: str


class Ledger(Protocol):
    """Where attestations, releases and decisions are kept. Safe in threads and after a fork.

    Every method raises LedgerError when the ledger cannot be reached, read or written.
    """

    url: str
    ledger_id: str

    def register(
        self,
        record: Record,
        lookups: Mapping[str, Sequence[str]],
        attachments: Sequence[Attachment] = (),
    ) -> LogEntry:
        """Store a record, its lookup digests (key id → digests), what is attached to it, and one
        log entry, or nothing.

        The same record with the same lookups again gives the first entry back.
        Raises: LedgerError when the dataset id is taken, a key id is not one of this ledger's
        epochs, a digest is not a digest, the record is larger than 4 MiB, or an attachment larger
        than 512 MiB.
        """
        ...

    def attached(self, *kinds: str) -> list[Attached]:
        """Every attachment of these kinds, in order of registration, without its bytes."""
        ...

    def attachment(self, where: Attached) -> bytes:
        """What was attached. Raises: LedgerError when it is gone or was changed since."""
        ...

    def kept(self, dataset_id: str) -> Kept | None:
        """All that is kept of a dataset, or None. Raises: LedgerError when it was changed since."""
        ...

    def take_in(self, sender: Sender, parcels: Iterable[Parcel]) -> Taken:
        """Store what another ledger sent, with one entry for the import: all of it, or nothing.

        Their records are claims (`Record.claimed`) unless they came under a key that is
        trusted here. What is known already is left as it is; where all is, nothing is written.
        Raises: LedgerError as `register` does; VerificationError where a dataset is known here by
        another manifest; whatever the parcels raise.
        """
        ...

    def record(self, kind: str, payload: Mapping[str, Any]) -> LogEntry:
        """Append one entry, such as a decision, allowed or not. Raises: LedgerError over 4 MiB."""
        ...

    def record_model(self, digest: str, payload: Mapping[str, Any]) -> LogEntry:
        """Remember a saved model by its digest, with what should be known about it when loaded."""
        ...

    def knows_model(self, digest: str) -> dict[str, Any] | None:
        """The newest payload recorded for a saved model, or None for one never seen."""
        ...

    def get(self, dataset_id: str) -> Record | None:
        """The record of a dataset, or None. Raises: LedgerError when it was changed since."""
        ...

    def find(
        self, *, logical_digest: str | None = None, lookups: Mapping[str, str] | None = None
    ) -> list[Record]:
        """Records that match the logical digest or any lookup digest, in order of registration.

        Raises: LedgerError for a key id that is not an epoch of this ledger, and for a found
        record that was changed since it was registered.
        """
        ...

    def digest_alone(self, scheme: str, key_ids: Collection[str]) -> bool:
        """Whether the content of any record is known by nothing but its logical digest of a scheme
        (such as `safegen-rows-v1`): it has no lookup digest under any of these keys."""
        ...

    def records(self) -> Iterator[Record]:
        """Every record, in order of registration."""
        ...

    def log(self, *, after: int = 0, kind: str | None = None) -> Iterator[LogEntry]:
        """The log from entry `after` + 1 on, in order; of one kind of entries where it is named."""
        ...

    def verify(self) -> list[str]:
        """Every problem of the chain, and of what is stored against the log; [] when sound.

        Cutting the newest entries off, or a rewrite of everything, is not found.
        """
        ...

    def state(self) -> dict[str, Any]:
        """What a decision names: url, ledger_id, datasets, log_entries, head, key_epochs,
        key_epochs_missing (those whose key this process does not hold), and imported_keys_missing
        (the same of other ledgers' keys: key id → ledger id)."""
        ...

    def key_epochs(self) -> list[tuple[str, bytes]]:
        """The (key id, key) pairs that this process holds, newest first; [] without a key file."""
        ...

    def lookup_keys(self) -> list[tuple[str, bytes]]:
        """The keys to look up with: its own as `key_epochs` gives them, then those of ledgers
        from which was imported, under which nothing is made here."""
        ...

    def new_epoch(self) -> str:
        """Draw a further key, on purpose, and return its key id: older keys stay valid."""
        ...

    def close(self) -> None:
        """End the use of this object; every later call raises LedgerError."""
        ...


def canonical(value: object, what: str) -> bytes:
    """RFC 8785 bytes. Raises: LedgerError, without quoting values, when there are none."""
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, RecursionError) as error:
        raise LedgerError(
            f"the {what} cannot be put into the ledger: it must be plain JSON with text keys, "
            "finite numbers and no integer beyond 2^53 (write such a one as text)"
        ) from hidden(error)


def quick(value: object) -> bytes:
    """What `canonical` gives but for unusual numbers and names, in a sixth of the time. Bytes that
    have the hash of canonical ones are these."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError):
        return b""


def bounded(value: object, what: str) -> bytes:
    """RFC 8785 bytes of at most MAX_BYTES. Raises: LedgerError."""
    data = canonical(value, what)
    if len(data) > MAX_BYTES:
        raise LedgerError(
            f"the {what} has {len(data):,} bytes and a ledger takes {MAX_BYTES:,}: "
            "store the digest of the large part instead"
        )
    return data


def parsed(data: str | bytes) -> dict[str, Any]:
    """The object that canonical bytes stand for. Raises: ValueError."""

    # RFC 8785 writes the float 1e20 as digits: read it back as the float it was.
    def number(digits: str) -> int | float:
        return int(digits) if len(digits) < 16 or abs(int(digits)) < 2**53 else float(digits)

    try:
        value = json.loads(data, parse_int=number)
    except (TypeError, RecursionError):
        raise ValueError("not a JSON text") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def sha256(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def genesis(ledger_id: str, key_id: str) -> str:
    """What the first entry's `prev` is: it binds the chain to its ledger and first key epoch."""
    return sha256(canonical({"ledger_id": ledger_id, "key_id": key_id}, "ledger's identity"))


def next_entry(seq: int, prev: str, kind: str, payload: Mapping[str, Any]) -> tuple[LogEntry, str]:
    """The entry to append after `prev`, and its payload as text.

    Raises: LedgerError for a payload that cannot be kept.
    """
    text = bounded(dict(payload), "payload")
    kept = parsed(text)
    time = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    body = {"seq": seq, "time": time, "kind": kind, "payload": kept, "prev": prev}
    entry = LogEntry(seq, time, kind, kept, prev, sha256(canonical(body, "payload")))
    return entry, text.decode()


def entry_from(seq: int, time: str, kind: str, text: str, prev: str, hash: str) -> LogEntry:
    """The entry that was stored. Raises: ValueError for a payload that is not JSON any more."""
    return LogEntry(seq, time, kind, parsed(text), prev, hash)


def record_body(record: Record) -> bytes:
    """The bytes that a record is stored as, and whose SHA-256 its log entry names."""
    stated = {k: v for k, v in vars(record).items() if k not in ("imported_from", "claimed")}
    return bounded(stated, "record")


def record_from(body: str) -> Record:
    """The record that `record_body` stored."""
    fields = parsed(body)
    fields["effective_depth"] = float(fields["effective_depth"])  # JSON writes 1.0 as 1
    return Record(**fields)


def attachments_digest(parts: Iterable[tuple[str, str, str, str]]) -> str:
    """One digest over attachments, by their kind, name, key id and the SHA-256 of their bytes."""
    texts = [list(p) for p in sorted(set(parts))]
    return sha256(quick(texts) or canonical(texts, "attachments"))


def lookups_digests(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One digest per key id over its (key id, lookup digest) pairs, whatever their order."""
    by_key: dict[str, list[str]] = {}
    for key, digest in sorted(set(pairs)):
        by_key.setdefault(key, []).append(digest)
    return {key: sha256(canonical(digests, "lookups")) for key, digests in by_key.items()}
