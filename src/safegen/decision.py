"""The verdict: one pure, total function from findings to a decision.

The rules of deciding, in one place and without any input or output:

1. Every active rule of the gate is evaluated; nothing is short-circuited, so that a person sees
   everything that is wrong at once.
2. A rule that gives no finding at a gate that it declares is unmet ("silent"). So is a safeguard
   that broke. Losing evidence never turns a refusal into a release.
3. An unmet finding blocks when its severity is `enforce`, warns at `warn`, is recorded at `audit`.
   A finding may be milder than its rule (never stricter): unattested data under `warn`.
4. An inconclusive finding counts as the rule's `inconclusive` says: pass, warn or fail.
5. No active rule at a gate means no: a policy that asks nothing admits nothing.
6. Waivers are listed; this version applies none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from safegen.policy import Policy

__all__ = ["Decision", "Finding", "Gate", "Part", "Status", "Within", "decide"]

Gate = Literal["admission", "release"]
Status = Literal["met", "unmet", "inconclusive", "broken"]
Severity = Literal["off", "audit", "warn", "enforce"]
Outcome = Literal["pass", "audit", "warn", "block"]

Within = tuple[float | None, float | None]
"""The least and the most that is allowed; None where there is no such end."""

_RANK: dict[str, int] = {"off": 0, "audit": 1, "warn": 2, "enforce": 3}


@dataclass(frozen=True)
class Part:
    """One of several numbers that a finding rests on: of a column, a pair, a tail or a level.

    judged: whether it can be told from its margin at this number of rows.
    """

    name: str
    value: float
    interval: tuple[float, float]
    within: Within
    judged: bool = True


@dataclass(frozen=True)
class Finding:
    """What a safeguard established about one question of a rule.

    `observed` and `required` are short texts with numbers, never with values of the data.
    `interval`, `n` and `method` belong to every measured number; `value` is that number, `of` what
    it is the number of, and `within` where its interval has to lie. `parts` are all numbers that
    the finding rests on: a report draws them, and no manifest holds them. `at_most` caps the
    severity.
    """

    rule: str
    check: str
    status: Status
    observed: str
    required: str
    interval: tuple[float, float] | None = None
    n: int | None = None
    method: str | None = None
    evidence: tuple[str, ...] = ()
    next_step: str | None = None
    at_most: Severity = "enforce"
    value: float | None = None
    of: str | None = None
    within: Within | None = None
    parts: tuple[Part, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.rule}/{self.check}"


@dataclass(frozen=True)
class Reason:
    """A finding as judged: what it does to the decision."""

    finding: Finding
    severity: Severity
    outcome: Outcome


@dataclass(frozen=True)
class Decision:
    """A verdict at a gate. Prints for a person; `.enforce()` raises when it is a refusal.

    `.allowed`, `.gate`, `.findings` (rule/check → Finding), `.reasons` (what blocks or warns),
    `.waivers`, `.policy` (id, version, digest, contact), `.ledger` (which was searched, how many
    datasets it holds, which key epochs were at hand), `.notes`.
    """

    allowed: bool
    gate: Gate
    judged: tuple[Reason, ...]
    policy: Mapping[str, str]
    ledger: Mapping[str, Any]
    subject: tuple[str, ...] = ()
    waivers: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    time: str = ""

    @property
    def findings(self) -> dict[str, Finding]:
        return {r.finding.name: r.finding for r in self.judged}

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """What blocks, then what warns."""
        return tuple(r for r in self.judged if r.outcome == "block") + tuple(
            r for r in self.judged if r.outcome == "warn"
        )

    @property
    def warnings(self) -> tuple[Reason, ...]:
        return tuple(r for r in self.judged if r.outcome == "warn")

    def enforce(self) -> Decision:
        """This decision, if it allows. Raises: AdmissionRefused or ReleaseRefused otherwise."""
        from safegen.errors import AdmissionRefused, ReleaseRefused

        if self.allowed:
            return self
        raise (AdmissionRefused if self.gate == "admission" else ReleaseRefused)(self)

    @property
    def digest(self) -> str:
        """The SHA-256 of the decision's canonical JSON, by which a checkpoint names it."""
        import hashlib

        import rfc8785

        return "sha256:" + hashlib.sha256(rfc8785.dumps(self.to_json())).hexdigest()

    @property
    def said(self) -> dict[str, Any]:
        """When it was taken, by which state of the ledger, with which notes, and its digest."""
        document = self.to_json()
        return {k: document[k] for k in ("time", "ledger", "notes")} | {"digest": self.digest}

    def restated(self, before: Mapping[str, Any]) -> Decision | None:
        """The decision that was taken `before`, if this one says the same; else None."""
        same = replace(
            self, time=before["time"], ledger=before["ledger"], notes=tuple(before["notes"])
        )
        return same if same.digest == before["digest"] else None

    def to_json(self) -> dict[str, Any]:
        """A JSON document: what the ledger and the manifest keep."""
        return {
            "allowed": self.allowed,
            "gate": self.gate,
            "time": self.time,
            "policy": dict(self.policy),
            "ledger": dict(self.ledger),
            "subject": list(self.subject),
            "findings": {
                r.finding.name: {
                    **{
                        k: list(v) if isinstance(v, tuple) else v
                        for k, v in asdict(r.finding).items()
                        if k not in ("rule", "check", "at_most", "parts") and v not in (None, ())
                    },
                    "severity": r.severity,
                    "outcome": r.outcome,
                }
                for r in self.judged
            },
            "waivers": [dict(w) for w in self.waivers],
            "notes": list(self.notes),
        }

    def to_text(self, width: int = 96) -> str:
        """The decision as a person would want to read it."""
        verdict = "ADMITTED" if self.gate == "admission" else "RELEASED"
        if not self.allowed:
            verdict = "REFUSED"
        lines = [
            f"{verdict} at the {self.gate} gate by policy "
            f"{self.policy['id']} {self.policy['version']}"
        ]
        for subject in self.subject:
            lines += _labelled("what", subject, width, indent=2)
        shown: set[str] = set()
        for reason in self.reasons:
            finding = reason.finding
            mark = "✗" if reason.outcome == "block" else "!"
            lines += ["", f"  {mark} {finding.name} ({reason.severity}, {finding.status})"]
            lines += _labelled("observed", finding.observed, width)
            lines += _labelled("required", finding.required, width)
            for text in finding.evidence:
                if text not in shown:  # two findings often rest on the same evidence
                    lines += _labelled("evidence", text, width)
            shown.update(finding.evidence)
            if finding.next_step:
                lines += _labelled("next", finding.next_step, width)
        passed = [r.finding.name for r in self.judged if r.outcome in ("pass", "audit")]
        if passed:
            lines += ["", *_labelled("✓ passed", ", ".join(passed), width, indent=2)]
        for waiver in self.waivers:
            lines += _labelled("waiver", f"{waiver.get('id')}: {waiver.get('status')}", width, 2)
        for note in self.notes:
            lines += _labelled("note", note, width, indent=2)
        lines += _labelled("ledger", _ledger_text(self.ledger), width, indent=2)
        if not self.allowed or self.warnings:
            lines += _labelled("ask", self.policy.get("contact", ""), width, indent=2)
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        color = "#1a7f37" if self.allowed else "#b42318"
        head, _, rest = self.to_text().partition("\n")
        return (
            f"<div style='border-left:4px solid {color};padding:4px 12px;margin:8px 0'>"
            f"<strong style='color:{color}'>{escape(head)}</strong>"
            f"<pre style='margin:4px 0;white-space:pre-wrap'>{escape(rest)}</pre></div>"
        )


