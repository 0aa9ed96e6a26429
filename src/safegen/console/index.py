"""What a ledger holds, small enough to stay in memory, and always as new as the ledger.

    index = Index(ledger)            # reads nothing yet
    now = index.contents()           # a Contents: reads what the log has got since the last call

A `Contents` never changes, so a page takes one and uses it throughout; the next call gives the
same object until the log has something new. Of each dataset, decision and policy it has a line of
facts (`DatasetEntry`, `DecisionEntry`, `PolicyEntry`) and no document:

    now.datasets[dataset_id]         # DatasetEntry, in order of registration
    now.decisions                    # list of DecisionEntry, oldest first; .decision(seq) finds one
    now.policies[digest]             # PolicyEntry: those that a dataset or a decision names
    now.withdrawals[dataset_id]      # its own Withdrawal; .withdrawn[dataset_id] its own, or that
                                     # of something it was made from
    now.sources_of[dataset_id]       # keys of what it was made from: dataset ids, else of .missing
    now.made_from[key]               # ids of the datasets made from it
    now.missing[key]                 # Source: what a manifest names and no record is known of
    now.names[dataset_id]            # what people call it: a file's or a folder's name
    now.days                         # {"2026-12-01": {"release": 3, "refused": 1, ...}}, sorted
    now.use                          # rows that may be used, by origin; .synthetic_share
    now.find_datasets("adult", origin="synthetic", page=2)     # a Page
    now.find_decisions(allowed=False, rule="lineage")          # a Page

Whole documents are read when a page shows one: `ledger.get(dataset_id)` for a record with its
manifest, `index.log_entry(seq)` for a decision or a policy as it was written.
"""

from __future__ import annotations

import posixpath
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from sys import intern
from typing import Any, Generic, TypeVar

from safegen.ledger import Ledger, LogEntry, Record
from safegen.ledger.base import WITHDRAWAL
from safegen.lineage.roots import expired
from safegen.lineage.withdrawals import Withdrawal, withdrawal_in

__all__ = [
    "Contents",
    "DatasetEntry",
    "DecisionEntry",
    "Index",
    "Page",
    "PolicyEntry",
    "Source",
    "Use",
]

MANY = 300  # records to read, from which on one pass over all of them is faster than one by one
LONGEST = 500  # characters of a text that are kept

_Entry = TypeVar("_Entry")


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

    policy: `id version`; waivers: (id, status, rule); sources: the logical digests of what it was
    about, where it names them.
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


@dataclass(frozen=True, slots=True)
class Use:
    """Rows of the datasets that are neither withdrawn nor expired."""

    datasets: int
    real: int
    synthetic: int
    unknown: int

    @property
    def synthetic_share(self) -> float | None:
        """Of all rows, those from a generator; None where there is no row. Unknown ones are not
        counted as real: they are in the denominator, and have to be told beside it."""
        every = self.real + self.synthetic + self.unknown
        return self.synthetic / every if every else None


@dataclass(frozen=True, slots=True)
class Page(Generic[_Entry]):
    """One page of a list: its items, how many there are in all, and which page of how many."""

    items: list[_Entry]
    total: int
    page: int
    pages: int
    size: int


