"""The two gates: gather findings from every safeguard, decide, and write the decision down.

A safeguard that raises is a finding against the run ("broken"), never a gap in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen import grounds, plugins
from safegen.decision import Decision, Finding, Gate, Waived, decide, to_lower
from safegen.errors import LedgerError, SafegenError, upstream
from safegen.ledger import Ledger, open_ledger
from safegen.ledger.places import ledger_place, ledger_url
from safegen.lineage.detection import POWER
from safegen.lineage.evidence import resolve, resolve_released
from safegen.lineage.facts import SourceFacts
from safegen.lineage.heads import Listed, listed
from safegen.lineage.screening import screened
from safegen.manifest import PublicKey
from safegen.manifest.identity import now
from safegen.policy import Policy, in_force
from safegen.tables.sources import Source, read_source

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.contracts import Scalar
    from safegen.measure.drawn import Drawn
    from safegen.measure.gains import Probe
    from safegen.measure.profile import TableProfile, TableTally
    from safegen.tables.schema import TableSchema

__all__ = ["Admission", "Books", "LedgerLike", "Release", "admit", "held_out", "release", "trusted"]

LedgerLike = Any
"""A ledger, its path or URL, or None for the default one."""


@dataclass
class Books:
    """The ledger of a run: open, or known to be out of reach."""

    ledger: Ledger | None
    state: Mapping[str, Any]

    @classmethod
    def open(cls, ledger: LedgerLike = None, *, create: bool = True) -> Books:
        """Open the ledger. One that cannot be reached is a state that the gates judge."""
        try:
            opened = open_ledger(ledger, create=create)
            return cls(opened, opened.state())
        except LedgerError as error:
            return cls(None, {"url": _named(ledger), "datasets": 0}).lost(error)

    def lost(self, error: LedgerError) -> Books:
        """These books when the ledger failed under way."""
        return Books(
            None,
            {
                **self.state,
                "status": "unreachable",
                "problem": str(error),
                "key_epochs": [],
            },
        )

    def now(self) -> Books:
        """These books with the ledger's state as it is now. Raises: LedgerError."""
        return self if self.ledger is None else Books(self.ledger, self.ledger.state())

    def write(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Append to the log; nothing when there is no ledger (the decision says so)."""
        if self.ledger is not None:
            self.ledger.record(kind, payload)


def _named(ledger: LedgerLike) -> str:
    """A ledger's name for people: of a URL that is not understood only its scheme, for the rest may
    hold a password."""
    text = str(ledger or os.environ.get("SAFEGEN_LEDGER") or "the default ledger")
    scheme, sign, _ = text.partition("://")
    if not sign or scheme == "sqlite":
        return text
    try:
        return ledger_url(ledger_place(ledger))
    except SafegenError:
        return f"{scheme}://…"


@dataclass(frozen=True)
class Admission:
    """What safeguards may look at before training."""

    sources: Sequence[SourceFacts]
    ledger: Mapping[str, Any]
    doubts: Sequence[str] = ()
    probe: Probe | None = None
    listed: Listed | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Release:
    """What safeguards may look at before publishing."""

    rows: int
    units: int
    conditions: Mapping[str, Scalar]
    schemas: Mapping[str, TableSchema]
    real: Mapping[str, TableProfile] | None
    staged: Mapping[str, TableTally]
    anchor: Mapping[str, pa.Table] | None = None
    held: Mapping[str, pa.Table] | None = None
    made: Mapping[str, Drawn] = field(default_factory=dict)
    depth: int = 1
    in_band: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    signer: str | None = None  # the id of the key that will sign
    credentials: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    real_values: bool = False  # whether the policy lets findings name real values


def held_out(policy: Policy) -> float:
    """The share of real rows that active rules want kept from training: the largest asked for."""
    return max((float(getattr(p, "held_out", 0)) for p in policy.at("release").values()), default=0)


def load_policy(policy: str | Path | Policy) -> Policy:
    """The policy as it is in force here: tightened to what the organisation pins.

    Raises: PolicyError.
    """
    return in_force(policy if isinstance(policy, Policy) else Policy.load(policy))


def trusted(policy: Policy) -> list[PublicKey]:
    """The keys whose signatures a policy trusts."""
    return [PublicKey.of(t) for t in policy.rule("manifest").trusted_keys]  # type: ignore[attr-defined]


def resolve_all(
    sources: Sequence[Any],
    books: Books,
    power: float | None = None,
    keys: Sequence[PublicKey] = (),
    released: bool = False,
) -> tuple[list[Source], list[SourceFacts], Books]:
    """Open and resolve sources; a ledger that fails under way counts as unreachable. power: look at
    a random part only, in which such a share of released rows is found. keys: whose signatures are
    looked for. released: rows for which a manifest vouches are not read."""
    opened = [read_source(s) for s in sources]

    def known(ledger: Ledger | None) -> list[SourceFacts]:
        if power is not None:
            return [screened(s, ledger, power, keys) for s in opened]
        found = resolve_released if released else resolve
        return [found(s, ledger, keys) for s in opened]

    try:
        books = books.now()
        return opened, known(books.ledger), books
    except LedgerError as error:
        return opened, known(None), books.lost(error)


def admit(
    policy: Policy,
    facts: Sequence[SourceFacts],
    books: Books,
    doubts: Sequence[str] = (),
    probe: Probe | None = None,
    power: float | None = None,
    notes: Sequence[str] = (),
    before: Mapping[str, Any] | None = None,
) -> Decision:
    """The decision at the admission gate; recorded, allowed or not. `before`: how it was taken
    before (`Decision.said`); where nothing else is found now, that stands. `doubts`: why nobody
    knows what else the model was trained on. `probe`: what a refit on the synthetic rows does.
    `power`: the share of released rows that had to be found, where that is not the policy's.
    `notes`: what else is to be said, and judged by nobody."""
    context = Admission(facts, books.state, doubts, probe, _listed(policy))
    decision = _decide(
        policy,
        "admission",
        books,
        lambda guard, params: guard.admission(context, params),
        [f"{s.uri} ({s.rows:,} rows, {s.origin}, {s.ancestry})" for s in facts],
        facts,
        [*_detection_note(facts, books, policy, power), *notes],
    )
    if before is not None and (same := decision.restated(before)) is not None:
        return same
    _record(books, policy, decision, facts, lambda: grounds.of_admission(context, decision))
    return decision


def _listed(policy: Policy) -> Listed | None:
    """What the policy's list of withdrawals says; None where it names none."""
    lineage: Any = policy.rule("lineage")
    if not lineage.withdrawals:
        return None
    most = timedelta(hours=lineage.withdrawals_max_age)
    return listed(lineage.withdrawals, trusted(policy), most)


def release(
    policy: Policy,
    context: Release,
    books: Books,
    subject: Sequence[str],
    facts: Sequence[SourceFacts],
) -> Decision:
    """The decision at the release gate; recorded, allowed or not. Raises: LedgerError."""
    books = books.now()  # the manifest is to name the log's head as it is when its rows leave
    decision = _decide(
        policy,
        "release",
        books,
        lambda guard, params: guard.release(context, params),
        subject,
        facts,
    )
    _record(books, policy, decision, facts, lambda: grounds.of_release(context, decision))
    return decision


def _detection_note(
    facts: Sequence[SourceFacts], books: Books, policy: Policy, power: float | None
) -> Sequence[str]:
    """What finding nothing is worth: from which share on rows of registered releases are found."""
    if any(s.synthetic_share for s in facts):
        return []  # found, and the findings say how
    attested = "yes" if facts and all(s.attested for s in facts) else "no"
    if power is not None:
        attested = "cannot be said of a part of the rows"
    wanted = power or float(policy.rule("lineage").search_share)  # type: ignore[attr-defined]
    rings = [
        f"{ring} (p {of['p']:.2g}, found from {of['least']:.2%} on)"
        for s in facts
        for ring, of in ((s.search or {}).get("rings") or {}).items()
    ]
    return [
        f"attested? {attested}; detected? {_detected(facts, books, wanted)}",
        *([f"looked up: {', '.join(rings)}"] if rings else []),
    ]


def _detected(facts: Sequence[SourceFacts], books: Books, wanted: float) -> str:
    searches = [s.search for s in facts]
    if facts and None in searches and all(s.attested for s in facts if s.search is None):
        return "not searched again: rows were looked up when it was stated that they are real"
    if missing := books.state.get("imported_keys_missing"):
        return (
            f"unknown: the keys of ledger{'s' * (len(set(missing.values())) > 1)} "
            f"{', '.join(sorted({i[:8] for i in missing.values()}))} are not here, so that copies "
            "of what was imported are not found"
        )
    known = max((s["datasets"] for s in searches if s), default=0)
    if books.ledger is None or None in searches or not known:
        return "underpowered: no release to compare with was searched"
    releases = f"{known:,} registered release{'s' if known != 1 else ''}"
    least = [s["least"] for s in searches if s]
    if None in least:
        return f"underpowered: of {releases} none has columns like these"
    share, power = max(least), min(s.get("power", POWER) for s in searches if s)
    found = f"rows of {releases} are found with a chance of {100 * power:g} % from a share of "
    found += f"{share:.2%} on"
    if share <= wanted:
        return f"clean: {found}"
    return f"underpowered: {found}, and {wanted:.2%} is asked for"


def _record(
    books: Books,
    policy: Policy,
    decision: Decision,
    facts: Sequence[SourceFacts],
    known: Callable[[], Mapping[str, Any]],
) -> None:
    """Write a decision down, after the policy that it names, and with what is needed to take it
    again under another one."""
    if books.ledger is None:
        return
    _record_policy(books.ledger, policy)
    books.write(
        "decision",
        {
            **decision.to_json(),
            "sources": [
                {
                    "uri": s.uri,
                    "logical_digest": s.logical_digest,
                    "origin": s.origin,
                    "dataset_id": s.dataset_id,
                    "names": list(s.names),
                }
                for s in facts
            ],
            "grounds": known(),
        },
    )


_RECORDED: set[tuple[str, str, str]] = set()
"""The policies that this process knows to be in a ledger: its URL, its id, the policy's digest."""


def _record_policy(ledger: Ledger, policy: Policy) -> None:
    """Write the policy down, all defaults in place, where the ledger does not have it. Two
    processes at once may both do so, which is harmless."""
    this = (ledger.url, ledger.ledger_id, policy.digest)
    if this in _RECORDED:
        return
    if all(e.payload.get("digest") != policy.digest for e in ledger.log(kind="policy")):
        ledger.record("policy", {"digest": policy.digest, "policy": policy.effective()})
    _RECORDED.add(this)


def _decide(
    policy: Policy,
    gate: Gate,
    books: Books,
    ask: Callable[[Any, Any], Sequence[Finding]],
    subject: Sequence[str],
    facts: Sequence[SourceFacts],
    notes: Sequence[str] = (),
) -> Decision:
    def found(rule: str, params: Any) -> list[Finding]:
        try:
            guard = plugins.load(plugins.SAFEGUARDS, rule)()
            return [f for f in ask(guard, params) if f.rule == rule]
        except Exception as error:
            what = str(error) if isinstance(error, SafegenError) else upstream(error)
            broken = Finding(
                rule,
                "broken",
                "broken",
                f"the safeguard failed: {what}",
                "a finding",
                next_step="run again with --debug; a broken safeguard counts as unmet",
            )
            return [broken]

    findings = [f for rule, params in policy.at(gate).items() for f in found(rule, params)]
    sources = [s.names for s in facts]
    judged = partial(
        decide,
        policy,
        gate,
        findings,
        ledger=books.state,
        subject=subject,
        time=now(),
        notes=notes,
        sources=sources,
    )
    decision = judged()
    lower = to_lower(policy, decision, sources)
    if not lower:
        return decision
    return judged(
        waived={
            rule: Waived(params, waivers, found(rule, params))
            for rule, (params, waivers) in lower.items()
        }
    )
