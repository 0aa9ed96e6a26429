"""What a ledger holds at one moment: facts, what follows from them, and searching them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

from safegen.console.entries import (
    DatasetEntry,
    DecisionEntry,
    PolicyEntry,
    Source,
    name_of,
)
from safegen.lineage.withdrawals import Withdrawal

__all__ = ["Contents", "Page", "Use"]

_Entry = TypeVar("_Entry")


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
    """What a ledger holds up to log entry `seq`, on a day. It never changes; what follows from the
    facts is worked out when it is asked for first.

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
    day: str = ""

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
            if one.place is not None and (name := name_of(one.place)):
                found[one.dataset_id] = name
            for source in one.sources:
                key = source.dataset_id
                if key is not None and key in self.datasets and (name := name_of(source.uri or "")):
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

    def decisions_about(self, entry: DatasetEntry) -> list[DecisionEntry]:
        """The decisions that name a dataset, or its content, among their sources, oldest first."""
        names = {entry.logical_digest, entry.dataset_id}
        return [d for d in self.decisions if names.intersection(d.sources)]

    def ids_with(self, text: str) -> list[str]:
        """The datasets in which every word occurs, as in `find_datasets`."""
        words = text.casefold().split()
        return [key for key, said in self._texts.items() if all(w in said for w in words)]

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
