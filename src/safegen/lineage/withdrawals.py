"""Datasets that were withdrawn, and what descends from them: neither is to be used any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from safegen.errors import UsageError
from safegen.ledger import Ledger, LogEntry, Record
from safegen.ledger.base import WITHDRAWAL

__all__ = [
    "Withdrawal",
    "ancestors",
    "descendants",
    "withdraw",
    "withdrawal_in",
    "withdrawal_of",
    "withdrawals",
]

_MOST = 100_000  # records behind a dataset, beyond which nobody is followed


@dataclass(frozen=True)
class Withdrawal:
    """That a person took back a dataset: which, when, who, and why."""

    dataset_id: str
    time: str
    by: str
    reason: str


def withdraw(ledger: Ledger, dataset_id: str, *, by: str, reason: str) -> Withdrawal:
    """Put on record that a dataset is not to be used any more, nor what descends from it.

    From then on `verify`, `open` and `check` refuse it, its rows, and every dataset of which the
    ledger knows that it was made from it. The record stays, and so does a withdrawal. Raises:
    UsageError for a dataset that the ledger does not know, and without a reason or a name;
    LedgerError.
    """
    if not by.strip() or not reason.strip():
        raise UsageError("say who withdraws it (--by) and why (--reason)")
    if ledger.get(dataset_id) is None:
        raise UsageError(f"the ledger knows no dataset {dataset_id!r}")
    entry = ledger.record(
        WITHDRAWAL, {"dataset_id": dataset_id, "by": by.strip(), "reason": reason.strip()}
    )
    return withdrawal_in(entry)


def withdrawals(ledger: Ledger) -> dict[str, Withdrawal]:
    """The datasets that were withdrawn, each with its first withdrawal. Raises: LedgerError."""
    found: dict[str, Withdrawal] = {}
    for entry in ledger.log(kind=WITHDRAWAL):
        one = withdrawal_in(entry)
        found.setdefault(one.dataset_id, one)
    return found


def withdrawal_of(
    dataset_ids: Iterable[str], ledger: Ledger, known: Mapping[str, Withdrawal] | None = None
) -> Withdrawal | None:
    """The withdrawal of any of these datasets or of any that they were made from; None without one.

    known: what `withdrawals` found, where it was asked already.
    """
    known = withdrawals(ledger) if known is None else known
    if not known:
        return None
    return next((known[one] for one in ancestors(dataset_ids, ledger) if one in known), None)


def ancestors(dataset_ids: Iterable[str], ledger: Ledger) -> Iterator[str]:
    """These datasets, and those that they were made from as far as the ledger knows, once each."""
    open_, seen = list(dataset_ids), set[str]()
    while open_ and len(seen) < _MOST:
        one = open_.pop()
        if one in seen:
            continue
        seen.add(one)
        yield one
        record = ledger.get(one)
        open_ += record.made_from if record is not None else ()


def descendants(dataset_id: str, ledger: Ledger) -> list[Record]:
    """Every dataset of which the ledger knows that it was made from this one, oldest first.

    A dataset descends from those that its sources name, and from what these descend from. Sources
    that no statement names are not seen: what was read from a plain file descends from nothing.
    """
    inside, found = {dataset_id}, []
    for record in ledger.records():  # in order of registration: sources before what is made of them
        if record.dataset_id not in inside and inside & set(record.made_from):
            inside.add(record.dataset_id)
            found.append(record)
    return found


def withdrawal_in(entry: LogEntry) -> Withdrawal:
    """What an entry says; one that was imported says of which ledger, and when it was there."""
    payload = entry.payload
    by, elsewhere = str(payload.get("by")), payload.get("ledger_id")
    return Withdrawal(
        str(payload.get("dataset_id")),
        str(payload.get("time", entry.time)),
        by if elsewhere is None else f"{by} (in ledger {str(elsewhere)[:8]})",
        str(payload.get("reason")),
    )
