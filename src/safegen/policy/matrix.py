"""Framework x rule x last evidence: what a ledger's decisions last showed for each clause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from safegen.policy.controls import WHOLES, Control
from safegen.policy.model import Policy
from safegen.policy.rules import RULES

__all__ = ["Cell", "Entry", "Last", "Trail", "matrix"]

_WORST = ("block", "waived", "warn", "audit", "pass")


class Entry(Protocol):
    """A log entry, as a ledger gives it."""

    @property
    def seq(self) -> int: ...
    @property
    def time(self) -> str: ...
    @property
    def payload(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Last:
    """The newest decision that speaks of a rule: the log entry that has it, and what it says.

    outcome: the worst of the rule's findings there (pass, audit, warn, waived, block); "applied"
    for a rule that shapes rows, of which only the policy says that it was on.
    """

    entry: int
    time: str
    gate: str
    policy: str
    version: str
    digest: str
    severity: str | None
    outcome: str
    allowed: bool
    subject: tuple[str, ...]


@dataclass
class Trail:
    """The newest evidence for each rule, from decisions that are `told` in the log's order.

    policies: effective policies by digest, as far as they are known; without its policy nobody can
    say whether a release had a rule on that only shapes rows.
    """

    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    last: dict[str, Last] = field(default_factory=dict)

    def told(self, entry: Entry) -> None:
        """Take a decision in. What has another form than a decision's is passed over."""
        said, policy = entry.payload, entry.payload.get("policy")
        findings = said.get("findings")
        if not isinstance(policy, Mapping) or not isinstance(findings, Mapping):
            return
        worst: dict[str, tuple[str, str | None]] = {}
        for name, finding in findings.items():
            if isinstance(finding, Mapping):
                rule, found = str(name).partition("/")[0], str(finding.get("outcome"))
                known = worst.get(rule)
                if known is None or _rank(found) < _rank(known[0]):
                    worst[rule] = found, _text(finding.get("severity"))
        for rule, (outcome, severity) in worst.items():
            self._keep(rule, entry, policy, severity, outcome)
        for rule, severity in self._shaping(said, policy):
            self._keep(rule, entry, policy, severity, "applied")
        verdict = "pass" if said.get("allowed") is True else "block"
        self._keep("decisions", entry, policy, None, verdict)
        waivers = said.get("waivers")
        used = [w for w in waivers if isinstance(w, Mapping)] if isinstance(waivers, list) else []
        if any(w.get("status") == "applied" for w in used):
            self._keep("waivers", entry, policy, None, "applied")

    def _shaping(
        self, said: Mapping[str, Any], policy: Mapping[str, Any]
    ) -> Iterable[tuple[str, str]]:
        if said.get("gate") != "release" or said.get("allowed") is not True:
            return
        rules = self.policies.get(str(policy.get("digest")), {}).get("rules", {})
        for rule, params in rules.items():
            severity = str(params.get("severity"))
            if rule in RULES and not RULES[rule].gates and severity != "off":
                yield rule, severity

    def _keep(
        self,
        rule: str,
        entry: Entry,
        policy: Mapping[str, Any],
        severity: str | None,
        outcome: str,
    ) -> None:
        subject = entry.payload.get("subject")
        self.last[rule] = Last(
            entry=entry.seq,
            time=entry.time,
            gate=str(entry.payload.get("gate")),
            policy=str(policy.get("id")),
            version=str(policy.get("version")),
            digest=str(policy.get("digest")),
            severity=severity,
            outcome=outcome,
            allowed=entry.payload.get("allowed") is True,
            subject=tuple(map(str, subject)) if isinstance(subject, list) else (),
        )


@dataclass(frozen=True)
class Cell:
    """One clause and one rule. active: whether the policy that was asked about has the rule on;
    None without one. gap: why nothing answers the clause, by this rule or by any other."""

    control: Control
    last: Last | None
    active: bool | None
    gap: str | None


def matrix(
    controls: Iterable[Control], last: Mapping[str, Last], policy: Policy | None = None
) -> list[Cell]:
    """A cell for each entry of the table. A clause has a gap where no rule that serves it is active
    in the policy, or where no decision speaks of any."""
    entries = list(controls)
    served = {c.name for c in entries if policy is None or _active(policy, c.rule)}
    shown = {c.name for c in entries if c.rule in last}
    cells = []
    for one in entries:
        active = None if policy is None else _active(policy, one.rule)
        gap = None
        if policy is not None and one.name not in served:
            gap = f"no active rule of {policy.id} serves it"
        elif one.name not in shown:
            gap = "no decision in this ledger speaks of a rule that serves it"
        cells.append(Cell(one, last.get(one.rule), active, gap))
    return cells


def _active(policy: Policy, rule: str) -> bool:
    return rule in WHOLES or (rule in policy.rules and policy.rules[rule].severity != "off")


def _rank(outcome: str) -> int:
    return _WORST.index(outcome) if outcome in _WORST else 0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