@dataclass(frozen=True)
class Contents:
    """What a ledger holds up to log entry `seq`. It never changes; what follows from the facts is
    worked out when it is asked for first.

    gone: datasets that the log names and whose record is not there any more.
    """

    url: str
    ledger_id: str
    seq: int = 0
    head: str = ""
    datasets: Mapping[str, DatasetEntry] = field(default_factory=dict)
    decisions: Sequence[DecisionEntry] = ()
    withdrawals: Mapping[str, Withdrawal] = field(default_factory=dict)
    policy_seqs: Mapping[str, int] = field(default_factory=dict)
    gone: tuple[str, ...] = ()

    # -- what follows from them ------------------------------------------------------------

    @cached_property
    def policies(self) -> dict[str, PolicyEntry]:
        """Every policy that a decision names, in order of its first one."""
        found: dict[str, PolicyEntry] = {}
        for one in self.decisions:
            old = found.get(one.policy_digest)
            found[one.policy_digest] = PolicyEntry(
                one.policy_digest,
                one.policy,
                old.first if old else one.time,
                one.time,
                (old.decisions if old else 0) + 1,
                (old.refusals if old else 0) + (not one.allowed),
                self.policy_seqs.get(one.policy_digest),
            )
        return found

    @cached_property
    def _lines(self) -> tuple[dict[str, tuple[str, ...]], dict[str, Source]]:
        attested: dict[str, str] = {}
        for one in self.datasets.values():
            if one.statement == "attestation" and not one.claimed:
                attested.setdefault(one.logical_digest, one.dataset_id)
        lines: dict[str, tuple[str, ...]] = {}
        missing: dict[str, Source] = {}
        for dataset_id, one in self.datasets.items():
            keys: dict[str, None] = {}
            for number, source in enumerate(one.sources):
                key = source.dataset_id
                if key not in self.datasets:
                    key = attested.get(source.logical_digest or "")
                if key is None:
                    key = source.dataset_id or source.logical_digest or f"{dataset_id}/{number}"
                    missing.setdefault(key, source)
                if key != dataset_id:  # nothing is made from itself: a manifest is forged
                    keys[key] = None
            if keys:
                lines[dataset_id] = tuple(keys)
        return lines, missing

    @property
    def sources_of(self) -> dict[str, tuple[str, ...]]:
        """What each dataset was made from: dataset ids, or keys of `missing`."""
        return self._lines[0]

    @property
    def missing(self) -> dict[str, Source]:
        """What manifests name as their sources and no record is known of."""
        return self._lines[1]

    @cached_property
    def made_from(self) -> dict[str, list[str]]:
        """The datasets that were made from each dataset or missing source."""
        found: dict[str, list[str]] = {}
        for dataset_id, keys in self.sources_of.items():
            for key in keys:
                found.setdefault(key, []).append(dataset_id)
        return found

    @cached_property
    def withdrawn(self) -> dict[str, Withdrawal]:
        """What is not to be used: each with its own withdrawal, or that of what it comes from.

        As `safegen verify` has it: descent is what manifests name by dataset ids.
        """
        below: dict[str, list[str]] = {}
        for dataset_id, one in self.datasets.items():
            for source in one.sources:
                if source.dataset_id is not None:
                    below.setdefault(source.dataset_id, []).append(dataset_id)
        found = dict(self.withdrawals)
        open_ = list(found)
        for parent in open_:  # grows under way
            for child in below.get(parent, ()):
                if child not in found:
                    found[child] = found[parent]
                    open_.append(child)
        return found

    @cached_property
    def names(self) -> dict[str, str]:
        """What people call a dataset: the file or folder that it was read from, where somebody
        has said one; the newest name counts."""
        found: dict[str, str] = {}
        for one in self.datasets.values():
            if one.place is not None and (name := _name(one.place)):
                found[one.dataset_id] = name
            for source in one.sources:
                key = source.dataset_id
                if key is not None and key in self.datasets and (name := _name(source.uri or "")):
                    found[key] = name
        return found

    @cached_property
    def days(self) -> dict[str, dict[str, int]]:
        """By day: release, attestation, derivation, claim; admitted, refused; withdrawn."""
        found: dict[str, Counter[str]] = {}

        def count(time: str, what: str) -> None:
            found.setdefault(time[:10], Counter())[what] += 1

        for one in self.datasets.values():
            count(one.registered, "claim" if one.claimed else one.statement)
        for decision in self.decisions:
            count(decision.time, "admitted" if decision.allowed else "refused")
        for withdrawal in self.withdrawals.values():
            count(withdrawal.time, "withdrawn")
        return {day: dict(found[day]) for day in sorted(found)}

    @cached_property
    def use(self) -> Use:
        """The rows that may be used, by origin."""
        datasets = real = synthetic = unknown = 0
        for one in self.datasets.values():
            if one.dataset_id in self.withdrawn or one.expired:
                continue
            datasets += 1
            if one.synthetic_rows is None or one.claimed:
                unknown += one.rows
            else:
                synthetic += one.synthetic_rows
                real += one.rows - one.synthetic_rows
        return Use(datasets, real, synthetic, unknown)

    # -- asking ----------------------------------------------------------------------------

    def decision(self, seq: int) -> DecisionEntry | None:
        """The decision of a log entry."""
        return self._by_seq.get(seq)

    def decisions_about(self, logical_digest: str) -> list[DecisionEntry]:
        """The decisions that name this content among their sources, oldest first."""
        return [d for d in self.decisions if logical_digest in d.sources]

    def find_datasets(
        self,
        text: str = "",
        *,
        origin: str | None = None,
        statement: str | None = None,
        ancestry: str | None = None,
        depth: int | None = None,
        policy: str | None = None,
        withdrawn: bool | None = None,
        since: str | None = None,
        until: str | None = None,
        newest_first: bool = True,
        page: int = 1,
        size: int = 50,
    ) -> Page[DatasetEntry]:
        """Datasets in which every word of `text` occurs (in id, name, place, backend, policy,
        person, licence), registered from day `since` to day `until`. policy: a digest."""
        words = text.casefold().split()
        last = (until or "9999")[:10] + "~"

        def wanted(one: DatasetEntry) -> bool:
            return (
                (origin is None or one.origin == origin)
                and (statement is None or one.statement == statement)
                and (ancestry is None or one.ancestry == ancestry)
                and (depth is None or one.depth == depth)
                and (policy is None or one.policy_digest == policy)
                and (withdrawn is None or (one.dataset_id in self.withdrawn) == withdrawn)
                and (since is None or one.registered >= since)
                and one.registered < last
                and all(w in self._texts[one.dataset_id] for w in words)
            )

        return _page([d for d in self.datasets.values() if wanted(d)], newest_first, page, size)

    def find_decisions(
        self,
        text: str = "",
        *,
        allowed: bool | None = None,
        gate: str | None = None,
        rule: str | None = None,
        policy: str | None = None,
        waived: bool | None = None,
        since: str | None = None,
        until: str | None = None,
        newest_first: bool = True,
        page: int = 1,
        size: int = 50,
    ) -> Page[DecisionEntry]:
        """Decisions in whose subject, policy or findings every word of `text` occurs. rule: one
        that blocked, warned or was waived. policy: a digest."""
        words = text.casefold().split()
        last = (until or "9999")[:10] + "~"

        def wanted(one: DecisionEntry) -> bool:
            return (
                (allowed is None or one.allowed == allowed)
                and (gate is None or one.gate == gate)
                and (rule is None or rule in one.rules)
                and (policy is None or one.policy_digest == policy)
                and (waived is None or bool(one.waived) == waived)
                and (since is None or one.time >= since)
                and one.time < last
                and (not words or _has(words, *one.subject, one.policy, *one.blocked, *one.warned))
            )

        return _page([d for d in self.decisions if wanted(d)], newest_first, page, size)

    @cached_property
    def _by_seq(self) -> dict[int, DecisionEntry]:
        return {d.seq: d for d in self.decisions}

    @cached_property
    def _texts(self) -> dict[str, str]:
        """What is searched of each dataset."""
        return {
            d.dataset_id: "\n".join(
                part.casefold()
                for part in (
                    d.dataset_id,
                    self.names.get(d.dataset_id),
                    d.place,
                    d.backend,
                    d.policy,
                    d.by,
                    d.license,
                )
                if part
            )
            for d in self.datasets.values()
        }


