"""The facts about a dataset, a decision and a policy that the console keeps in memory.

They are read from documents that may be another ledger's: whatever stands in a field's place, an
entry comes out, and no text in it is long.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Any

from safegen.ledger import LogEntry, Record
from safegen.lineage.roots import expired

__all__ = [
    "DatasetEntry",
    "DecisionEntry",
    "PolicyEntry",
    "Source",
    "dataset_entry",
    "decision_entry",
    "name_of",
]

LONGEST = 500  # characters of a text that are kept


@dataclass(frozen=True, slots=True)
class Source:
    """What a dataset was made from, as its manifest lists it."""

    dataset_id: str | None
    logical_digest: str | None
    uri: str | None
    origin: str
    ancestry: str
    depth: int
    rows: int


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """The facts about a dataset. seq, registered: its log entry; created: as its manifest says.

    place: where an attested source came from. by: who stated it; backend: what made it.
    synthetic_rows: None where that is not known. policy: `id version`. claimed: no more than
    the claim of ledger `imported_from`.
    """

    dataset_id: str
    seq: int
    registered: str
    created: str
    statement: str
    kind: str
    origin: str
    ancestry: str
    depth: int
    effective_depth: float
    depth_is_lower_bound: bool
    rows: int
    synthetic_rows: int | None
    place: str | None
    by: str | None
    backend: str | None
    license: str | None
    expires: str | None
    policy: str | None
    policy_digest: str | None
    logical_digest: str
    manifest_digest: str
    signed: bool
    imported_from: str | None
    claimed: bool
    warnings: int
    sources: tuple[Source, ...]

    @property
    def expired(self) -> bool:
        """Whether the last day of its statement is over."""
        return expired(self.expires)

    @property
    def verified(self) -> bool:
        """Whether all its ancestry is attested, and it is stated here rather than claimed."""
        return self.ancestry == "attested" and not self.claimed


@dataclass(frozen=True, slots=True)
class DecisionEntry:
    """The facts about a decision. blocked, warned, waived: `rule/check` of its findings.

    policy: `id version`; waivers: (id, status, rule); sources: the logical digests and the
    ids of what it was about, where it names them.
    """

    seq: int
    time: str
    gate: str
    allowed: bool
    policy: str
    policy_digest: str
    subject: tuple[str, ...]
    blocked: tuple[str, ...]
    warned: tuple[str, ...]
    waived: tuple[str, ...]
    waivers: tuple[tuple[str, str, str], ...]
    sources: tuple[str, ...]

    @property
    def rules(self) -> set[str]:
        """The rules that blocked, warned or were waived."""
        return {f.partition("/")[0] for f in (*self.blocked, *self.warned, *self.waived)}


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """A policy by its digest. seq: the log entry that holds its document; None where none does."""

    digest: str
    name: str
    first: str
    last: str
    decisions: int
    refusals: int
    seq: int | None


def dataset_entry(record: Record, seq: int, registered: str) -> DatasetEntry:
    """The facts about a record, which was registered in log entry `seq`."""
    told = record.manifest
    policy = _mapping(told.get("policy"))
    extra = _mapping(told.get("extra"))
    return DatasetEntry(
        dataset_id=record.dataset_id,
        seq=seq,
        registered=registered,
        created=record.created,
        statement=intern(record.statement),
        kind=_text(told.get("kind")) or "table",
        origin=intern(record.origin),
        ancestry=intern(record.ancestry),
        depth=record.depth,
        effective_depth=record.effective_depth,
        depth_is_lower_bound=record.depth_is_lower_bound,
        rows=record.rows,
        synthetic_rows=_synthetic(record),
        place=_text(extra.get("source_uri")),
        by=_text(told.get("attested_by")),
        backend=_text(_mapping(told.get("generator")).get("backend") or extra.get("tool")),
        license=_text(told.get("license")),
        expires=record.expires,
        policy=_policy(policy) if policy else None,
        policy_digest=_text(policy.get("digest")),
        logical_digest=record.logical_digest,
        manifest_digest=record.manifest_digest,
        signed=record.public_key is not None,
        imported_from=record.imported_from,
        claimed=record.claimed,
        warnings=len(_sequence(told.get("warnings"))),
        sources=tuple(_source(_mapping(s)) for s in _sequence(told.get("sources"))),
    )


def _synthetic(record: Record) -> int | None:
    if record.origin == "unknown":
        return None
    composition = record.manifest.get("composition")
    if isinstance(composition, Mapping) and isinstance(n := composition.get("synthetic"), int):
        return max(0, min(n, record.rows))
    return {"synthetic": record.rows, "real": 0}.get(record.origin)


def _source(said: Mapping[str, Any]) -> Source:
    return Source(
        dataset_id=_text(said.get("dataset_id")),
        logical_digest=_text(said.get("logical_digest")),
        uri=_text(said.get("uri")),
        origin=_text(said.get("origin")) or "unknown",
        ancestry=_text(said.get("ancestry")) or "unverified",
        depth=_count(said.get("depth")),
        rows=_count(said.get("rows")),
    )


def decision_entry(entry: LogEntry) -> DecisionEntry:
    """The facts about the decision of a log entry."""
    said = entry.payload
    policy = _mapping(said.get("policy"))
    outcomes: dict[Any, list[str]] = {"block": [], "warn": [], "waived": []}
    for name, finding in _mapping(said.get("findings")).items():
        outcome = _mapping(finding).get("outcome")
        if isinstance(outcome, str) and outcome in outcomes:
            outcomes[outcome].append(intern(name))
    waivers = [_mapping(w) for w in _sequence(said.get("waivers"))]
    sources = map(_mapping, _sequence(said.get("sources")))
    known = (_text(s.get(name)) for s in sources for name in ("logical_digest", "dataset_id"))
    return DecisionEntry(
        seq=entry.seq,
        time=_text(said.get("time")) or entry.time,
        gate=_text(said.get("gate")) or "",
        allowed=said.get("allowed") is True,
        policy=_policy(policy),
        policy_digest=_text(policy.get("digest")) or "",
        subject=tuple(str(s)[:LONGEST] for s in _sequence(said.get("subject"))),
        blocked=tuple(outcomes["block"]),
        warned=tuple(outcomes["warn"]),
        waived=tuple(outcomes["waived"]),
        waivers=tuple(
            (str(w.get("id")), str(w.get("status")), str(w.get("rule", ""))) for w in waivers
        ),
        sources=tuple(k for k in known if k is not None),
    )


def _policy(said: Mapping[str, Any]) -> str:
    return intern(f"{said.get('id', '')} {said.get('version', '')}".strip()[:LONGEST])


def name_of(uri: str) -> str:
    """The last part of a path or URI; nothing for what lay in memory."""
    if uri.startswith("memory:"):
        return ""
    return posixpath.basename(re.sub(r"[\\/]+$", "", uri).replace("\\", "/"))


def _text(value: object) -> str | None:
    # Whatever a manifest says in a text's place: it may be another's.
    return intern(value[:LONGEST]) if isinstance(value, str) and value else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
