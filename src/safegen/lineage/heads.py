"""The signed head of a ledger's log, with what was withdrawn: for machines without the ledger, and
to find out later that the log was cut.

An in-toto statement in a DSSE envelope, as manifests are signed. Its subject is the log's head; the
predicate names each dataset that was withdrawn and each that descends from one, for whoever reads
it cannot follow what was made from what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from safegen.errors import ManifestError, MissingExtra, TargetError, UsageError
from safegen.ledger import Ledger
from safegen.ledger.base import sha256
from safegen.lineage.withdrawals import descendants, withdrawals
from safegen.manifest.canonical import MAX_DOCUMENT_BYTES
from safegen.manifest.identity import now
from safegen.manifest.model import read_plain, write_whole
from safegen.manifest.sign import STATEMENT_TYPE, PublicKey, SigningKey, opened, signature_of
from safegen.places import Place, place_of, redacted

__all__ = [
    "Head",
    "Listed",
    "Withdrawn",
    "cut_off",
    "head_problems",
    "listed",
    "read_head",
    "signed_head",
    "write_head",
]

HEAD = "head"
"""The kind of log entries that say that a head was signed."""

PREDICATE_TYPE = "urn:safegen:ledger-head:v1"
SKEW = timedelta(minutes=5)
"""How far ahead the clock may be of whoever signed."""


class Withdrawn(BaseModel):
    """A dataset that is not to be used, because `behind` was withdrawn: it, or what it was made
    from."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    dataset_id: str
    behind: str
    time: str
    by: str
    reason: str


class Head(BaseModel):
    """What a ledger's log came to at a time: the number of its newest entry and its hash."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: Literal[1] = 1
    ledger_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    time: AwareDatetime
    log_entries: int = Field(ge=0)
    head: str = Field(pattern=r"^[0-9a-f]{64}$")
    withdrawn: tuple[Withdrawn, ...] = ()


def signed_head(ledger: Ledger, key: SigningKey) -> bytes:
    """The head of a ledger's log, signed, in canonical JSON.

    That it was signed is then an entry of the log, so that the next manifest, which names the log's
    head, binds this document too. Raises: LedgerError.
    """
    state = ledger.state()
    withdrawn: dict[str, dict[str, str]] = {}
    for one in withdrawals(ledger).values():
        told = {"behind": one.dataset_id, "time": one.time, "by": one.by, "reason": one.reason}
        after = [r.dataset_id for r in descendants(one.dataset_id, ledger)]
        for dataset_id in (one.dataset_id, *after):
            withdrawn.setdefault(dataset_id, {"dataset_id": dataset_id, **told})
    data = signature_of(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": ledger.ledger_id, "digest": {"sha256": state["head"]}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "version": 1,
                "ledger_id": ledger.ledger_id,
                "time": now(),
                "log_entries": state["log_entries"],
                "head": state["head"],
                "withdrawn": [withdrawn[k] for k in sorted(withdrawn)],
            },
        },
        key,
    )
    ledger.record(HEAD, {"digest": sha256(data), "signed_by": key.public.id})
    return data


def read_head(path: Place, keys: Sequence[PublicKey]) -> Head:
    """A head that one of `keys` signed.

    Raises: ManifestError where none did, or for what is no such document; OSError.
    """
    data = read_plain(path, MAX_DOCUMENT_BYTES + 1)
    try:
        return Head.model_validate(opened(data, keys, PREDICATE_TYPE))
    except ValidationError:  # its text quotes the input
        raise ManifestError(["it is not a ledger's head as this version writes them"]) from None


def write_head(path: str | Path, ledger: Ledger, key: SigningKey) -> Head:
    """Write a ledger's signed head, whole or not at all. Raises: LedgerError, TargetError."""
    place, data = place_of(path), signed_head(ledger, key)
    try:
        write_whole(place, data)
    except OSError as error:
        raise TargetError(f"{place}: cannot be written ({error.strerror})") from None
    return read_head(place, [key.public])


@dataclass(frozen=True)
class Listed:
    """What the list at a place says that was withdrawn, by dataset. problem: why it cannot be
    relied on to be all; what it names was withdrawn all the same."""

    place: str
    withdrawn: Mapping[str, Withdrawn] = field(default_factory=dict)
    time: str | None = None
    problem: str | None = None


def listed(place: str, keys: Sequence[PublicKey], most: timedelta) -> Listed:
    """The withdrawals of a head that one of `keys` signed; it may be `most` old. Never raises."""
    if not keys:
        return Listed(place, problem="the policy names no trusted_keys for its signature")
    try:
        head = read_head(place_of(place), keys)
    except ManifestError as error:
        return Listed(place, problem="; ".join(str(p) for p in error.problems))
    except (UsageError, MissingExtra) as error:
        return Listed(redacted(place), problem=str(error))
    except (OSError, ValueError) as error:
        return Listed(place, problem=f"it cannot be read ({type(error).__name__})")
    age, problem = datetime.now(UTC) - head.time, None
    if age < -SKEW:
        problem = "it is dated in the future"
    elif age > most:
        hours = [x.total_seconds() / 3600 for x in (age, most)]
        problem = f"it is {hours[0]:,.1f} hours old, and may be {hours[1]:g}"
    told = {w.dataset_id: w for w in head.withdrawn}
    return Listed(place, told, head.time.isoformat(timespec="seconds"), problem)


def cut_off(ledger: Ledger, ledger_id: str, entries: int, head: str) -> str | None:
    """Why a ledger's log does not go on from a head that it once had; None where it does, and for
    the head of another ledger. Raises: LedgerError."""
    if ledger_id != ledger.ledger_id or entries < 1:
        return None
    there = next(iter(ledger.log(after=entries - 1)), None)
    if there is None:
        return (
            f"the ledger {ledger.url} had {entries:,} entries once and has fewer: its newest were "
            "cut off, or it is an older copy. Restore the newest one"
        )
    if there.hash != head:
        return (
            f"entry {entries:,} of the ledger {ledger.url} is not the one that it had once: its "
            "log was rewritten, or cut and continued. Restore a backup"
        )
    return None


def head_problems(ledger: Ledger, path: str | Path, keys: Sequence[PublicKey]) -> list[str]:
    """Whether a ledger's log goes on from a signed head: every problem. Raises: LedgerError."""
    if not keys:
        return [f"{path}: name the key that has signed it with --trusted-key KEY.pub"]
    try:
        head = read_head(place_of(path), keys)
    except ManifestError as error:
        return [f"{path}: {p}" for p in error.problems]
    except (OSError, ValueError) as error:
        return [f"{path}: it cannot be read ({type(error).__name__})"]
    if head.ledger_id != ledger.ledger_id:
        return [f"{path}: it is of another ledger, {head.ledger_id}"]
    problem = cut_off(ledger, head.ledger_id, head.log_entries, head.head)
    return [] if problem is None else [problem]
