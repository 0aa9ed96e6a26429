"""What another policy would have decided: every recorded decision of a ledger, taken again.

    result = safegen.replay("policies/credit.yaml", ledger="ledger.db")
    result.outcomes["allow -> refuse"], result.refused[0].because

Nothing is fitted, measured or written. What the log does not tell is "cannot tell", with the
parameter that makes it so.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from safegen.decision import Gate
from safegen.errors import ManifestError, UsageError
from safegen.gates import LedgerLike, load_policy
from safegen.ledger import Ledger, open_ledger
from safegen.manifest.canonical import digest_of
from safegen.policy import GATES, Policy
from safegen.replaying.rejudge import Answer, Rejudge

__all__ = ["OUTCOMES", "Replay", "Retaken", "replay"]

OUTCOMES = tuple(
    f"{before} -> {after}"
    for before in ("allow", "refuse")
    for after in ("allow", "refuse", "cannot tell")
)
"""What a decision was, and what it would have been."""


@dataclass(frozen=True)
class Retaken:
    """One decision that would have been another, or of which nobody can tell.

    `entry` is its number in the ledger's log, `about` what it was about, `dataset_ids` those of the
    sources that have one. `because` names the findings that decide it: those that refuse now, of an
    admission those that refused then; `parameters` those that leave it open.
    """

    entry: int
    time: str
    gate: Gate
    about: tuple[str, ...]
    dataset_ids: tuple[str, ...]
    policy: str
    before: Answer
    after: Answer
    because: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Replay:
    """What a policy would have made of recorded decisions.

    `outcomes` counts every decision once, by `OUTCOMES`. `refused`, `admitted` and `untold` are
    those that would be refused, those that would be admitted, and those of which nobody can tell,
    the newest first, at most as many as were asked for. `open` says of how many decisions a
    parameter keeps anybody from telling, `shaped` of how many released rows a rule would have made
    them otherwise (they are judged as they were made); `unreadable` counts entries that this
    version cannot read.
    """

    policy: Mapping[str, str]
    ledger: str
    since: str | None
    gate: Gate | None
    by: str | None
    decisions: int
    outcomes: Mapping[str, int]
    refused: tuple[Retaken, ...]
    admitted: tuple[Retaken, ...]
    untold: tuple[Retaken, ...]
    open: Mapping[str, int]
    shaped: Mapping[str, int]
    unreadable: int

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)


def replay(
    policy: str | Path | Policy,
    *,
    ledger: LedgerLike = None,
    since: str | date | None = None,
    gate: Gate | None = None,
    by: str | None = None,
    most: int | None = 20,
) -> Replay:
    """What `policy` would have decided where the ledger has a decision.

    since: leave out what was decided before that day or time (UTC where it names no zone). gate:
    one of the two only. by: only what the policy with this id decided, in any version. most: of how
    many decisions that change to tell which they were; None: of all. Raises: PolicyError,
    UsageError, LedgerError.
    """
    new = load_policy(policy)
    if gate is not None and gate not in GATES:
        raise UsageError(f"no gate {gate!r}: it is {' or '.join(GATES)}")
    start = None if since is None else _moment(since)
    books = open_ledger(ledger, create=False)
    rejudge = Rejudge(new, dict(_policies(books)))
    outcomes, opened, shaped = (Counter[str]() for _ in range(3))
    changed = {name: deque[Retaken](maxlen=most) for name in ("refuse", "allow", "cannot tell")}
    unreadable = 0
    for entry in books.log(kind="decision"):
        try:
            payload = entry.payload
            if gate not in (None, payload["gate"]):
                continue
            if by not in (None, payload["policy"]["id"]):
                continue
            if start is not None and _moment(payload["time"]) < start:
                continue
            verdict = rejudge(payload)
            before: Answer = "allow" if payload["allowed"] else "refuse"
            outcomes[f"{before} -> {verdict.answer}"] += 1
            shaped.update(verdict.shaped)
            if verdict.answer == before:
                continue
            opened.update(verdict.parameters)
            changed[verdict.answer].append(
                Retaken(
                    entry.seq,
                    payload["time"],
                    payload["gate"],
                    tuple(map(str, payload["subject"])),
                    _ids(payload),
                    str(payload["policy"]["id"]),
                    before,
                    verdict.answer,
                    verdict.because,
                    verdict.parameters,
                )
            )
        except (TypeError, KeyError, ValueError, AttributeError, UsageError):
            unreadable += 1
    return Replay(
        policy={"id": new.id, "version": new.version, "digest": new.digest},
        ledger=books.url,
        since=None if start is None else start.isoformat(),
        gate=gate,
        by=by,
        decisions=outcomes.total(),
        outcomes={name: outcomes[name] for name in OUTCOMES},
        refused=tuple(reversed(changed["refuse"])),
        admitted=tuple(reversed(changed["allow"])),
        untold=tuple(reversed(changed["cannot tell"])),
        open=dict(opened.most_common()),
        shaped=dict(shaped.most_common()),
        unreadable=unreadable,
    )


def _policies(ledger: Ledger) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The recorded policies that are what their digests say."""
    for entry in ledger.log(kind="policy"):
        document = entry.payload.get("policy")
        try:
            if isinstance(document, dict) and digest_of(document) == entry.payload.get("digest"):
                yield entry.payload["digest"], document
        except ManifestError:
            continue


def _ids(payload: Mapping[str, Any]) -> tuple[str, ...]:
    named = (s.get("dataset_id") for s in payload.get("sources", ()))
    return tuple(dict.fromkeys(str(n) for n in named if n))


def _moment(said: str | date) -> datetime:
    """A day or a time, in UTC where it has no zone. Raises: UsageError."""
    try:
        when = datetime.fromisoformat(said if isinstance(said, str) else said.isoformat())
    except ValueError:
        raise UsageError(f"{said!r} is no day or time: write 2026-01-31") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
