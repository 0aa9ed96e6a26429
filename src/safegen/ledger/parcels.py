"""What goes from one ledger to another: all that is kept of a dataset, and who sends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safegen.ledger.base import Attached, Attachment, LogEntry, Record

__all__ = ["Kept", "Parcel", "Sender", "Taken"]


@dataclass(frozen=True)
class Kept:
    """All that a ledger keeps of a dataset, and the log entry that vouches for it.

    lookups: by key id. attachments: its own. needed: those of other datasets that its own
    continue, such as the form that its fingerprints are of. Each with the SHA-256 of its bytes.
    """

    record: Record
    entry: LogEntry
    lookups: dict[str, list[str]]
    attachments: list[tuple[Attached, str]]
    needed: list[tuple[Attached, str]]


@dataclass(frozen=True)
class Sender:
    """Another ledger that a file comes from: its id, its newest entry's hash, the file's digest,
    whose signature the file has (a key's id), whether that key is trusted from now on, and whose
    the keys are (key id → ledger id) under which its lookups and attachments were made."""

    ledger_id: str
    head: str
    file: str
    signed_by: str | None
    trusted: bool
    keys: Mapping[str, str]


@dataclass(frozen=True)
class Parcel:
    """One dataset of another ledger, of which everything is under the sender's keys. attachments,
    needed: read when they are wanted; of the needed the ledger takes what it has not got.
    claimed_by: the ledger whose claim it was there."""

    record: Record
    lookups: Mapping[str, Sequence[str]]
    attachments: Callable[[], Sequence[Attachment]]
    needed: Callable[[], Sequence[Attachment]]
    claimed_by: str | None
    withdrawals: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Taken:
    """What an import came to, in numbers: datasets that are new here, datasets that were known, how
    many of both are claims, and withdrawals that are new here."""

    new: int
    known: int
    claims: int
    withdrawals: int
