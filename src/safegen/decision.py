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
6. A finding that blocks is waived where a waiver stands for the sources and the same question,
   asked with the values that it lowers to, does not block. It is reported as it was found. All
   waivers of the policy are listed, those that do nothing with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from safegen.policy import Policy, RuleParams
    from safegen.policy.waiver import Subject

__all__ = [
    "Decision",
    "Finding",
    "Gate",
    "Part",
    "Status",
    "Waived",
    "Within",
    "decide",
    "to_lower",
    "waiver_text",
]

Gate = Literal["admission", "release"]
Status = Literal["met", "unmet", "inconclusive", "broken"]
Severity = Literal["off", "audit", "warn", "enforce"]
Outcome = Literal["pass", "audit", "warn", "waived", "block"]

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
    waived_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Waived:
    """What a safeguard finds about a rule with the values that waivers lower it to."""

    params: RuleParams
    waivers: tuple[str, ...]
    findings: Sequence[Finding]


@dataclass(frozen=True)
class Decision:
    """A verdict at a gate. Prints for a person; `.enforce()` raises when it is a refusal.

    `.allowed`, `.gate`, `.findings` (rule/check → Finding), `.reasons` (what blocks or warns),
    `.waivers`, `.policy` (id, version, digest, contact, and the digests of what it extends),
    `.ledger` (which was searched, how many
    datasets it holds, which key epochs were at hand), `.notes`.
    """

    allowed: bool
    gate: Gate
    judged: tuple[Reason, ...]
    policy: Mapping[str, Any]
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
        """What blocks, then what is waived, then what warns."""
        return tuple(
            r
            for outcome in ("block", "waived", "warn")
            for r in self.judged
            if r.outcome == outcome
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
                    **({"waived_by": list(r.waived_by)} if r.waived_by else {}),
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
            mark = {"block": "✗", "waived": "~"}.get(reason.outcome, "!")
            lines += ["", f"  {mark} {finding.name} ({reason.severity}, {finding.status})"]
            lines += _labelled("observed", finding.observed, width)
            lines += _labelled("required", finding.required, width)
            for text in finding.evidence:
                if text not in shown:  # two findings often rest on the same evidence
                    lines += _labelled("evidence", text, width)
            shown.update(finding.evidence)
            if reason.waived_by:
                lines += _labelled("waived by", ", ".join(reason.waived_by), width)
            elif finding.next_step:
                lines += _labelled("next", finding.next_step, width)
        passed = [r.finding.name for r in self.judged if r.outcome in ("pass", "audit")]
        if passed:
            lines += ["", *_labelled("✓ passed", ", ".join(passed), width, indent=2)]
        for waiver in self.waivers:
            lines += _labelled("waiver", waiver_text(waiver), width, indent=2)
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


def waiver_text(waiver: Mapping[str, Any]) -> str:
    """A waiver of a decision in one sentence. Decisions of older versions say its id and status."""
    told = f"{waiver.get('id')}: {waiver.get('status')}"
    if waiver.get("problem"):
        told += f" ({waiver['problem']})"
    if waiver.get("expires"):
        told += f"; until {waiver['expires']}, {waiver.get('signed')}"
        told += f", approved by {', '.join(map(str, waiver.get('approved_by') or ()))}"
    return told


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
    sources: Iterable[Subject] | None = None,
    waived: Mapping[str, Waived] | None = None,
) -> Decision:
    """The decision of `policy` at `gate` about these findings. Pure: no input, no clock.

    A finding of a rule that is not active at this gate is ignored; a rule without a finding is
    unmet. `sources`: what each source is known by, for the scope of waivers. `waived`: what was
    found once more about the rules of `to_lower`.
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
        reasons = [_judge(f, params.severity, inconclusive) for f in given]
        if waived and rule in waived:
            reasons = _excepted(reasons, waived[rule])
        judged += reasons
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
            **({"extends": [a.digest for a in policy.extends]} if policy.extends else {}),
        },
        ledger=ledger,
        subject=tuple(subject),
        waivers=tuple(_listed(policy, time, sources, judged)),
        notes=tuple(notes),
        time=time,
    )


def to_lower(
    policy: Policy, decision: Decision, sources: Iterable[Subject] | None
) -> dict[str, tuple[RuleParams, tuple[str, ...]]]:
    """The rules of a refusal to ask about once more, with the values that waivers lower them to,
    and the ids of these waivers."""
    from safegen.policy.standing import lowered, standing

    if decision.allowed or not policy.waivers:
        return {}
    blocked = {r.finding.rule for r in decision.judged if r.outcome == "block"}
    stand = [
        s.waiver
        for s in standing(policy, _moment(decision.time), sources)
        if s.status == "not needed" and s.waiver.rule in blocked
    ]
    found = {}
    for name in dict.fromkeys(w.rule for w in stand):
        params, ids = lowered(policy.rule(name), [w for w in stand if w.rule == name])
        if ids:
            found[name] = (params, ids)
    return found


def _excepted(reasons: Iterable[Reason], lower: Waived) -> list[Reason]:
    """Rule 6. A question that nobody answers with the lower values stays as it is, and so does one
    that has several answers of which one blocks."""
    inconclusive = getattr(lower.params, "inconclusive", "fail")
    again = [_judge(f, lower.params.severity, inconclusive) for f in lower.findings]
    answered = {r.finding.name for r in again}
    answered -= {r.finding.name for r in again if r.outcome == "block"}
    return [
        replace(r, outcome="waived", waived_by=lower.waivers)
        if r.outcome == "block" and r.finding.name in answered
        else r
        for r in reasons
    ]


def _listed(
    policy: Policy, time: str, sources: Iterable[Subject] | None, judged: Sequence[Reason]
) -> Iterator[dict[str, Any]]:
    """Every waiver and what came of it."""
    if not policy.waivers:
        return
    from safegen.policy.standing import standing

    applied = {i for r in judged for i in r.waived_by}
    blocked = {r.finding.rule for r in judged if r.outcome == "block"}
    for one in standing(policy, _moment(time), () if sources is None else sources):
        status = one.status
        if one.waiver.id in applied:
            status = "applied"
        elif status == "not needed" and one.waiver.rule in blocked:
            status = "not enough"
        yield one.to_json(status)
