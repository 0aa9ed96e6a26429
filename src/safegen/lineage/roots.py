"""The real sources at the end of a dataset's lines of ancestors, and since when they are stated."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from safegen.ledger import Ledger, Record
from safegen.lineage.facts import Root

__all__ = ["expired", "policies_of", "roots_of", "stated_of"]

_MAX_DEPTH = 64  # models in a line, beyond which nobody is followed


def roots_of(
    manifest: Mapping[str, Any], ledger: Ledger | None, _level: int = 0
) -> tuple[Root, ...] | None:
    """The sources of depth 0 that a dataset comes from; None where the line breaks off.

    manifest: its document. What was synthetic among its sources is followed through the ledger.
    """
    found: dict[Root, None] = {}
    for entry in manifest.get("sources") or ():
        deeper: tuple[Root, ...] | None = None
        if entry.get("origin") in ("real", "unknown") and not entry.get("depth"):
            if isinstance(digest := entry.get("logical_digest"), str):
                dataset = entry.get("dataset_id")
                deeper = (Root(str(entry.get("uri")), digest, dataset, int(entry.get("rows", 0))),)
        elif _level < _MAX_DEPTH and (record := _record(entry, ledger)) is not None:
            deeper = roots_of(record.manifest, ledger, _level + 1)
        if deeper is None:
            return None
        found.update(dict.fromkeys(deeper))
    return tuple(found) or None


def stated_of(manifest: Mapping[str, Any], ledger: Ledger | None, _level: int = 0) -> str | None:
    """When a person stated that data is real: of what was derived, the first time for any of its
    sources. None where that is not known."""
    if manifest.get("statement") == "attestation":
        return str(manifest.get("created"))
    sources = manifest.get("sources") or ()
    records = [_record(entry, ledger) for entry in sources if _level < _MAX_DEPTH]
    found = [None if r is None else stated_of(r.manifest, ledger, _level + 1) for r in records]
    known = [f for f in found if f is not None]
    return min(known) if known and len(known) == len(found) else None


def policies_of(
    manifest: Mapping[str, Any], ledger: Ledger | None, _level: int = 0
) -> tuple[str, ...]:
    """The digests of the policies that a dataset was made under: its own, and those that this one
    extends. Of what was derived, those that all its synthetic sources were made under."""
    policy = manifest.get("policy")
    if isinstance(policy, Mapping):
        told = [policy.get("digest"), *(policy.get("extends") or ())]
        return tuple(dict.fromkeys(d for d in told if isinstance(d, str)))
    if manifest.get("statement") != "derivation" or _level >= _MAX_DEPTH:
        return ()
    made = [s for s in manifest.get("sources") or () if s.get("origin") in ("synthetic", "mixed")]
    records = [_record(entry, ledger) for entry in made]
    every = [() if r is None else policies_of(r.manifest, ledger, _level + 1) for r in records]
    first = every[0] if every else ()
    return tuple(d for d in first if all(d in one for one in every))


def expired(expires: str | None) -> bool:
    """Whether a statement's last day is over; a day that cannot be read is."""
    if expires is None:
        return False
    try:
        return date.fromisoformat(expires) < datetime.now(UTC).date()
    except ValueError:
        return True


def _record(entry: Mapping[str, Any], ledger: Ledger | None) -> Record | None:
    dataset = entry.get("dataset_id")
    record = ledger.get(dataset) if ledger is not None and isinstance(dataset, str) else None
    return None if record is None or record.claimed else record