class Index:
    """A ledger, read once and then as far as it is new. Safe in threads."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self._lock = threading.Lock()
        self._contents = Contents(ledger.url, ledger.ledger_id)

    def contents(self) -> Contents:
        """What the ledger holds now; the same object where nothing is new.

        Raises: LedgerError, when it cannot be read or was changed.
        """
        with self._lock:
            self._contents = self._read(self._contents)
            return self._contents

    def log_entry(self, seq: int) -> LogEntry | None:
        """An entry of the log as it was written, such as a decision's. Raises: LedgerError."""
        entry = next(self.ledger.log(after=seq - 1), None)
        return entry if entry is not None and entry.seq == seq else None

    def _read(self, old: Contents) -> Contents:
        entries = self.ledger.log(after=max(old.seq - 1, 0))
        if old.seq:
            last = next(entries, None)
            if last is None or (last.seq, last.hash) != (old.seq, old.head):
                # The file is an older copy of itself, or another: nothing known counts.
                old = Contents(old.url, old.ledger_id)
                entries = self.ledger.log()
        news = _News(old)
        for entry in entries:
            news.take(entry)
        return news.contents(self.ledger)


class _News:
    """What the log has got since a Contents."""

    def __init__(self, old: Contents):
        self._old = old
        self._last: LogEntry | None = None
        self._registered: dict[str, tuple[int, str]] = {}
        self._signed: set[str] = set()
        self._imported = False
        self._decisions: list[DecisionEntry] = []
        self._withdrawals: dict[str, Withdrawal] = {}
        self._policies: dict[str, int] = {}

    def take(self, entry: LogEntry) -> None:
        """Remember what an entry says, in short."""
        self._last, said = entry, entry.payload
        if entry.kind == "decision":
            self._decisions.append(_decision(entry))
        elif entry.kind == "register":
            self._registered[str(said.get("dataset_id"))] = (entry.seq, entry.time)
        elif entry.kind == WITHDRAWAL:
            one = withdrawal_in(entry)
            self._withdrawals.setdefault(one.dataset_id, one)
        elif entry.kind == "policy":
            self._policies.setdefault(str(said.get("digest")), entry.seq)
        elif entry.kind == "signature":
            self._signed.add(str(said.get("dataset_id")))
        elif entry.kind == "import":
            self._imported = True

    def contents(self, ledger: Ledger) -> Contents:
        """The new Contents."""
        old = self._old
        if self._last is None:
            return old
        datasets = dict(old.datasets)
        wanted = dict(self._registered)
        if self._imported:  # an import may vouch for what was a claim until now
            wanted |= {d.dataset_id: (d.seq, d.registered) for d in datasets.values() if d.claimed}
        found = {r.dataset_id: _dataset(r, *wanted[r.dataset_id]) for r in _records(ledger, wanted)}
        datasets |= {dataset_id: found[dataset_id] for dataset_id in wanted if dataset_id in found}
        for dataset_id in self._signed & datasets.keys():
            datasets[dataset_id] = replace(datasets[dataset_id], signed=True)
        gone = tuple(dataset_id for dataset_id in wanted if dataset_id not in found)
        return Contents(
            old.url,
            old.ledger_id,
            self._last.seq,
            self._last.hash,
            datasets,
            [*old.decisions, *self._decisions],
            {**self._withdrawals, **old.withdrawals},
            {**self._policies, **old.policy_seqs},
            old.gone + gone,
        )