def _ledger_text(ledger: Mapping[str, Any]) -> str:
    if ledger.get("status") == "unreachable":
        return f"{ledger.get('url')}: unreachable; nothing was looked up (underpowered)"
    count = int(ledger.get("datasets", 0))
    epochs = ", ".join(e[:8] for e in ledger.get("key_epochs", [])) or "none"
    text = f"{ledger.get('url')}: {count:,} dataset{'s' if count != 1 else ''}, key epochs {epochs}"
    if count == 0:
        text += "; it is empty, so finding nothing there proves nothing (underpowered)"
    return text


def _labelled(label: str, text: str, width: int, indent: int = 6) -> list[str]:
    import textwrap

    # File names, stamps and other people's manifests may hold terminal commands.
    text = "".join(
        c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    first = " " * indent + f"{label:<10}"
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first.rstrip()]


def _judge(finding: Finding, severity: Severity, inconclusive: str) -> Reason:
    """Rules 3 and 4."""
    effective: Severity = min(severity, finding.at_most, key=_RANK.__getitem__)
    if finding.status == "broken":
        effective = severity  # a broken safeguard has no say in how mild it is
    failed = finding.status != "met"  # whatever else a safeguard says
    if finding.status == "inconclusive":
        failed = inconclusive != "pass"
        if inconclusive == "warn":
            effective = min(effective, "warn", key=_RANK.__getitem__)
    outcome: Outcome = "pass"
    if failed:
        outcomes: dict[str, Outcome] = {"enforce": "block", "warn": "warn"}
        outcome = outcomes.get(effective, "audit")
    return Reason(finding, effective, outcome)


def _moment(time: str) -> datetime:
    """The moment of the decision; without one, the far future, in which waivers have expired."""
    return datetime.fromisoformat(time) if time else datetime.max.replace(tzinfo=UTC)


def decide(
    policy: Policy,
    gate: Gate,
    findings: Iterable[Finding],
    *,
    ledger: Mapping[str, Any],
    subject: Sequence[str] = (),
    time: str = "",
    notes: Sequence[str] = (),
) -> Decision:
    """The decision of `policy` at `gate` about these findings. Pure: no input, no clock.

    A finding of a rule that is not active at this gate is ignored; a rule without a finding is
    unmet.
    """
    by_rule: dict[str, list[Finding]] = {}
    for finding in findings:
        by_rule.setdefault(finding.rule, []).append(finding)

    judged: list[Reason] = []
    active = policy.at(gate)
    for rule, params in active.items():
        inconclusive = getattr(params, "inconclusive", "fail")
        given = by_rule.get(rule) or [
            Finding(
                rule,
                "silent",
                "broken",
                "the safeguard gave no finding",
                "a finding at every gate that the rule declares",
                next_step="report this to the safeguard's author; until then the rule is unmet",
            )
        ]
        judged += [_judge(f, params.severity, inconclusive) for f in given]
    if not active:
        nothing = Finding(
            "policy",
            "empty",
            "unmet",
            f"the policy has no active rule at the {gate} gate",
            "at least one",
            next_step="a policy that asks nothing admits nothing; use severity: audit to watch",
        )
        judged.append(Reason(nothing, "enforce", "block"))
    return Decision(
        allowed=all(r.outcome != "block" for r in judged),
        gate=gate,
        judged=tuple(judged),
        policy={
            "id": policy.id,
            "version": policy.version,
            "digest": policy.digest,
            "contact": policy.contact,
        },
        ledger=ledger,
        subject=tuple(subject),
        waivers=tuple({"id": w.id, "status": w.status(_moment(time))} for w in policy.waivers),
        notes=tuple(notes),
        time=time,
    )
