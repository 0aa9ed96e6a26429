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

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from safegen.console.contents import Contents, Page, Use
from safegen.console.entries import (
    DatasetEntry,
    DecisionEntry,
    PolicyEntry,
    Source,
    dataset_entry,
    decision_entry,
)
from safegen.ledger import Ledger, LogEntry, Record
from safegen.ledger.base import WITHDRAWAL
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
        now, today = news.contents(self.ledger), _today()
        return now if now.day == today else replace(now, day=today)  # another day, others expired


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
            self._decisions.append(decision_entry(entry))
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
        found = {
            r.dataset_id: dataset_entry(r, *wanted[r.dataset_id]) for r in _records(ledger, wanted)
        }
        datasets |= {dataset_id: found[dataset_id] for dataset_id in wanted if dataset_id in found}
        signed = self._signed | {d.dataset_id for d in old.datasets.values() if d.signed}
        for dataset_id in signed & datasets.keys():
            datasets[dataset_id] = replace(datasets[dataset_id], signed=True)
        gone = tuple(dataset_id for dataset_id in wanted if dataset_id not in found)
        return Contents(
            old.url,
            old.ledger_id,
            self._last.seq,
            self._last.hash,
            datasets,
            [*old.decisions, *self._decisions],
            {**old.withdrawals, **self._withdrawals, **old.withdrawals},  # the first one counts
            {**old.policy_seqs, **self._policies, **old.policy_seqs},
            old.gone + gone,
            old.day,
        )


def _records(ledger: Ledger, wanted: Mapping[str, object]) -> Iterator[Record]:
    if len(wanted) > MANY:
        yield from (r for r in ledger.records() if r.dataset_id in wanted)
        return
    for dataset_id in wanted:
        record = ledger.get(dataset_id)
        if record is not None:
            yield record


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