def _records(ledger: Ledger, wanted: Mapping[str, object]) -> Iterator[Record]:
    if len(wanted) > MANY:
        yield from (r for r in ledger.records() if r.dataset_id in wanted)
        return
    for dataset_id in wanted:
        record = ledger.get(dataset_id)
        if record is not None:
            yield record


def _dataset(record: Record, seq: int, registered: str) -> DatasetEntry:
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


def _decision(entry: LogEntry) -> DecisionEntry:
    said = entry.payload
    policy = _mapping(said.get("policy"))
    outcomes: dict[Any, list[str]] = {"block": [], "warn": [], "waived": []}
    for name, finding in _mapping(said.get("findings")).items():
        outcome = _mapping(finding).get("outcome")
        if isinstance(outcome, str) and outcome in outcomes:
            outcomes[outcome].append(intern(name))
    waivers = [_mapping(w) for w in _sequence(said.get("waivers"))]
    digests = (_text(_mapping(s).get("logical_digest")) for s in _sequence(said.get("sources")))
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
        sources=tuple(d for d in digests if d is not None),
    )


def _policy(said: Mapping[str, Any]) -> str:
    return intern(f"{said.get('id', '')} {said.get('version', '')}".strip()[:LONGEST])


def _name(uri: str) -> str:
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


def _has(words: Iterable[str], *parts: str) -> bool:
    text = "\n".join(parts).casefold()
    return all(word in text for word in words)


def _page(found: list[_Entry], newest_first: bool, page: int, size: int) -> Page[_Entry]:
    if newest_first:
        found.reverse()
    size = max(1, min(size, 1000))
    pages = max(1, -(-len(found) // size))
    page = max(1, min(page, pages))
    return Page(found[(page - 1) * size : page * size], len(found), page, pages, size)
