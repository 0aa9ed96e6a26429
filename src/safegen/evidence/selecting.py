"""What of a ledger belongs into a folder: which datasets, and which entries of its log."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from safegen.errors import LedgerError, UsageError
from safegen.evidence.policies import POLICY
from safegen.ledger import Ledger, LogEntry, Record
from safegen.ledger.base import WITHDRAWAL, quick, sha256

__all__ = ["MOST_DATASETS", "Decided", "Period", "behind", "registered", "wanted"]

MOST_DATASETS = 100_000
_OF_A_DATASET = ("register", WITHDRAWAL, "signature")


@dataclass(frozen=True)
class Period:
    """From the beginning of a moment until the end of another, in UTC."""

    since: datetime
    until: datetime | None

    @classmethod
    def of(cls, since: str, until: str | None) -> Period:
        """Days (2026-12-01; the last one counts whole) or moments. Raises: UsageError."""
        first = _moment("--since", since, date.min)
        last = None if until is None else _moment("--until", until, timedelta(days=1))
        if last is not None and last <= first:
            raise UsageError("--until is before --since")
        return cls(first, last)

    def stretch(self, entries: Iterable[LogEntry]) -> tuple[int, int] | None:
        """The first and the last entry of that time; None without any. A clock that was put back
        leaves none out between the two."""
        first = last = 0
        for entry in entries:
            when = _read(entry.time)
            if when >= self.since and (self.until is None or when < self.until):
                first, last = first or entry.seq, entry.seq
        return (first, last) if first else None


def _moment(name: str, text: str, whole: Any) -> datetime:
    try:
        if len(text) == 10:
            day = datetime.combine(date.fromisoformat(text), time(), UTC)
            return day + whole if isinstance(whole, timedelta) else day
        return _read(text)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{name} is a day, 2026-12-01, or a moment, 2026-12-01T08:00:00Z"
        ) from None


def _read(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when


def registered(ledger: Ledger, stretch: tuple[int, int]) -> list[str]:
    """The datasets that were registered between two entries of the log, in order."""
    found = []
    for entry in ledger.log(after=stretch[0] - 1, kind="register"):
        if entry.seq > stretch[1]:
            break
        found.append(str(entry.payload.get("dataset_id")))
    return found


def behind(ledger: Ledger, asked: Iterable[str]) -> Iterator[tuple[Record | str, bool]]:
    """The records of datasets that were asked for, then of all behind them, once each, with whether
    they were asked for; of what the ledger does not know the id. One at a time: a thousand
    manifests are large."""
    queue = deque((one, True) for one in asked)
    seen: set[str] = set()
    while queue:
        one, was_asked = queue.popleft()
        if one in seen:
            continue
        if len(seen) >= MOST_DATASETS:
            raise UsageError(f"more than {MOST_DATASETS:,} datasets: name a shorter time")
        seen.add(one)
        record = ledger.get(one)
        yield (one if record is None else record), was_asked
        queue.extend((source, False) for source in (record.made_from if record else ()))


@dataclass
class Decided:
    """The decisions that manifests hold: their entries of the log are known by them."""

    _known: dict[tuple[str, str, str], tuple[set[tuple[str, ...]], set[str]]] = field(
        default_factory=dict
    )

    def add(self, manifest: Mapping[str, Any]) -> None:
        for one in manifest.get("decisions") or ():
            if isinstance(one, Mapping):
                keys, digests = self._known.setdefault(_named(one), (set(), set()))
                keys.add(tuple(sorted(one)))
                digests.add(sha256(quick(one)))

    def has(self, payload: Mapping[str, Any]) -> bool:
        """Whether an entry holds one of them, whatever the log keeps beside it."""
        forms, digests = self._known.get(_named(payload), ((), ()))
        return any(
            set(keys) <= set(payload) and sha256(quick({k: payload[k] for k in keys})) in digests
            for keys in forms
        )


def _named(decision: Mapping[str, Any]) -> tuple[str, str, str]:
    policy = decision.get("policy")
    digest = policy.get("digest") if isinstance(policy, Mapping) else None
    return str(decision.get("time")), str(decision.get("gate")), str(digest)


def wanted(
    ledger: Ledger,
    upto: int,
    stretch: tuple[int, int] | None,
    datasets: Mapping[str, bool],
    decided: Decided,
    about: Collection[str],
) -> list[int]:
    """The numbers of the entries that belong into the folder, in order.

    All of a stretch; of the rest those about its datasets, the decisions that their manifests hold,
    those about sources known by `about`, ids or logical digests of datasets, and the policies that
    all these decisions name. Raises: LedgerError for an entry that is not what was written.
    """
    found: list[int] = []
    needed: set[str] = set()
    before: LogEntry | None = None
    for entry in ledger.log():
        if entry.seq > upto:
            break
        if not entry.sound() or (before is not None and entry.prev != before.hash):
            raise LedgerError(
                f"entry {entry.seq} of the ledger's log is not what was written: run `safegen "
                "ledger verify` and restore a backup, for this would be no evidence"
            )
        before = entry
        inside = stretch is not None and stretch[0] <= entry.seq <= stretch[1]
        if entry.kind in _OF_A_DATASET:
            inside = inside or entry.payload.get("dataset_id") in datasets
        elif entry.kind == "decision":
            inside = inside or decided.has(entry.payload) or _about(entry.payload, about)
            if inside:
                needed.add(_named(entry.payload)[2])
        if inside:
            found.append(entry.seq)
    there = set(found)
    met: set[str] = set()
    for entry in ledger.log(kind=POLICY):
        digest = str(entry.payload.get("digest"))
        if digest in needed and digest not in met:
            met.add(digest)
            there.add(entry.seq)
    return sorted(there)


def _about(payload: Mapping[str, Any], known: Collection[str]) -> bool:
    sources = payload.get("sources")
    return any(
        isinstance(s, Mapping) and any(s.get(n) in known for n in ("logical_digest", "dataset_id"))
        for s in (sources if isinstance(sources, list) else ())
    )
